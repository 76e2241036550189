"""The eBPF decapsulator (bpf/decap.bpf.c) on a real server's interface.

Program, maps and link are pinned in our bpffs, in a folder for each interface of
this network namespace, so that decapsulation needs no process.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from xlvs import dataplane
from xlvs.dataplane import libbpf, pins
from xlvs.errors import XlvsError
from xlvs.realserver import pinned
from xlvs.realserver.counters import totals

OBJECT = os.path.join(os.path.dirname(dataplane.__file__), "objects", "decap.bpf.o")
PROGRAM = "decapsulate"
MAPS = ("tunnel_ends", "vips", "gue_ports", "counters")

# enum counter in bpf/decap.bpf.c.
COUNTERS = (
    "decapsulated",
    "decapsulated_bytes",
    "fragments",
    "foreign_outer",
    "foreign_inner",
    "malformed",
    "congestion_dropped",
    "checksum_wrong",
)
_PRESENT = b"\x01"


def key(address: str) -> bytes:
    """An address as the maps have it: 16 bytes, IPv4 mapped into IPv6."""
    value = ipaddress.ip_address(address)
    return value.packed if value.version == 6 else b"\x00" * 10 + b"\xff\xff" + value.packed


def folder(interface: str) -> str:
    """The folder of an interface's pins; it exists while a decapsulator is attached."""
    return f"{_namespace_folder()}/{interface}"


def attach(
    interface: str, tunnel_ends: Iterable[str], vips: Iterable[str], gue_ports: Iterable[int] = ()
) -> None:
    """Attach to an interface, or bring what is attached there up to date, under traffic.

    ``tunnel_ends`` are the addresses that tunnels to this server end at, ``gue_ports`` the
    UDP ports that GUE comes in by.
    """
    index = _interface_index(interface)
    if not os.path.exists(OBJECT):
        raise XlvsError(f"{OBJECT} is missing: 'make bpf' compiles it")
    os.makedirs(folder(interface), mode=0o700, exist_ok=True)
    with libbpf.BpfObject(OBJECT) as program:
        pinned.load(program, folder(interface), MAPS)
        # The maps before the link: from its first packet on the program knows whom it serves.
        for name, wanted in _keys(tunnel_ends, vips, gue_ports).items():
            _fill(name, program.map_fd(name), wanted)
        _link(interface, index, program.program_fd(PROGRAM))


def attached(interface: str) -> bool:
    """Whether our program sits on this interface now."""
    descriptor = pinned.opened(f"{folder(interface)}/link")
    if descriptor is None:
        return False
    try:
        return libbpf.link_target(descriptor)[0] == _interface_index(interface)
    finally:
        os.close(descriptor)


def serves(
    interface: str, tunnel_ends: Iterable[str], vips: Iterable[str], gue_ports: Iterable[int] = ()
) -> bool:
    """Whether the maps hold exactly these addresses and ports."""
    for name, wanted in _keys(tunnel_ends, vips, gue_ports).items():
        descriptor = pinned.opened(f"{folder(interface)}/{name}")
        if descriptor is None:
            return False
        try:
            if _present(name, descriptor) != wanted:
                return False
        finally:
            os.close(descriptor)
    return True


def detach(interface: str) -> None:
    """Take the decapsulator off an interface and leave no pin."""
    with suppress(FileNotFoundError):
        for name in os.listdir(folder(interface)):
            os.unlink(f"{folder(interface)}/{name}")
        os.rmdir(folder(interface))
    with suppress(OSError):  # another interface's decapsulator keeps it
        os.rmdir(_namespace_folder())


def counters(interface: str) -> dict[str, int] | None:
    """What the decapsulator counted, over all CPUs; None where there is none."""
    descriptor = pinned.opened(f"{folder(interface)}/counters")
    if descriptor is None:
        return None
    try:
        return totals(descriptor, COUNTERS)
    finally:
        os.close(descriptor)


def plain_commands(
    interface: str, tunnel_ends: Iterable[str], vips: Iterable[str], gue_ports: Iterable[int] = ()
) -> list[list[str]]:
    """The bpftool commands that attach the same program."""
    at = "/sys/fs/bpf/xlvs-realserver"
    commands = [["bpftool", "prog", "load", OBJECT, f"{at}-{PROGRAM}", "type", "xdp", "pinmaps", at]]
    for name, wanted in _keys(tunnel_ends, vips, gue_ports).items():
        for each in sorted(wanted):
            octets = [f"{octet:02x}" for octet in each]
            commands.append(
                [
                    "bpftool",
                    "map",
                    "update",
                    "pinned",
                    f"{at}/{name}",
                    "key",
                    "hex",
                    *octets,
                    "value",
                    "hex",
                    "01",
                ]
            )
    commands.append(["bpftool", "net", "attach", "xdp", "pinned", f"{at}-{PROGRAM}", "dev", interface])
    return commands


def _namespace_folder() -> str:
    return f"{pins.bpffs_folder()}/realserver-{pins.netns_cookie():016x}"


def _interface_index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise XlvsError(f"there is no interface {interface} here") from error


def _keys(tunnel_ends: Iterable[str], vips: Iterable[str], gue_ports: Iterable[int]) -> dict[str, set[bytes]]:
    """What each map must hold."""
    return {
        "tunnel_ends": {key(address) for address in tunnel_ends},
        "vips": {key(address) for address in vips},
        "gue_ports": {port.to_bytes(2, "big") for port in gue_ports},
    }


def _present(name: str, descriptor: int) -> set[bytes]:
    return set(libbpf.keys(descriptor, 2 if name == "gue_ports" else 16))


def _fill(name: str, descriptor: int, wanted: set[bytes]) -> None:
    for present in _present(name, descriptor) - wanted:
        libbpf.delete(descriptor, present)
    for missing in wanted:
        libbpf.update(descriptor, missing, _PRESENT)


def _link(interface: str, index: int, program_fd: int) -> None:
    path = f"{folder(interface)}/link"
    existing = pinned.opened(f"{folder(interface)}/link")
    if existing is not None:
        try:
            if libbpf.link_target(existing)[0] == index:
                libbpf.update_link(existing, program_fd)
                return
        finally:
            os.close(existing)
        os.unlink(path)  # its interface went away, and perhaps came again as another
    descriptor = _attached_link(interface, index, program_fd)
    try:
        libbpf.pin(descriptor, path)
    finally:
        os.close(descriptor)


def _attached_link(interface: str, index: int, program_fd: int) -> int:
    try:
        return libbpf.attach_xdp(program_fd, index, libbpf.XDP_FLAGS_DRV_MODE)
    except libbpf.BpfError as error:
        if error.errno in (errno.EBUSY, errno.EEXIST):
            raise XlvsError(f"another XDP program is on {interface} already") from error
    # The driver has no native mode, or not for this MTU: generic mode always works.
    return libbpf.attach_xdp(program_fd, index, libbpf.XDP_FLAGS_SKB_MODE)
