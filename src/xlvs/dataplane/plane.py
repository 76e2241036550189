"""Bringing the data plane up and down: generations of programs and tables.

`up` loads a generation over the pinned maps and pins all of it, then attaches it, then
makes it count by one word (settings.generation), then lets the old one go. Whoever is
killed on the way leaves pins that say how far it came: the next command that takes the
lock here undoes the generation, or settles it if it counts already.

Nothing needs a process afterwards: links, maps and program arrays are pinned.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import time
from collections.abc import Sequence

from xlvs.dataplane import defence, layout, libbpf, loopback, migrate, pins, sources, sysctl_rows
from xlvs.dataplane.attach import LOOPBACK, Attached, Interfaces, pinned
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
MIN_SLOTS, MAX_SLOTS = 1 << 10, 1 << 27
ICMP_ERRORS_A_SECOND = 1000  # net.ipv4.icmp_msgs_per_sec's default, but for each CPU
TICKS_A_SECOND = 128
HOP_LOOKS_A_SECOND = 10  # how often a packet has its next hop looked up again


class Plane:
    """The programs of the current network namespace."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tables = Tables()
        self._interfaces = Interfaces(self._tables, host)
        self.warnings: list[str] = []  # what `up` could not do, and what suffers

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
        wanted = _round_up(slots) if slots is not None else None
        with self._tables.locked(exclusive=True):
            try:
                self._tables.create_rules()
                self._recover()
                self._load(devices, mode, wanted, resize)
            except libbpf.BpfError as error:
                raise explain_refusal(error) from error
            self._refresh_hosts()
            return self._interfaces.attached()

    def _load(self, devices: dict[int, str], mode: str, slots: int | None, resize: bool) -> None:
        settings = self._tables.settings
        running = self._tables.have_conns
        wanted = slots or settings.slots
        moving = running and wanted != settings.slots
        if moving and not resize:
            raise XlvsError(
                f"the connection table has {settings.slots} entries and is in use: "
                f"add --migrate to move its connections to one of {wanted}"
            )
        generation = settings.generation + 1
        with open_object() as plane:
            self._choose_maps(plane, running, moving, wanted)
            plane.load()
            self._initialise(plane, wanted)
            home = self._pin(plane, generation)
            move = migrate.Migration(self._tables, plane, wanted) if moving else None
            try:
                if move:
                    move.begin()
                self._interfaces.attach(home, devices, mode)
                self._arm(home)
                if not running:
                    self._prepare_loopback()
                if move:
                    move.catch_up()
                self._interfaces.swap(home, devices)
                if move:
                    wait_for_programs()
                    move.finish()
            except BaseException:
                self._undo(home)
                raise
        settings.generation = generation
        self._settle(home)

    def _choose_maps(self, plane: libbpf.BpfObject, running: bool, moving: bool, slots: int) -> None:
        """The pinned maps where there are some, new ones of the right size else."""
        kept = [name for name in CONN_MAPS if not moving or name not in migrate.MOVED_MAPS]
        for name in [*RULE_MAPS, *(kept if running else ())]:
            plane.reuse_map(name, self._tables.fd(name))
        if not running or moving:
            plane.set_max_entries("conns", slots)
            plane.set_max_entries("conn_index4", 2 * slots)
            plane.set_max_entries("conn_index6", 2 * slots)
        plane.set_constants(".rodata.sizes", (slots - 1).to_bytes(4, "little"))

    def _initialise(self, plane: libbpf.BpfObject, slots: int) -> None:
        settings = self._tables.settings
        if not settings.hz:
            settings.hz = _measure_hz(plane.program_fd("xlvs_clock"))
        settings.hop_fresh = settings.hz // HOP_LOOKS_A_SECOND
        settings.now = libbpf.test_run(plane.program_fd("xlvs_clock"), bytes(64))[0]
        settings.icmp_limit = ICMP_ERRORS_A_SECOND
        settings.tick_ns = 1_000_000_000 // TICKS_A_SECOND
        settings.scan_chunk = max(1, min(slots, settings.slots) // TICKS_A_SECOND)
        settings.hash_seed = settings.hash_seed or secrets.randbits(32) | 1
        if not any(settings.cookie_key):
            settings.cookie_key[:] = [secrets.randbits(32) for _ in settings.cookie_key]
        write_timeouts(settings)
        for number, name in enumerate(layout.PROGRAMS):
            program = plane.program_fd(name).to_bytes(4, "little")
            libbpf.update(plane.map_fd("programs"), number.to_bytes(4, "little"), program)

    def _pin(self, plane: libbpf.BpfObject, generation: int) -> str:
        """Pin a whole generation; returns its folder. The program array keeps the tail calls alive."""
        home = self._tables.generation_folder(generation)
        os.makedirs(home, mode=0o700)
        for name in (*CONN_MAPS, "programs"):
            libbpf.pin(plane.map_fd(name), f"{home}/{name}")
        for name in plane.programs():
            libbpf.pin(plane.program_fd(name), f"{home}/{name}")
        return home

    def _arm(self, home: str) -> None:
        """Start the timer, or hand it to this generation's tick."""
        with pinned(f"{home}/xlvs_arm") as program:
            if libbpf.test_run(program, bytes(64))[0]:
                raise XlvsError("the data plane's timer could not be started")

    # -- what was left half done -----------------------------------------------

    def _recover(self) -> None:
        """Undo or settle what a killed `up` left."""
        here = self._tables.generation_folder() if self._tables.have_conns else None
        for home in self._generations():
            if home != here and int(home.rpartition("-")[2]) > self._tables.settings.generation:
                self._undo(home)
        if here and (len(self._generations()) > 1 or any(map(_is_link, os.listdir(here)))):
            self._settle(here)

    def _generations(self) -> list[str]:
        folder = self._tables.folder
        return [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith("generation-")]

    def _undo(self, home: str) -> None:
        """Back to the generation that counts, as if the one in ``home`` had never been."""
        before = self._tables.generation_folder() if self._tables.have_conns else None
        if before:
            self._arm(before)
        self._interfaces.undo(home, before)
        if self._tables.settings.flags & layout.MIGRATING:
            migrate.abandon(self._tables)
        if before is None:
            loopback.restore(self._loopback_note)
        shutil.rmtree(home)

    def _settle(self, home: str) -> None:
        """The generation in ``home`` counts: nothing else is needed any more."""
        settings = self._tables.settings
        settings.slots = libbpf.map_info(self._tables.fd("conns"))[2]
        settings.scan_chunk = max(1, settings.slots // TICKS_A_SECOND)
        settings.flags &= ~(layout.MIGRATING | layout.HOLD)
        self._interfaces.settle(home)
        for each in self._generations():
            if each != home:
                shutil.rmtree(each)

    # -- down and status -----------------------------------------------------

    def down(self, keep_rules: bool = False) -> bool:
        """Detach and forget everything (but the rules, if asked); False where nothing was up."""
        with self._tables.locked(exclusive=True, finish=keep_rules):
            running = False
            if self._tables.have_rules:
                self._recover()
                running = self._tables.have_conns
                self._take_down()
            if keep_rules:
                self._forget_connections()
            else:
                shutil.rmtree(self._tables.folder, ignore_errors=True)
            for path in (self._tables.note, self._tables.lock_file):
                if os.path.exists(path):
                    os.unlink(path)
        return running

    def _take_down(self) -> None:
        self._interfaces.detach_all()
        self._host.release()
        loopback.restore(self._loopback_note)
        # Whoever still has these tables open sees that they are not up any more.
        self._tables.settings.generation = 0
        for name in os.listdir(self._tables.folder):
            if name != "maps":
                shutil.rmtree(f"{self._tables.folder}/{name}")

    def _forget_connections(self) -> None:
        if not self._tables.have_rules:
            return
        wait_for_programs()
        self._tables.settings.expected = 0
        for number in range(self._tables.settings.dests_high):
            load = self._tables.load_row(number)
            ctypes.memset(ctypes.addressof(load), 0, ctypes.sizeof(load))

    @property
    def is_up(self) -> bool:
        """Whether `up` has run in this namespace."""
        return self._tables.have_conns

    def attached(self) -> list[Attached]:
        """The interfaces that carry the data plane now."""
        return self._interfaces.attached()

    @property
    def tables(self) -> Tables:
        """The maps behind the programs, for status."""
        return self._tables

    # -- the machine's network -------------------------------------------------

    def refresh(self) -> None:
        """Ask the machine's network again (neighbours, sources of tunnels, own addresses);
        and put right what a killed `up` left."""
        with self._tables.locked(exclusive=True):
            if self._tables.have_conns:
                self._recover()
                loopback.hold()
                self._refresh_hosts()

    def defend(self) -> None:
        """Let the memory decide on what drop_entry, drop_packet and secure_tcp leave to it."""
        if not sysctl_rows.levels(sysctl_rows.read(self._tables.settings)).automatic:
            return
        with self._tables.locked(exclusive=True):
            self._tables.apply(sysctl_rows.changes(self._tables.settings, {}, defence.available_pages()))

    def _refresh_hosts(self) -> None:
        settings = self._tables.settings
        for number, flags in self._used_dests():
            row = self._tables.dest_row(number)
            address = layout.plain_address(row.address, row.family)
            local = layout.DEST_LOCAL if self._host.is_local(address) else 0
            if flags & layout.DEST_LOCAL != local:
                row.flags = (row.flags & ~layout.DEST_LOCAL) | local
            source = self._host.source_towards(address) if sources.needed(row.forward, settings) else None
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

    @property
    def _loopback_note(self) -> str:
        return f"{pins.run_folder()}/{pins.netns_cookie():016x}.lo"

    def _prepare_loopback(self) -> None:
        self.warnings += loopback.prepare(self._loopback_note)


def _is_link(name: str) -> bool:
    return name.startswith("link-")


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


def _measure_hz(clock: int) -> int:
    """Jiffies a second: the kernel's choices are few, so 60 ms tell them apart."""
    jiffies, begun = libbpf.test_run(clock, bytes(64))[0], time.monotonic()
    time.sleep(0.06)
    passed = (libbpf.test_run(clock, bytes(64))[0] - jiffies) & 0xFFFFFFFF
    seen = passed / (time.monotonic() - begun)
    return min((100, 250, 300, 1000), key=lambda hz: abs(hz - seen) / hz)
