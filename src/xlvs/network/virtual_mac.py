"""Virtual MACs: a macvlan (or ipvlan) on the interface, with RFC 5798's address, and what goes with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from xlvs.network.ip_commands import ip_now

_PREFIX = {4: bytes.fromhex("00005e0001"), 6: bytes.fromhex("00005e0002")}  # RFC 5798 7.3

log = logging.getLogger(__name__)


def mac_of(router_id: int, family: int) -> bytes:
    """The MAC address of a virtual router; ``family`` is 4 or 6."""
    return _PREFIX[family] + bytes((router_id,))


@dataclass(frozen=True, slots=True)
class VirtualMac:
    """An interface to be made on ``parent``. ``mac`` None: an ipvlan of this ``mode``, with its parent's.

    ``address`` is what an ipvlan sends from.
    """

    name: str
    parent: str
    mac: bytes | None
    family: int
    mode: str = "private"
    address: IPv4Interface | IPv6Interface | None = None


def make(device: VirtualMac, parent_addresses: Iterable[IPv4Address | IPv6Address] = ()) -> None:
    """Make the interface anew and switch it on; IPv6 adverts leave from the parent's link-local address."""
    kind = f"ipvlan mode l2 {device.mode}" if device.mac is None else f"macvlan mode {device.mode}"
    address = "" if device.mac is None else f" address {device.mac.hex(':')}"
    ip_now([f"link del {device.name}"])
    ip_now([f"link add name {device.name} link {device.parent}{address} type {kind}"])
    name = device.name
    # It sends with the parent's address and answers for its own ones alone.
    for setting, value in (
        ("arp_ignore", 1),
        ("accept_local", 1),
        ("rp_filter", 0),
        ("promote_secondaries", 1),
    ):
        set_sysctl("ipv4", name, setting, value)
    set_sysctl("ipv6", name, "addr_gen_mode", 1)  # no address of its own but those of the router
    set_sysctl("ipv6", name, "accept_ra", 0)
    if device.family == 4:
        set_sysctl("ipv6", name, "disable_ipv6", 1)
    ip_now([f"link set {name} up"])
    own = device.address or (_link_local(parent_addresses) if device.family == 6 else None)
    if own is not None:
        # IPv6 sends by an interface only what is from an address on it.
        ip_now([f"addr add {own} dev {name}{' nodad' if own.version == 6 else ''}"])


def _link_local(addresses: Iterable[IPv4Address | IPv6Address]) -> IPv6Interface | None:
    found = (one for one in addresses if one.version == 6 and one.is_link_local)
    return next((IPv6Interface(f"{one}/64") for one in found), None)


def remove(name: str) -> None:
    """Take the interface away."""
    ip_now([f"link del {name}"])


def get_sysctl(family: str, interface: str, name: str) -> str | None:
    """An interface's sysctl; None where there is none."""
    try:
        return _sysctl(family, interface, name).read_text().strip()
    except OSError:
        return None


def set_sysctl(family: str, interface: str, name: str, value: int | str) -> None:
    """Set an interface's sysctl; one that the kernel has not is left out."""
    with suppress(FileNotFoundError):
        try:
            _sysctl(family, interface, name).write_text(f"{value}\n")
        except PermissionError as error:
            log.error("%s", error)


def _sysctl(family: str, interface: str, name: str) -> Path:
    return Path(f"/proc/sys/net/{family}/conf") / interface / name


Address = IPv4Address | IPv6Address


def filter_text(
    table: str, macvlans: Mapping[str, str], refused: tuple[Address, ...] = (), present: bool = True
) -> str:
    """The nftables ruleset of virtual routers, in place of the one before.

    Group reports of ``macvlans`` (each with its parent) leave by the parent: from the virtual MAC
    they would move it about in the switches of a backup. ``refused`` are addresses that nobody may
    talk to (no_accept), but for neighbour discovery.
    """
    text = "".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in ("ip", "ip6"))
    if not present or not (macvlans or refused):
        return text
    return (
        text
        + _table("ip", table, macvlans, [a for a in refused if a.version == 4])
        + _table("ip6", table, macvlans, [a for a in refused if a.version == 6])
    )


def _table(family: str, table: str, macvlans: Mapping[str, str], refused: list[Address]) -> str:
    going: list[str] = []
    coming: list[str] = []
    if refused:
        if family == "ip6":
            discovery = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
            going.append(discovery)
            coming.append(discovery)
        names = ", ".join(map(str, refused))
        going.append(f"{family} saddr {{ {names} }} drop")
        coming.append(f"{family} daddr {{ {names} }} drop")
    reports = "ip protocol igmp" if family == "ip" else "icmpv6 type mld2-listener-report"
    for name, parent in macvlans.items():
        going.append(f'oifname "{name}" {reports} dup to {family} daddr device "{parent}" drop')
        if family == "ip6":
            going.append(f'oifname "{name}" icmpv6 type nd-router-solicit drop')
    hook = "type filter hook {} priority filter - 1; policy accept;"
    lines = [f"table {family} {table} {{", "chain out {", hook.format("output"), *going, "}"]
    if coming:
        lines += ["chain in {", hook.format("input"), *coming, "}"]
    return "\n".join([*lines, "}", ""])
