"""Bringing the data plane up and down: programs, generations, interfaces.

`up` loads a new generation of programs over the pinned maps, makes its program array
whole, and only then swaps the entry of each interface between two packets. Nothing
needs a process afterwards: links, maps and program arrays are pinned.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from xlvs.dataplane import layout, libbpf, migrate
from xlvs.dataplane.host import Host
from xlvs.dataplane.rows import write_timeouts
from xlvs.dataplane.tables import (
    CONN_MAPS,
    RULE_MAPS,
    Tables,
    explain_refusal,
    open_object,
    wait_for_programs,
)
from xlvs.errors import XlvsError

MODES = ("auto", "native", "generic")
LOOPBACK = 1  # ifindex of lo in every network namespace
TC_PRIORITY = 0x786C
MIN_SLOTS, MAX_SLOTS = 1 << 10, 1 << 27
ICMP_ERRORS_A_SECOND = 1000  # net.ipv4.icmp_msgs_per_sec's default, but for each CPU
TICKS_A_SECOND = 128

_FLAG = {"native": libbpf.XDP_FLAGS_DRV_MODE, "generic": libbpf.XDP_FLAGS_SKB_MODE}
_ACCEPT_LOCAL = "/proc/sys/net/ipv4/conf/lo/accept_local"
# What a driver without (this kind of) native XDP answers.
_NO_NATIVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ERANGE, errno.E2BIG)


@dataclass(frozen=True, slots=True)
class Attached:
    """An interface that carries the data plane."""

    ifindex: int
    name: str
    mode: str  # native or generic; "gone" when the device went away


class Plane:
    """The programs of the current network namespace."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tables = Tables()

    # -- up ------------------------------------------------------------------

    def up(
        self, interfaces: Sequence[str], mode: str = "auto", slots: int | None = None, resize: bool = False
    ) -> list[Attached]:
        """Load a generation and attach it to exactly these interfaces.

        ``slots`` sizes the connection table (rounded up to a power of two); on a
        running plane another size is refused unless ``resize``, which copies the live
        connections. On failure the running generation stays as it was.
        """
        devices = _find_interfaces(interfaces)
        with self._tables.locked(exclusive=True):
            try:
                self._tables.create_rules()
                return self._load(devices, mode, slots, resize)
            except libbpf.BpfError as error:
                raise explain_refusal(error) from error

    def _load(self, devices: dict[int, str], mode: str, slots: int | None, resize: bool) -> list[Attached]:
        settings = self._tables.settings
        running = self._tables.have_conns
        wanted = _round_up(slots) if slots else settings.slots
        moving = running and wanted != settings.slots
        if moving and not resize:
            raise XlvsError(
                f"the connection table has {settings.slots} entries and is in use: "
                f"add --migrate to move its connections to one of {wanted}"
            )
        with open_object() as plane:
            for name in RULE_MAPS:
                plane.reuse_map(name, self._tables.fd(name))
            if running:
                for name in CONN_MAPS:
                    if not moving or name not in migrate.MOVED_MAPS:
                        plane.reuse_map(name, self._tables.fd(name))
            if not running or moving:
                plane.set_max_entries("conns", wanted)
                plane.set_max_entries("conn_index4", 2 * wanted)
                plane.set_max_entries("conn_index6", 2 * wanted)
            plane.set_constants(".rodata.sizes", (wanted - 1).to_bytes(4, "little"))
            plane.load()
            self._initialise(plane, wanted)
            move = migrate.Migration(self._tables, plane, wanted) if moving else None
            if move:
                move.begin()
            try:
                attached = self._switch(plane, devices, mode, running)
            finally:
                if move:
                    wait_for_programs()
            if move:
                move.finish()
            settings.slots = wanted
            settings.scan_chunk = max(1, wanted // TICKS_A_SECOND)
            self._pin_generation(plane, moving or not running)
        self._refresh_hosts()
        return attached

    def _initialise(self, plane: libbpf.BpfObject, slots: int) -> None:
        settings = self._tables.settings
        if not settings.hz:
            settings.hz = _measure_hz(plane.program_fd("xlvs_clock"))
        settings.now = libbpf.test_run(plane.program_fd("xlvs_clock"), bytes(64))[0]
        settings.icmp_limit = ICMP_ERRORS_A_SECOND
        settings.tick_ns = 1_000_000_000 // TICKS_A_SECOND
        settings.scan_chunk = max(1, min(slots, settings.slots) // TICKS_A_SECOND)
        settings.hash_seed = settings.hash_seed or secrets.randbits(32) | 1
        write_timeouts(settings)
        for number, name in enumerate(layout.PROGRAMS):
            program = plane.program_fd(name).to_bytes(4, "little")
            libbpf.update(plane.map_fd("programs"), number.to_bytes(4, "little"), program)

    def _switch(
        self, plane: libbpf.BpfObject, devices: dict[int, str], mode: str, running: bool
    ) -> list[Attached]:
        """Attach to new interfaces first: only that can fail. Then swap, then let others go."""
        entry = plane.program_fd("xlvs_known")
        links = self._links()
        fresh: dict[int, int] = {}
        modes: dict[int, str] = {}
        try:
            for ifindex, name in devices.items():
                if ifindex not in links or not self._keeps_mode(ifindex, mode):
                    old = links.pop(ifindex, None)
                    if old is not None:
                        self._drop_link(ifindex, old)
                    fresh[ifindex], modes[ifindex] = _attach(entry, ifindex, name, mode)
                else:
                    modes[ifindex] = "generic" if self._is_generic(ifindex) else "native"
        except libbpf.BpfError:
            for link in fresh.values():
                os.close(link)
            raise
        self._write_ports(modes)
        if libbpf.test_run(plane.program_fd("xlvs_arm"), bytes(64))[0]:
            raise XlvsError("the data plane's timer could not be started")
        for ifindex, link in fresh.items():
            path = self._link_path(ifindex)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            libbpf.pin(link, path)
            os.close(link)
        for ifindex, link in links.items():
            if ifindex in devices:
                libbpf.update_link(link, entry)
            else:
                self._drop_link(ifindex, link)
                self._detach_tc(ifindex)
        for ifindex in devices:
            self._attach_tc(plane.program_fd("xlvs_ingress"), ifindex, True)
            self._attach_tc(plane.program_fd("xlvs_egress"), ifindex, False)
        self._attach_tc(plane.program_fd("xlvs_egress"), LOOPBACK, False)
        self._forget_ports(modes)
        if not running:
            self._allow_own_vip()
        return [Attached(ifindex, name, modes[ifindex]) for ifindex, name in devices.items()]

    def _pin_generation(self, plane: libbpf.BpfObject, new_tables: bool) -> None:
        settings, folder = self._tables.settings, self._tables.folder
        if new_tables:
            for name in CONN_MAPS:
                path = f"{folder}/maps/{name}"
                if name in migrate.MOVED_MAPS or not os.path.exists(path):
                    if os.path.exists(path):
                        os.unlink(path)
                    libbpf.pin(plane.map_fd(name), path)
        settings.generation += 1
        home = f"{folder}/programs-{settings.generation}"
        os.makedirs(home, mode=0o700)
        # The pinned array keeps the tail calls alive when this process ends.
        libbpf.pin(plane.map_fd("programs"), f"{home}/programs")
        for name in plane.programs():
            libbpf.pin(plane.program_fd(name), f"{home}/{name}")
        for entry in os.listdir(folder):
            if entry.startswith("programs-") and f"{folder}/{entry}" != home:
                shutil.rmtree(f"{folder}/{entry}")

    def _write_ports(self, modes: dict[int, str]) -> None:
        ports = self._tables.fd("ports")
        for ifindex, mode in modes.items():
            generic = layout.PORT_GENERIC if mode == "generic" else 0
            kept = self._port(ifindex).flags & layout.PORT_CLSACT
            row = layout.PortRow(flags=layout.PORT_XDP | generic | kept, mtu=self._host.mtu(ifindex))
            libbpf.update(ports, ifindex.to_bytes(4, "little"), bytes(row))
        for vlan in self._host.vlan_devices(modes):
            row = layout.PortRow(flags=layout.PORT_XDP, parent=vlan.parent, tags=len(vlan.tags))
            for number, (tag, _) in enumerate(vlan.tags):
                row.vlan[number] = socket.htons(tag)
            libbpf.update(ports, vlan.ifindex.to_bytes(4, "little"), bytes(row))

    def _forget_ports(self, modes: dict[int, str]) -> None:
        """Rows of interfaces that carry us no longer, and of VLAN devices on those."""
        ports = self._tables.fd("ports")
        for key in list(libbpf.keys(ports, 4)):
            ifindex = int.from_bytes(key, "little")
            if ifindex not in (*modes, LOOPBACK) and self._port(ifindex).parent not in modes:
                libbpf.delete(ports, key)

    def _port(self, ifindex: int) -> layout.PortRow:
        size = ctypes.sizeof(layout.PortRow)
        row = libbpf.lookup(self._tables.fd("ports"), ifindex.to_bytes(4, "little"), size)
        return layout.PortRow.from_buffer_copy(row) if row else layout.PortRow()

    def _is_generic(self, ifindex: int) -> bool:
        return bool(self._port(ifindex).flags & layout.PORT_GENERIC)

    def _attach_tc(self, program: int, ifindex: int, ingress: bool) -> None:
        if libbpf.attach_tc(program, ifindex, ingress, TC_PRIORITY):
            row = self._port(ifindex)
            row.flags |= layout.PORT_CLSACT
            libbpf.update(self._tables.fd("ports"), ifindex.to_bytes(4, "little"), bytes(row))

    def _detach_tc(self, ifindex: int) -> None:
        libbpf.detach_tc(ifindex, True, TC_PRIORITY)
        libbpf.detach_tc(ifindex, False, TC_PRIORITY)
        if self._port(ifindex).flags & layout.PORT_CLSACT:
            libbpf.destroy_clsact(ifindex)

    def _keeps_mode(self, ifindex: int, mode: str) -> bool:
        return mode == "auto" or (mode == "generic") == self._is_generic(ifindex)

    # -- down and status -----------------------------------------------------

    def down(self, keep_rules: bool = False) -> bool:
        """Detach and forget everything (but the rules, if asked); False where nothing was up."""
        with self._tables.locked(exclusive=True):
            folder = self._tables.folder
            if not os.path.isdir(folder):
                return False
            running = self._tables.have_conns
            for ifindex, link in self._links().items():
                self._drop_link(ifindex, link)
                self._detach_tc(ifindex)
            if running:
                self._detach_tc(LOOPBACK)
                self._host.release(self._destinations())
                _write_sysctl(_ACCEPT_LOCAL, "0")
            for entry in os.listdir(folder):
                if entry != "maps":
                    shutil.rmtree(f"{folder}/{entry}")
            if keep_rules:
                self._forget_connections()
            else:
                shutil.rmtree(folder)
        return running

    def _forget_connections(self) -> None:
        for name in CONN_MAPS:
            path = f"{self._tables.folder}/maps/{name}"
            if os.path.exists(path):
                os.unlink(path)
        wait_for_programs()
        for number in range(self._tables.settings.dests_high):
            load = self._tables.load_row(number)
            ctypes.memset(ctypes.addressof(load), 0, ctypes.sizeof(load))

    @property
    def is_up(self) -> bool:
        """Whether `up` has run in this namespace."""
        return self._tables.have_conns

    def attached(self) -> list[Attached]:
        """The interfaces that carry the data plane now."""
        result = []
        for ifindex, link in self._links().items():
            target, _ = libbpf.link_target(link)
            os.close(link)
            if target:
                mode = "generic" if self._is_generic(ifindex) else "native"
                result.append(Attached(ifindex, socket.if_indextoname(ifindex), mode))
            else:
                result.append(Attached(ifindex, f"#{ifindex}", "gone"))
        return result

    @property
    def tables(self) -> Tables:
        """The maps behind the programs, for status."""
        return self._tables

    def refresh(self) -> None:
        """Ask the machine's network again: neighbours, sources of tunnels, own addresses."""
        with self._tables.locked(exclusive=True):
            if self._tables.have_conns:
                self._refresh_hosts()

    def _refresh_hosts(self) -> None:
        for number, flags in self._used_dests():
            row = self._tables.dest_row(number)
            address = layout.plain_address(row.address, row.family)
            local = layout.DEST_LOCAL if self._host.is_local(address) else 0
            if flags & layout.DEST_LOCAL != local:
                row.flags = (row.flags & ~layout.DEST_LOCAL) | local
            source = self._host.source_towards(address) if row.forward == 2 else None  # TUN
            if source and bytes(row.source) != source.ljust(16, b"\0"):
                row.source = layout.wire_address(source)
        self._host.keep_resolved(self._destinations())

    def _used_dests(self) -> list[tuple[int, int]]:
        used = self._tables.settings.dests_high
        flags = self._tables.column("dests", layout.DestRow, "flags", used)
        return [(number, flag) for number, flag in enumerate(flags) if flag & layout.DEST_AVAILABLE]

    def _destinations(self) -> list[bytes]:
        rows = [
            self._tables.dest_row(number)
            for number, flag in self._used_dests()
            if not flag & layout.DEST_LOCAL
        ]
        return sorted({layout.plain_address(row.address, row.family) for row in rows})

    def _allow_own_vip(self) -> None:
        """Let lo take packets from the VIP to the VIP: answers to the director itself."""
        _write_sysctl(_ACCEPT_LOCAL, "1")

    # -- links ---------------------------------------------------------------

    def _link_path(self, ifindex: int) -> str:
        return f"{self._tables.folder}/links/{ifindex}"

    def _links(self) -> dict[int, int]:
        """The pinned links by ifindex; those whose device went away are dropped."""
        folder = f"{self._tables.folder}/links"
        links = {}
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            link = libbpf.get_pinned(f"{folder}/{name}")
            if libbpf.link_target(link)[0] == int(name):
                links[int(name)] = link
            else:
                self._drop_link(int(name), link)
        return links

    def _drop_link(self, ifindex: int, link: int) -> None:
        os.unlink(self._link_path(ifindex))
        os.close(link)


def forwarding() -> dict[str, bool]:
    """Whether the kernel forwards, by family: without it routing answers nothing."""
    paths = {"ipv4": "/proc/sys/net/ipv4/ip_forward", "ipv6": "/proc/sys/net/ipv6/conf/all/forwarding"}
    result = {}
    for family, path in paths.items():
        try:
            with open(path) as text:
                result[family] = text.read().strip() != "0"
        except OSError:
            result[family] = False
    return result


def _find_interfaces(names: Sequence[str]) -> dict[int, str]:
    if not names:
        raise XlvsError(
            "no interface given: name every interface that clients or real servers are reached by"
        )
    devices = {}
    for name in names:
        try:
            devices[socket.if_nametoindex(name)] = name
        except OSError:
            raise XlvsError(f"no interface '{name}' in this network namespace") from None
    if LOOPBACK in devices:
        raise XlvsError("lo carries no data plane: connections of the director itself are seen without")
    return devices


def _round_up(slots: int) -> int:
    if not MIN_SLOTS <= slots <= MAX_SLOTS:
        raise XlvsError(f"--connections takes {MIN_SLOTS} to {MAX_SLOTS}, not {slots}")
    return 1 << (slots - 1).bit_length()


def _attach(entry: int, ifindex: int, name: str, mode: str) -> tuple[int, str]:
    tries = ("native", "generic") if mode == "auto" else (mode,)
    for attempt in tries:
        try:
            return libbpf.attach_xdp(entry, ifindex, _FLAG[attempt]), attempt
        except libbpf.BpfError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise XlvsError(f"{name} has another XDP program: remove that one first") from error
            if attempt == tries[-1] or error.errno not in _NO_NATIVE:
                raise XlvsError(
                    f"{name} takes no XDP in {attempt} mode: {os.strerror(error.errno)}"
                ) from error
    raise AssertionError("unreachable")


def _measure_hz(clock: int) -> int:
    """Jiffies a second: the kernel's choices are few, so 60 ms tell them apart."""
    jiffies, begun = libbpf.test_run(clock, bytes(64))[0], time.monotonic()
    time.sleep(0.06)
    passed = (libbpf.test_run(clock, bytes(64))[0] - jiffies) & 0xFFFFFFFF
    seen = passed / (time.monotonic() - begun)
    return min((100, 250, 300, 1000), key=lambda hz: abs(hz - seen) / hz)


def _write_sysctl(path: str, value: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(value)
    except OSError:
        return  # a container may keep /proc/sys read-only: only the director's own VIP suffers
