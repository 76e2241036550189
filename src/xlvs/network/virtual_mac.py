"""Virtual MACs: a macvlan (or ipvlan) on the interface, with RFC 5798's address, and what goes with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
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

    ``address`` is what an ipvlan sends from; over IPv6 it may have just the link-local one that the kernel
    gives it.
    """

    name: str
    parent: str
    mac: bytes | None
    family: int
    mode: str = "private"
    address: IPv4Interface | IPv6Interface | None = None


def make(
    device: VirtualMac, parent_addresses: Iterable[IPv4Address | IPv6Address] = (), vrf: str = ""
) -> None:
    """Make the interface anew, in its parent's ``vrf`` if it has one, and switch it on.

    A virtual MAC's IPv6 adverts leave from the parent's link-local address.
    """
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
    if device.mac is not None:
        set_sysctl("ipv6", name, "addr_gen_mode", 1)  # no address of its own but those of the router
    set_sysctl("ipv6", name, "accept_ra", 0)
    if device.family == 4:
        set_sysctl("ipv6", name, "disable_ipv6", 1)
    if vrf:
        ip_now([f"link set {name} master {vrf}"])
    ip_now([f"link set {name} up"])
    own = device.address
    if device.mac is not None and device.family == 6:
        own = _link_local(parent_addresses)
    if own is not None:
        # IPv6 sends by an interface only what is from an address on it.
        ip_now([f"addr add {own} dev {name}{' nodad preferred_lft 0' if own.version == 6 else ''}"])


def _link_local(addresses: Iterable[IPv4Address | IPv6Address]) -> IPv6Interface | None:
    found = (one for one in addresses if one.version == 6 and one.is_link_local)
    return next((IPv6Interface(f"{one}/64") for one in found), None)


def remove(name: str) -> None:
    """Take the interface away."""
    ip_now([f"link del {name}"])


def get_sysctl(family: str, interface: str, name: str) -> str | None:
    """An interface's sysctl, or with "" the family's own; None where there is none."""
    try:
        return _sysctl(family, interface, name).read_text().strip()
    except OSError:
        return None


def set_sysctl(family: str, interface: str, name: str, value: int | str) -> None:
    """Set an interface's sysctl, or with "" the family's own; one that the kernel has not is left out."""
    with suppress(FileNotFoundError):
        try:
            _sysctl(family, interface, name).write_text(f"{value}\n")
        except PermissionError as error:
            log.error("%s", error)


def _sysctl(family: str, interface: str, name: str) -> Path:
    whole = Path(f"/proc/sys/net/{family}")
    return whole / "conf" / interface / name if interface else whole / name


Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Filter:
    """What the nftables ruleset of virtual routers is made of.

    ``macvlans`` are virtual MACs' interfaces, each with its parent. ``refused`` are addresses that
    nobody may talk to (no_accept), each with its interface.
    """

    table: str = "keepalived"  # keepalived's own name for it: what one left that was killed is cleared, too
    priority: int = -1
    counters: bool = False
    macvlans: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[Address, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return bool(self.macvlans or self.refused)

    def text(self) -> str:
        """The ruleset, in place of the one before."""
        families = ("ip", "ip6")
        tables = [f"table {family} {self.table}\ndelete table {family} {self.table}" for family in families]
        return "\n".join([*tables, *(line for family in families for line in self._table(family)), ""])

    def _table(self, family: str) -> list[str]:
        drop = "counter drop" if self.counters else "drop"
        refused = [(a, device) for a, device in self.refused if a.version == (4 if family == "ip" else 6)]
        # A link-local address is of one interface: the same one elsewhere is another.
        near = [(address, device) for address, device in refused if address.is_link_local and family == "ip6"]
        far = ", ".join(str(address) for address, device in refused if (address, device) not in near)
        chains: dict[str, list[str]] = {"output": [], "input": []}
        for hook, end, side in (("output", "saddr", "oifname"), ("input", "daddr", "iifname")):
            if not refused:
                continue
            if family == "ip6":
                chains[hook].append("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")
            chains[hook] += [f'{family} {end} {one} {side} "{device}" {drop}' for one, device in near]
            chains[hook] += [f"{family} {end} {{ {far} }} {drop}"] if far else []
        # From the virtual MAC group reports would move it about in the switches of a backup: they leave
        # by the parent.
        reports = "ip protocol igmp" if family == "ip" else "icmpv6 type mld2-listener-report"
        for name, parent in self.macvlans:
            dup = f'dup to {family} daddr device "{parent}"'
            chains["output"].append(f'{reports} oifname "{name}" {dup} {drop}')
            if family == "ip6":
                chains["output"].append(f'icmpv6 type nd-router-solicit oifname "{name}" {drop}')
        if not any(chains.values()):
            return []
        lines = [f"table {family} {self.table} {{"]
        for hook, rules in chains.items():
            if rules:
                head = f"type filter hook {hook} priority {self.priority}; policy accept;"
                lines += [f"chain {hook.removesuffix('put')} {{", head, *rules, "}"]
        return [*lines, "}"]
