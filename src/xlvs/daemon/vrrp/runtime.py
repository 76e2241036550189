"""Runs the machines: packets, time and the node's interfaces in, commands carried out."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from xlvs.daemon.keepalived.scheduling import Hurry
from xlvs.daemon.vrrp.announcing import Announcement, Announcing
from xlvs.daemon.vrrp.carriers import Carriers
from xlvs.daemon.vrrp.devices import Devices
from xlvs.daemon.vrrp.notifying import Notifier
from xlvs.daemon.vrrp.places import Place, Site, refused_places, sites_of
from xlvs.daemon.vrrp.pools import Membership, Pools
from xlvs.daemon.vrrp.statics import Statics
from xlvs.daemon.vrrp.translate import group_of, settings_of
from xlvs.daemon.vrrp.watching import Watching
from xlvs.daemon.vrrp.wiring import identity, membership, primary, tracked_interfaces
from xlvs.keepalived.config import Config, Instance
from xlvs.network.ip_commands import Commands
from xlvs.network.links import Links
from xlvs.network.route_losses import RouteLosses, same
from xlvs.network.rtnetlink import Rtnetlink
from xlvs.network.virtual_addresses import Placed, VirtualAddresses
from xlvs.vrrp.commands import (
    AddAddresses,
    Announce,
    Become,
    Command,
    Event,
    Log,
    Notify,
    RemoveAddresses,
    Send,
    State,
)
from xlvs.vrrp.packet import Fault, Received
from xlvs.vrrp.router import Router
from xlvs.vrrp.settings import TrackKind

Address = IPv4Address | IPv6Address
_Value = TypeVar("_Value")

_RETRY = 1.0  # seconds until a socket that could not be opened is tried again
_TICK = 0.001  # seconds that the loop's timers round up to: nobody is late by that

log = logging.getLogger(__name__)


class Runtime:
    """The vrrp child's whole: made in a running loop, begun with ``start``."""

    def __init__(self, config: Config, emit: Callable[[dict[str, object]], None]) -> None:
        self.config = config
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._netlink = Rtnetlink()
        self._addresses = VirtualAddresses(self._netlink)
        self.links = Links(self._netlink)
        self._commands = Commands()
        self._devices = Devices(self.links, self._commands)
        self._statics = Statics(self.links, self._addresses, self._commands)
        self._losses = RouteLosses()
        self._announcing = Announcing(self.links)
        self._pools = Pools(self._received, self._refused)
        self._notifier = Notifier(config)
        self._watching = Watching(self.report)
        self._instances: dict[str, Instance] = {}
        self.sites: dict[str, Site] = {}
        self._there: dict[str, set[Place]] = {}  # a master's addresses that were seen in place
        self._waiting: dict[str, set[tuple[TrackKind, str]]] = {}  # instances before scripts' first results
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._vmac_timers: dict[str, asyncio.TimerHandle] = {}
        self._carriers = Carriers(self.links, self._look)
        self._use(config)
        self.router = self._make_router(config)

    # -- coming and going ---------------------------------------------------------------

    def start(self) -> None:
        """Begin; instances whose scripts have to be heard first wait for them."""
        self._devices.load(self.config, self.sites)
        self._statics.load(self.config)
        self._watch_node()
        self._look()
        self._loop.add_reader(self.links.fileno(), self._links_changed)
        self._loop.add_reader(self._losses.fileno(), self._routes_lost)
        self._loop.add_reader(self._pools.fileno(), self._readable)
        self._waiting = {name: self.router.to_hear(name) for name in self._instances}
        self._watching.load(self.config)
        for bfd in self.config.bfds:
            self.report(TrackKind.BFD, bfd.name, 0)
        self._begin()

    def _begin(self) -> None:
        """Start the machines that wait for nothing; a sync group waits for all its members."""
        held = {name for name, scripts in self._waiting.items() if scripts}
        for group in self.config.groups:
            if held & set(group.members):
                held |= set(group.members)
        ready = [name for name in self._waiting if name not in held]
        if ready:
            for name in ready:
                del self._waiting[name]
            self.run(self.router.start(self.now, ready))

    async def stop(self, keep_addresses: bool = False) -> None:
        """End all instances, and take away what they had."""
        await self._watching.close()
        await self._carriers.close()
        self._loop.remove_reader(self.links.fileno())
        self._loop.remove_reader(self._losses.fileno())
        self._loop.remove_reader(self._pools.fileno())
        for handle in (self._timer, self._retry, *self._vmac_timers.values()):
            if handle is not None:
                handle.cancel()
        commands = self.router.stop(self.now)
        if keep_addresses:
            commands = [one for one in commands if not isinstance(one, RemoveAddresses)]
        self.run(commands)
        if self._timer is not None:
            self._timer.cancel()
        self._devices.unload()
        if not keep_addresses:
            self._statics.unload()
        await self._notifier.close()
        await self._commands.finish()
        self._pools.close()
        self._announcing.close()
        self.links.close()
        self._losses.close()
        self._netlink.close()

    def reload(self, config: Config) -> None:
        """Go on with another configuration; instances that did not change notice nothing."""
        sites = dict(self.sites)
        # keepalived knows a virtual router by its id and interface: one that is renamed goes on.
        names = {identity(one): one.name for one in config.instances}
        renamed = {}
        for name, instance in list(self._instances.items()):
            after = names.get(identity(instance))
            if after is None:
                event = Event.DELETED if instance.notify.deleted_state else Event.FAULT
                self._waiting.pop(name, None)
                self.run(self.router.remove(name, self.now, event))
            elif after != name:
                renamed[name] = after
        for name, after in renamed.items():
            self.router.rename(name, f"{after} renamed")
        for name, after in renamed.items():
            self.router.rename(f"{after} renamed", after)
            sites[after] = self.sites[name]
            _rename(self._there, name, after)
            _rename(self._waiting, name, after)
            _rename(self._vmac_timers, name, after)
        masters = self._masters()
        self.config = config
        self._use(config)
        self._notifier.load(config)
        self._devices.load(config, self.sites)
        self._statics.load(config)
        self._watch_node()
        for name in masters:
            self._move(name, sites[name], self.sites[name])
        settings = [settings_of(one, config) for one in config.instances]
        groups = [group_of(one, config) for one in config.groups]
        self.run(self.router.reload(settings, groups, self.now))
        self._look()
        self._watching.load(config)
        self._waiting |= {name: self.router.to_hear(name) for name in self._instances if self._is_new(name)}
        self._begin()
        if config.globals.fifo_write_states_on_reload:
            self._notifier.tell_all(self.router)

    def _is_new(self, name: str) -> bool:
        return name not in self._waiting and self.router.machines[name].state is State.INIT

    def _use(self, config: Config) -> None:
        self._instances = {one.name: one for one in config.instances}
        self.sites = sites_of(config)
        self._hurry = Hurry(config, "vrrp")

    def _make_router(self, config: Config) -> Router:
        return Router(
            [settings_of(one, config) for one in config.instances],
            [group_of(one, config) for one in config.groups],
        )

    # -- time and packets ---------------------------------------------------------------

    @property
    def now(self) -> float:
        """The clock of machines: one that nobody sets."""
        return self._loop.time()

    def _arm(self) -> None:
        deadline = self.router.deadline
        if deadline == self._armed and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._armed is not None:
            self._hurry.late(self.now - self._armed - _TICK)
        try:
            # What has come is heard before time is up: a process that was stopped must not take over.
            self._pools.read()
            self.run(self.router.tick(self.now))
        finally:
            self._arm()

    def _readable(self) -> None:
        try:
            self._pools.read()
        finally:
            self._arm()  # once for all that came

    def _received(self, name: str, packet: Received) -> None:
        self._carry_out(self.router.receive(name, packet, self.now))

    def _refused(self, name: str, fault: Fault) -> None:
        self.router.machines[name].counters.refused[fault] += 1

    def report(self, kind: TrackKind, name: str, value: int) -> None:
        """Something tracked is up or down, or has this number."""
        commands = self.router.report(kind, name, value, self.now)
        for waiting in self._waiting.values():
            waiting.discard((kind, name))
        self.run(commands)
        self._begin()

    # -- the node's interfaces ----------------------------------------------------------

    def _links_changed(self) -> None:
        self._see(self.links.read())

    def _see(self, changed: Collection[str]) -> None:
        """These interfaces are not what they were."""
        if changed:
            self._carriers.tell(changed)
            self._devices.restore(changed)
            self._statics.restore(changed)
            self._look()
            self._miss()

    def _look(self) -> None:
        """Tell the machines of interfaces and addresses, and open the sockets that they need."""
        local = frozenset(address for link in self.links for address in link.addresses)
        virtual = {place.address.address.ip for site in self.sites.values() for place in site.addresses}
        members: dict[str, Membership] = {}
        commands: list[Command] = []
        others = self.config.globals.others
        for name, instance in self._instances.items():
            if name not in self.router.machines:
                continue
            site = self.sites[name]
            wire = self.links.get(site.wire)
            # An ipvlan has its parent's MAC, so its adverts need an address of its own.
            speaker = self.links.get(site.device if instance.ipvlan else instance.interface)
            source = instance.source or primary(speaker, instance, virtual)
            self.router.set_addresses(name, source, local | ({source} if source else set()))
            if wire is not None or not instance.interface:
                settings = self.router.machines[name].settings
                members[name] = membership(settings, instance, wire, source, others)
        self._pools.set_members(members, "log_unknown_vrids" in others)
        for name in self._instances:
            if name in self.router.machines:
                commands += self.router.set_faults(name, frozenset(self._faults(name, local)), self.now)
        for watched in tracked_interfaces(self.config):
            commands += self.router.report(TrackKind.INTERFACE, watched, int(self._up(watched)), self.now)
        self._look_again()
        self.run(commands)

    def _faults(self, name: str, local: Collection[Address]) -> Iterator[str]:
        """What of this node keeps an instance from serving."""
        instance, site, machine = self._instances[name], self.sites[name], self.router.machines[name]
        down = {device for device in site.needs if not self._up(device)}
        for device in sorted(down):
            yield f"interface {device} down"
        if machine.source is None and not down & {instance.interface, site.device}:
            yield f"no IPv{machine.settings.family} address for interface"
        if instance.unicast and not instance.peers:
            yield "unicast without peers"
        # Nobody can be heard at an address that is not there. Once it was, only track_src_ip asks on.
        if instance.source and (
            (instance.track_source and instance.source not in local)
            or (instance.unicast and self._pools.missing(name))
        ):
            yield "src address not configured"

    def _look_again(self) -> None:
        """Where a delay is to end, or a socket could not be opened."""
        again = self._carriers.deadline()
        if self._pools.missing():
            again = min(again or math.inf, self.now + _RETRY)
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None if again is None else self._loop.call_at(again, self._look)

    def _up(self, name: str) -> bool:
        return self._carriers.up(name, self.now)

    def _miss(self) -> None:
        """A master whose address somebody else took away gives way, and begins anew."""
        for name in self._masters():
            there = self._in_place(name)
            gone = self._there.get(name, set()) - there
            self._there[name] = there
            if any(not place.address.no_track for place in gone):
                for place in gone:
                    address = place.address.address.ip
                    log.info("Netlink reflector reports IP %s removed from %s", address, place.device)
                self.run(self.router.addresses_lost(name, self.now))

    def _watch_node(self) -> None:
        """Watch the interfaces that somebody needs; routes and rules, if any means anything to anybody."""
        self._losses.watch(self._statics.watched or any(site.losses for site in self.sites.values()))
        self.links.read()
        needed = tracked_interfaces(self.config).union(*(site.needs for site in self.sites.values()))
        made = {vmac.name for site in self.sites.values() for vmac in site.vmacs}
        self._carriers.load(self.config, needed, made)

    def _routes_lost(self) -> None:
        """A master whose route or rule somebody else took away begins anew, too; a static one comes back."""
        self._links_changed()  # with an interface that goes its routes go: that is a fault
        links = {link.index: link.name for link in self.links}
        for lost in self._losses.read(links, self._commands.processes):
            self._statics.lost(lost)
            for name in self._masters():
                if any(same(wanted, lost) for wanted in self.sites[name].losses):
                    log.info("(%s) %s has been removed by somebody", name, lost)
                    self.run(self.router.addresses_lost(name, self.now))

    def _in_place(self, name: str) -> set[Place]:
        there = set()
        for place in self.sites[name].addresses:
            link = self.links.get(place.device)
            if link is not None and place.address.address.ip in link.addresses:
                there.add(place)
        return there

    def _masters(self) -> set[str]:
        return {name for name, one in self.router.machines.items() if one.state is State.MASTER}

    # -- commands -----------------------------------------------------------------------

    def run(self, commands: Iterable[Command]) -> None:
        """Carry out commands in order, and wait for the next deadline."""
        try:
            self._carry_out(commands)
        finally:
            self._arm()  # whatever befell: the next deadline must come

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Send(name, advert, old_checksum):
                    machine = self.router.machines.get(name)
                    self._pools.send(name, advert, machine.source if machine else None, old_checksum)
                case Log(text, detail):
                    log.log(logging.DEBUG if detail else logging.INFO, "%s", text)
                case AddAddresses(name):
                    self._add(name)
                case RemoveAddresses(name):
                    self._remove(name)
                case Announce(name, repeat):
                    self._announce(name, repeat)
                case Notify(name, event, priority, group):
                    self._notifier.notify(name, event, priority, group)
                case Become(name, state, before):
                    self._became(name, state, before)

    def _became(self, name: str, state: State, before: State) -> None:
        timer = self._vmac_timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        instance = self._instances.get(name)
        if state is State.MASTER and instance is not None and instance.garp.extra_interval:
            self._vmac_timers[name] = self._loop.call_later(instance.garp.extra_interval, self._extra, name)
        self._emit({"event": "vrrp", "instance": name, "state": state.value, "before": before.value})

    def _extra(self, name: str) -> None:
        """Announce anew where no adverts go: switches would forget a virtual MAC that never speaks."""
        garp, site = self._instances[name].garp, self.sites[name]
        self._vmac_timers[name] = self._loop.call_later(garp.extra_interval or 1.0, self._extra, name)
        virtual = {vmac.name for vmac in site.vmacs}
        places = [
            place
            for place in site.addresses
            if place.device != site.wire and (garp.extra_all or place.device in virtual)
        ]
        self._announcing.announce(self._announcements(name, places), 1)

    def _add(self, name: str) -> None:
        site, instance = self.sites[name], self._instances[name]
        _say(instance.addresses, "(%s) setting VIPs.", name)
        _say(instance.excluded, "(%s) setting E-VIPs.", name)
        self._addresses.add(self._placed(site.addresses))
        _say(site.routes, "(%s) setting Virtual Routes", name)
        _say(site.rules, "(%s) setting Virtual Rules", name)
        self._commands.run([line for line, _ in (*site.routes, *site.rules)])
        self._devices.refuse(name, refused_places(instance, site))
        # That they have its addresses now is no news, but whatever else came with that would be lost.
        changed = self.links.read() - {place.device for place in site.addresses}
        changed |= {device for device in site.needs if not self._up(device)}
        if changed:
            self._loop.call_soon(self._see, changed)
        self._there[name] = self._in_place(name)

    def _remove(self, name: str) -> None:
        site, instance = self.sites[name], self._instances[name]
        self._there.pop(name, None)
        self._announcing.forget(name)
        _say(site.rules, "(%s) removing Virtual Rules", name)
        _say(site.routes, "(%s) removing Virtual Routes", name)
        _say(instance.addresses, "(%s) removing VIPs.", name)
        _say(instance.excluded, "(%s) removing E-VIPs.", name)
        self._take_away(name, site)

    def _take_away(self, name: str, site: Site) -> None:
        self._commands.run([line for _, line in reversed((*site.routes, *site.rules))])
        self._addresses.remove(self._placed(site.addresses))
        self._devices.refuse(name, ())

    def _move(self, name: str, before: Site, after: Site) -> None:
        """A master's addresses, routes and rules become those of another configuration."""
        kept = set(after.addresses)
        self._addresses.remove(self._placed([one for one in before.addresses if one not in kept]))
        had = set(before.addresses)
        new = [one for one in after.addresses if one not in had]
        # All of them: with a primary address its secondary ones may have gone.
        self._addresses.add(self._placed(after.addresses))
        had_lines, new_lines = {*before.routes, *before.rules}, {*after.routes, *after.rules}
        self._commands.run(
            [line for pair in before.rules + before.routes if pair not in new_lines for line in pair[1:]]
        )
        self._commands.run([pair[0] for pair in after.routes + after.rules if pair not in had_lines])
        self._devices.refuse(name, refused_places(self._instances[name], after))
        self.links.read()
        self._there[name] = self._in_place(name)
        if new:  # all are announced then, as keepalived does
            self._announce(name, self._instances[name].garp.master_repeat)

    def _placed(self, places: Iterable[Place]) -> list[Placed]:
        return [placed for place in places if (placed := place.placed(self.links)) is not None]

    def _announce(self, name: str, repeat: int) -> None:
        self._announcing.announce(self._announcements(name, self.sites[name].addresses), repeat)

    def _announcements(self, name: str, places: Iterable[Place]) -> list[Announcement]:
        garp = self._instances[name].garp
        announcements = []
        for place in places:
            address, lane, gaps = place.address.address.ip, place.device, (garp.interval, garp.na_interval)
            for number, group in enumerate(self.config.garp_groups):
                if place.device in group.interfaces:
                    lane, gaps = f"group {number}", (group.garp_interval, group.na_interval)
            gap = gaps[0] if address.version == 4 else gaps[1]
            announcements.append(Announcement(name, place.device, address, gap, lane))
        return announcements


def _rename(by_name: dict[str, _Value], before: str, after: str) -> None:
    if before in by_name:
        by_name[after] = by_name.pop(before)


def _say(there: object, text: str, name: str) -> None:
    if there:
        log.debug(text, name)
