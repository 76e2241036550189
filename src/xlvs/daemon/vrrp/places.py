"""Where the addresses, routes and rules of an instance go: interfaces by name, resolved when needed."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from xlvs.keepalived.config import Config, Instance, Route, Rule, VirtualAddress
from xlvs.network.ip_commands import route, rule
from xlvs.network.links import Links
from xlvs.network.route_losses import Lost, policy_of, way_of
from xlvs.network.virtual_addresses import Placed
from xlvs.network.virtual_mac import VirtualMac, mac_of
from xlvs.vrrp.packet import OWNER

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
            flags=one.flags,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """One instance on this node: its devices, and lines of ``ip`` for its routes and rules.

    ``device`` is where its addresses go by default, ``wire`` where adverts come and go: both are
    the virtual MAC's interface, if there is one, but for ``vmac_xmit_base``. ``vmacs`` are all
    interfaces to be made: the instance's own, and those of addresses on other interfaces. ``needs``
    are the interfaces without which it cannot serve: its own, and those of what it puts in place.
    ``losses`` are the routes and rules whose loss makes a master begin anew.
    """

    device: str
    wire: str
    vmacs: tuple[VirtualMac, ...]
    addresses: tuple[Place, ...]
    routes: tuple[tuple[str, str], ...]  # each the line that adds and the one that removes
    rules: tuple[tuple[str, str], ...]
    needs: tuple[str, ...] = ()
    losses: tuple[Lost, ...] = ()


def sites_of(config: Config) -> dict[str, Site]:
    """A site for each instance by its name."""
    taken = {instance.vmac_name for instance in config.instances if instance.vmac_name}
    return {instance.name: _site(instance, config, taken) for instance in config.instances}


def _site(instance: Instance, config: Config, taken: set[str]) -> Site:
    settings = config.globals
    made: dict[str, VirtualMac] = {}  # by the interface that it is on
    device = instance.interface
    if instance.vmac or instance.ipvlan:
        made[device] = _own_vmac(instance, settings.vmac_prefix, taken)
        device = made[device].name
    prefix = settings.vmac_addr_prefix or settings.vmac_prefix
    places = [
        Place(one, _device_of(one, instance, made, prefix, taken, settings.default_interface))
        for one in (*instance.addresses, *instance.excluded)
    ]
    return Site(
        device=device,
        wire=instance.interface if instance.vmac_xmit_base else device,
        vmacs=tuple(made.values()),
        addresses=tuple(places),
        routes=route_lines(instance.routes),
        rules=rule_lines(instance.rules),
        needs=_needs(instance, device, places, config),
        losses=(
            *(way_of(one.words) for one in instance.routes if not one.no_track),
            *(policy_of(one.words) for one in instance.rules if not one.no_track),
        ),
    )


def _needs(instance: Instance, device: str, places: Iterable[Place], config: Config) -> tuple[str, ...]:
    own = {instance.interface, device}
    needed = {place.device for place in places if not place.address.no_track} - own
    needed |= depends_on(instance, config)
    if not instance.dont_track_primary:
        needed |= own
    return tuple(sorted(name for name in needed if name))


def depends_on(instance: Instance, config: Config) -> frozenset[str]:
    """Interfaces that an instance needs for what it puts on them, and for the statics of its track_groups.

    Found with keepalived 2.2.7: its own interface counts by a route, rule or static even where
    dont_track_primary is set, but not by an address.
    """
    mine = {name for name, members in config.static_groups.items() if instance.name in members}
    elsewhere = instance.interface or config.globals.default_interface
    addresses = [one for one in (*instance.addresses, *instance.excluded) if one.device != instance.interface]
    found = {one.device or elsewhere for one in addresses if not one.no_track} - {instance.interface}
    found |= {
        place.device
        for place in static_places(config)
        if place.address.track_group in mine and not place.address.no_track
    }
    for way in (*instance.routes, *(one for one in config.static_routes if one.track_group in mine)):
        found |= set() if way.no_track else devices_of_route(way)
    for policy in (*instance.rules, *(one for one in config.static_rules if one.track_group in mine)):
        found |= set() if policy.no_track else devices_of_rule(policy)
    return frozenset(found)


def devices_of_route(one: Route) -> set[str]:
    """The interface of a route, where it has one of its own; those of next hops are not tracked."""
    own = one.words[: one.words.index("nexthop")] if "nexthop" in one.words else one.words
    return {after for word, after in pairwise(own) if word == "dev"}


def devices_of_rule(one: Rule) -> set[str]:
    """The interfaces that a rule is about."""
    return {after for word, after in pairwise(one.words) if word in ("iif", "oif")}


def refused_places(instance: Instance, site: Site) -> tuple[Place, ...]:
    """The addresses that nobody may talk to while it is master: all of one without accept mode."""
    return () if instance.accept or instance.priority == OWNER else site.addresses


def static_places(config: Config) -> tuple[Place, ...]:
    """Where static addresses go."""
    default = config.globals.default_interface
    return tuple(Place(one, one.device or default) for one in config.static_addresses)


def route_lines(routes: Iterable[Route]) -> tuple[tuple[str, str], ...]:
    """For each route the ``ip`` line that adds it and the one that removes it."""
    return tuple((route(one.words), route(one.words, delete=True)) for one in routes)


def rule_lines(rules: Iterable[Rule]) -> tuple[tuple[str, str], ...]:
    """The same for rules."""
    return tuple((rule(one.words), rule(one.words, delete=True)) for one in rules)


def _own_vmac(instance: Instance, prefix: str, taken: set[str]) -> VirtualMac:
    name = instance.vmac_name or _name(prefix, instance, taken)
    family = _family(instance)
    if instance.ipvlan:
        return VirtualMac(
            name, instance.interface, None, family, instance.ipvlan_mode, instance.ipvlan_address
        )
    mac = instance.vmac_addr or mac_of(instance.router_id, family)
    return VirtualMac(name, instance.interface, mac, family)


def _device_of(
    one: VirtualAddress,
    instance: Instance,
    made: dict[str, VirtualMac],
    prefix: str,
    taken: set[str],
    default: str,
) -> str:
    """The interface of an address; a virtual MAC that it wants, and is not made yet, is added."""
    base = one.device or instance.interface or default
    own = base == instance.interface and (instance.vmac or instance.ipvlan)
    # An IPv4 router's virtual MAC is nothing for IPv6 (RFC 5798 7.3 has another for that).
    if own and one.device is None and not (one.address.version == 6 and _family(instance) == 4):
        return made[base].name
    wanted = one.use_vmac or (instance.vmac_for_addresses and base != instance.interface)
    if not wanted or own:
        return base
    if base not in made:
        name = _name(prefix, instance, taken)
        family = _family(instance)
        made[base] = VirtualMac(name, base, mac_of(instance.router_id, family), family)
    return made[base].name


def _name(prefix: str, instance: Instance, taken: set[str]) -> str:
    """keepalived's names: vrrp.51, for IPv6 vrrp6.51 where that is taken, then vrrp1.51 and so on."""
    family = ("6",) if _family(instance) == 6 else ()
    infixes = ("", *family, *map(str, range(1, 256)))
    names = (f"{prefix}{infix}.{instance.router_id}" for infix in infixes)
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _family(instance: Instance) -> int:
    return 6 if instance.family == socket.AF_INET6 else 4


def promoted(instances: Iterable[Instance]) -> set[str]:
    """Interfaces whose promote_secondaries is to be set."""
    return {instance.interface for instance in instances if instance.promote_secondaries}
