"""Static addresses, routes and rules: put in place, and put back when somebody takes them away."""

from __future__ import annotations

import logging
from collections.abc import Collection

from xlvs.daemon.vrrp.places import Place, devices_of_route, route_lines, rule_lines, static_places
from xlvs.keepalived.config import Config, Route
from xlvs.network.ip_commands import Commands
from xlvs.network.links import Links
from xlvs.network.route_losses import Lost, policy_of, same, way_of
from xlvs.network.virtual_addresses import VirtualAddresses

log = logging.getLogger(__name__)


class Statics:
    """They are no instance's, and stay while the daemon runs.

    As with keepalived those marked no_track are put in place once, and then left alone.
    """

    def __init__(self, links: Links, addresses: VirtualAddresses, commands: Commands) -> None:
        self._links, self._addresses, self._commands = links, addresses, commands
        self._places: tuple[Place, ...] = ()
        self._lines: tuple[tuple[str, str], ...] = ()
        self._routes: tuple[Route, ...] = ()
        self._tracked: tuple[tuple[Lost, str], ...] = ()
        self._up: set[str] = set()

    def load(self, config: Config) -> None:
        """Put in place what is new, take away what is not wanted any more."""
        places = static_places(config)
        self._links.read()
        self._remove([one for one in self._places if one not in places])
        self._add([one for one in places if one not in self._places])
        routes, rules = route_lines(config.static_routes), rule_lines(config.static_rules)
        self._commands.run([line for pair in self._lines if pair not in routes + rules for line in pair[1:]])
        self._commands.run([pair[0] for pair in routes + rules if pair not in self._lines])
        self._places, self._lines, self._routes = places, routes + rules, config.static_routes
        ways = [None if one.no_track else way_of(one.words) for one in config.static_routes]
        policies = [None if one.no_track else policy_of(one.words) for one in config.static_rules]
        self._tracked = tuple(
            (lost, pair[0])
            for lost, pair in zip((*ways, *policies), self._lines, strict=True)
            if lost is not None
        )
        self._up = {link.name for link in self._links if link.up}

    @property
    def watched(self) -> bool:
        """Whether the loss of a route or a rule would mean anything here."""
        return bool(self._tracked)

    def unload(self) -> None:
        """Take them all away."""
        self._remove(self._places)
        self._commands.run([line for _, line in reversed(self._lines)])
        self._places, self._lines, self._routes, self._tracked = (), (), (), ()

    def restore(self, changed: Collection[str]) -> None:
        """These interfaces are not what they were: what is missing of them comes back, once they are up."""
        up = {link.name for link in self._links if link.up}
        risen, self._up = up - self._up, up
        missing = [one for one in self._places if one.device in up & {*changed} and self._gone(one)]
        for place in missing:
            log.info("Restoring deleted static address %s dev %s", place.address.address, place.device)
        self._add(missing)
        # With an interface its routes went, and the kernel says nothing of that.
        lines = [
            add
            for route, (add, _) in zip(self._routes, self._lines, strict=False)
            if not route.no_track and devices_of_route(route) & risen
        ]
        self._commands.run(lines)

    def _gone(self, place: Place) -> bool:
        link = self._links.get(place.device)
        there = link is not None and place.address.address.ip in link.addresses
        return not there and not place.address.no_track

    def lost(self, lost: Lost) -> None:
        """A route or a rule went: if it is one of these, it comes back."""
        for wanted, line in self._tracked:
            if same(wanted, lost):
                log.info("Restoring deleted static %s", line)
                self._commands.run([line])

    def _add(self, places: Collection[Place]) -> None:
        self._addresses.add([one for place in places if (one := place.placed(self._links)) is not None])

    def _remove(self, places: Collection[Place]) -> None:
        self._addresses.remove([one for place in places if (one := place.placed(self._links)) is not None])
