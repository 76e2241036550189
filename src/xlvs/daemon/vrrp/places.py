"""Where the addresses, routes and rules of an instance go: interfaces by name, resolved when needed."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from xlvs.keepalived.config import Config, Instance, Route, Rule, VirtualAddress
from xlvs.network.ip_commands import route, rule
from xlvs.network.links import Links
from xlvs.network.virtual_addresses import Placed
from xlvs.network.virtual_mac import VirtualMac, mac_of

_RULE_PREFERENCE = 16384  # keepalived's first, where a rule names none; the next one's is one less

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the name of the interface that it goes to."""

    address: VirtualAddress
    device: str

    def placed(self, links: Links) -> Placed | None:
        """It with the interface's number; None where there is no such interface now."""
        link = links.get(self.device)
        if link is None:
            return None
        one = self.address
        return Placed(
            address=one.address,
            ifindex=link.index,
            scope=one.scope,
            label=one.label,
            broadcast=one.broadcast,
            peer=one.peer,
            home=one.home,
            no_prefix_route=one.no_prefix_route,
            preferred_lifetime=one.preferred_lifetime,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """One instance on this node: its devices, and lines of ``ip`` for its routes and rules.

    ``device`` is where its addresses go by default, ``wire`` where adverts come and go: both are
    the virtual MAC's interface, if there is one, but for ``vmac_xmit_base``.
    """

    device: str
    wire: str
    vmac: VirtualMac | None
    addresses: tuple[Place, ...]
    routes: tuple[tuple[str, str], ...]  # each the line that adds and the one that removes
    rules: tuple[tuple[str, str], ...]


def sites_of(config: Config, prefix: str = "vrrp") -> dict[str, Site]:
    """A site for each instance by its name; ``prefix`` begins the names of virtual MACs' interfaces."""
    preference = _Preferences()
    preference.lines(config.static_rules)  # they are numbered first
    taken = {instance.vmac_name for instance in config.instances if instance.vmac_name}
    sites = {}
    for instance in config.instances:
        vmac = _vmac(instance, prefix, taken)
        if vmac is not None:
            taken.add(vmac.name)
        device = vmac.name if vmac else instance.interface
        sites[instance.name] = Site(
            device=device,
            wire=instance.interface if instance.vmac_xmit_base else device,
            vmac=vmac,
            addresses=tuple(
                Place(one, _device_of(one, instance, device))
                for one in (*instance.addresses, *instance.excluded)
            ),
            routes=route_lines(instance.routes),
            rules=preference.lines(instance.rules),
        )
    return sites


def static_places(config: Config) -> tuple[Place, ...]:
    """Where static addresses go (keepalived's default is the first interface; ours to name none)."""
    return tuple(Place(one, one.device or "") for one in config.static_addresses)


def route_lines(routes: Iterable[Route]) -> tuple[tuple[str, str], ...]:
    """For each route the ``ip`` line that adds it and the one that removes it."""
    return tuple((route(one.words), route(one.words, delete=True)) for one in routes)


def static_rule_lines(rules: Sequence[Rule]) -> tuple[tuple[str, str], ...]:
    """The same for static rules, which are numbered before all others."""
    return _Preferences().lines(rules)


class _Preferences:
    """Numbers for rules that have none."""

    def __init__(self) -> None:
        self._next = _RULE_PREFERENCE

    def lines(self, rules: Iterable[Rule]) -> tuple[tuple[str, str], ...]:
        done = []
        for one in rules:
            done.append((rule(one.words, self._next), rule(one.words, self._next, delete=True)))
            self._next -= 1
        return tuple(done)


def _vmac(instance: Instance, prefix: str, taken: set[str]) -> VirtualMac | None:
    if not instance.vmac and not instance.ipvlan:
        return None
    family = 6 if instance.family == socket.AF_INET6 else 4
    name = instance.vmac_name or f"{prefix}.{instance.router_id}"
    if not instance.vmac_name and name in taken:
        name = f"{prefix}{family}.{instance.router_id}"
    mac = None if instance.ipvlan else instance.vmac_addr or mac_of(instance.router_id, family)
    return VirtualMac(name, instance.interface, mac, family)


def _device_of(one: VirtualAddress, instance: Instance, device: str) -> str:
    if one.device:
        return one.device
    # An IPv4 router's virtual MAC is nothing for IPv6 (RFC 5798 7.3 has another for that).
    foreign = one.address.version == 6 and instance.family != socket.AF_INET6
    return instance.interface if foreign else device


def promoted(instances: Iterable[Instance]) -> set[str]:
    """Interfaces whose promote_secondaries is to be set."""
    return {instance.interface for instance in instances if instance.promote_secondaries}
