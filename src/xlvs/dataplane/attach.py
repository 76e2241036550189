"""The interfaces that carry the data plane: XDP links, tc filters, and the map of ports.

Each interface's link is pinned as links/IFINDEX. A new generation pins the links that it
attaches anew in its own folder first (link-IFINDEX-MODE): until they are moved, taking
the folder away takes them off again. So a process that fails or is killed half-way
leaves something that can be undone (before the generation counts) or settled (after).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.host import Host
from xlvs.dataplane.tables import Tables
from xlvs.errors import XlvsError

LOOPBACK = 1  # ifindex of lo in every network namespace
TC_PRIORITY = 0x786C
ENTRY, INGRESS, EGRESS = "xlvs_known", "xlvs_ingress", "xlvs_egress"

_FLAG = {"native": libbpf.XDP_FLAGS_DRV_MODE, "generic": libbpf.XDP_FLAGS_SKB_MODE}
# What a driver without (this kind of) native XDP answers.
_NO_NATIVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ERANGE, errno.E2BIG)


@dataclass(frozen=True, slots=True)
class Attached:
    """An interface that carries the data plane."""

    ifindex: int
    name: str
    mode: str  # native or generic; "gone" when the device went away


@contextmanager
def pinned(path: str) -> Iterator[int]:
    """The file descriptor of what is pinned at a path, for a block."""
    fd = libbpf.get_pinned(path)
    try:
        yield fd
    finally:
        os.close(fd)


class Interfaces:
    """Attaching and detaching in the current network namespace; under the exclusive lock."""

    def __init__(self, tables: Tables, host: Host) -> None:
        self._tables = tables
        self._host = host

    def attached(self) -> list[Attached]:
        """The interfaces that carry the data plane now, and those that did and are gone."""
        result = []
        for ifindex, path in sorted(self._links().items()):
            try:
                with pinned(path) as link:
                    here = libbpf.link_target(link)[0] == ifindex
                name = socket.if_indextoname(ifindex) if here else f"#{ifindex}"
            except (OSError, libbpf.BpfError):
                here, name = False, f"#{ifindex}"
            mode = ("generic" if self._is_generic(ifindex) else "native") if here else "gone"
            result.append(Attached(ifindex, name, mode))
        return result

    # -- the steps of `up` -----------------------------------------------------

    def attach(self, home: str, devices: dict[int, str], mode: str) -> None:
        """Attach the generation in ``home`` where there is no link of the wanted mode: only this can fail."""
        for ifindex, name in devices.items():
            old = self._links().get(ifindex)
            if old and self._target(old)[0] == ifindex:
                if mode == "auto" or (mode == "generic") == self._is_generic(ifindex):
                    continue
                # Until XDP is back, the tc companion keeps our packets from the director's own stack.
                self._tables.settings.flags |= layout.HOLD
                with pinned(old) as link:
                    libbpf.detach_link(link)
            with pinned(f"{home}/{ENTRY}") as entry:
                link, chosen = _attach(entry, ifindex, name, mode)
            self.release()
            try:
                libbpf.pin(link, f"{home}/link-{ifindex}-{chosen}")
            finally:
                os.close(link)
            if not old:
                self._write_port(ifindex, chosen)
                self._attach_tc(home, ifindex)

    def release(self) -> None:
        """Every interface has its XDP: packets are held back no longer."""
        self._tables.settings.flags &= ~layout.HOLD

    def swap(self, home: str, devices: Iterable[int]) -> None:
        """Put the generation in ``home`` behind the links of these interfaces."""
        with pinned(f"{home}/{ENTRY}") as entry:
            for ifindex, path in self._links().items():
                if ifindex in devices and self._target(path)[0] == ifindex:
                    with pinned(path) as link:
                        libbpf.update_link(link, entry)
                    self._attach_tc(home, ifindex)
        self._attach_tc(home, LOOPBACK)

    def settle(self, home: str) -> None:
        """The generation in ``home`` counts now: let go what does not run it."""
        with pinned(f"{home}/{ENTRY}") as entry:
            program = libbpf.program_info(entry)[0]
        fresh = _fresh(home)
        os.makedirs(f"{self._tables.folder}/links", mode=0o700, exist_ok=True)
        for ifindex, (path, mode) in fresh.items():
            kept = self._link_path(ifindex)
            if os.path.exists(kept):
                os.unlink(kept)
            os.rename(path, kept)
            self._write_port(ifindex, mode)
        for ifindex, path in self._links().items():
            if self._target(path) != (ifindex, program):
                self.detach(ifindex)
        self._write_vlans()

    def undo(self, home: str, before: str | None) -> None:
        """Take off what ``home`` attached, and put the generation in ``before`` back behind the rest."""
        links = self._links()
        self._tables.settings.flags |= layout.HOLD if before else 0
        for ifindex, (path, _) in _fresh(home).items():
            os.unlink(path)
            if ifindex not in links:
                self._detach_tc(ifindex)
                libbpf.delete(self._tables.fd("ports"), ifindex.to_bytes(4, "little"))
        if before is None:
            self._detach_tc(LOOPBACK)
            return
        for ifindex, path in links.items():
            if self._target(path)[0] != ifindex:
                self._attach_again(before, ifindex)
        self.release()
        self.swap(before, links)

    def _attach_again(self, home: str, ifindex: int) -> None:
        mode = "generic" if self._is_generic(ifindex) else "native"
        with suppress(XlvsError, OSError), pinned(f"{home}/{ENTRY}") as entry:
            link, _ = _attach(entry, ifindex, socket.if_indextoname(ifindex), mode)
            os.unlink(self._link_path(ifindex))
            libbpf.pin(link, self._link_path(ifindex))
            os.close(link)

    def detach(self, ifindex: int) -> None:
        """Let an interface go."""
        path = self._link_path(ifindex)
        if os.path.exists(path):
            os.unlink(path)
        self._detach_tc(ifindex)
        libbpf.delete(self._tables.fd("ports"), ifindex.to_bytes(4, "little"))

    def detach_all(self) -> None:
        """Let every interface go, lo's filter too."""
        for ifindex in [*self._links(), LOOPBACK]:
            self.detach(ifindex)

    # -- ports -----------------------------------------------------------------

    def _write_port(self, ifindex: int, mode: str) -> None:
        generic = layout.PORT_GENERIC if mode == "generic" else 0
        kept = self._port(ifindex).flags & layout.PORT_CLSACT
        back = layout.PORT_TX if self._host.transmits_back(ifindex) else 0
        flags = layout.PORT_XDP | generic | kept | back
        row = layout.PortRow(flags=flags, mtu=self._host.mtu(ifindex))
        self._store_port(ifindex, row)

    def _write_vlans(self) -> None:
        """Rows of VLAN devices on top of our interfaces; those of others go."""
        ours = {ifindex for ifindex, path in self._links().items() if self._target(path)[0] == ifindex}
        vlans = {vlan.ifindex: vlan for vlan in self._host.vlan_devices(ours)}
        for vlan in vlans.values():
            row = layout.PortRow(flags=layout.PORT_XDP, parent=vlan.parent, tags=len(vlan.tags))
            for number, (tag, _) in enumerate(vlan.tags):
                row.vlan[number] = socket.htons(tag)
            self._store_port(vlan.ifindex, row)
        for key in list(libbpf.keys(self._tables.fd("ports"), 4)):
            if int.from_bytes(key, "little") not in {*ours, *vlans, LOOPBACK}:
                libbpf.delete(self._tables.fd("ports"), key)

    def _port(self, ifindex: int) -> layout.PortRow:
        size = ctypes.sizeof(layout.PortRow)
        row = libbpf.lookup(self._tables.fd("ports"), ifindex.to_bytes(4, "little"), size)
        return layout.PortRow.from_buffer_copy(row) if row else layout.PortRow()

    def _store_port(self, ifindex: int, row: layout.PortRow) -> None:
        libbpf.update(self._tables.fd("ports"), ifindex.to_bytes(4, "little"), bytes(row))

    def _is_generic(self, ifindex: int) -> bool:
        return bool(self._port(ifindex).flags & layout.PORT_GENERIC)

    # -- tc --------------------------------------------------------------------

    def _attach_tc(self, home: str, ifindex: int) -> None:
        hooks = ((EGRESS, False),) if ifindex == LOOPBACK else ((INGRESS, True), (EGRESS, False))
        for name, ingress in hooks:
            with pinned(f"{home}/{name}") as program:
                if libbpf.attach_tc(program, ifindex, ingress, TC_PRIORITY):
                    row = self._port(ifindex)
                    row.flags |= layout.PORT_CLSACT
                    self._store_port(ifindex, row)

    def _detach_tc(self, ifindex: int) -> None:
        libbpf.detach_tc(ifindex, True, TC_PRIORITY)
        libbpf.detach_tc(ifindex, False, TC_PRIORITY)
        if self._port(ifindex).flags & layout.PORT_CLSACT:
            libbpf.destroy_clsact(ifindex)

    # -- links -----------------------------------------------------------------

    def _link_path(self, ifindex: int) -> str:
        return f"{self._tables.folder}/links/{ifindex}"

    def _links(self) -> dict[int, str]:
        """Where links are pinned, by ifindex; a device may be gone."""
        folder = f"{self._tables.folder}/links"
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return {int(name): f"{folder}/{name}" for name in names}

    def _target(self, path: str) -> tuple[int, int]:
        """The ifindex (0 when the device is gone) and the program's id."""
        with pinned(path) as link:
            return libbpf.link_target(link)


def _fresh(home: str) -> dict[int, tuple[str, str]]:
    """Links that wait in a generation's folder: path and mode by ifindex."""
    found = {}
    for name in os.listdir(home):
        if name.startswith("link-"):
            _, ifindex, mode = name.split("-")
            found[int(ifindex)] = (f"{home}/{name}", mode)
    return found


def _attach(entry: int, ifindex: int, name: str, mode: str) -> tuple[int, str]:
    tries = ("native", "generic") if mode == "auto" else (mode,)
    for attempt in tries:
        try:
            return libbpf.attach_xdp(entry, ifindex, _FLAG[attempt]), attempt
        except libbpf.BpfError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise XlvsError(f"{name} has another XDP program: remove that one first") from error
            if attempt == tries[-1] or error.errno not in _NO_NATIVE:
                why = os.strerror(error.errno)
                raise XlvsError(f"{name} takes no XDP in {attempt} mode: {why}") from error
    raise AssertionError("unreachable")
