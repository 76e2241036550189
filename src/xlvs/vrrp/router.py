"""All virtual routers of a node, with what binds them together: the whole that a runtime drives.

Instances are named; commands say whose they are. As with a machine, every method takes the time and
returns what is to be done, in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from xlvs.vrrp.commands import Become, Command, Event, Log, Notify, State
from xlvs.vrrp.deadlines import Deadlines
from xlvs.vrrp.machine import Machine
from xlvs.vrrp.packet import Address, Received
from xlvs.vrrp.settings import GroupSettings, Settings, Track, TrackKind
from xlvs.vrrp.tracking import effective, verdict


class Group:
    """Machines that are all master, or none is. Its priority is told as 0, as keepalived does."""

    def __init__(self, settings: GroupSettings, members: list[Machine]) -> None:
        self.settings = settings
        self.members = members
        self.state = State.INIT

    def agrees(self, asking: Machine) -> bool:
        """All others are master, or would be but for the group."""
        others = (member for member in self.members if member is not asking)
        return all(member.state is State.MASTER or member.wants_master for member in others)


class Router:
    """The machines by name, in the configuration's order; what is tracked, by kind and name.

    Tell it what is up or down (``report``) and where packets come from (``set_addresses``) before
    ``start``: what was not reported counts as neither.
    """

    def __init__(self, instances: Iterable[Settings], groups: Iterable[GroupSettings] = ()) -> None:
        self.machines: dict[str, Machine] = {}
        self.groups: dict[str, Group] = {}
        self._group_of: dict[str, Group] = {}
        self._values: dict[tuple[TrackKind, str], int] = {}
        self._faults: dict[str, frozenset[str]] = {}
        self._removed: set[str] = set()
        self._deadlines = Deadlines()
        self._place: dict[str, int] = {}  # in the configuration's order
        self._set(instances, groups)

    def _set(self, instances: Iterable[Settings], groups: Iterable[GroupSettings]) -> None:
        """The machines and groups of these settings; those that there are by name go on."""
        kept = {name: machine for name, machine in self.machines.items() if name not in self._removed}
        self.machines = {
            settings.name: kept.get(settings.name) or Machine(settings) for settings in instances
        }
        self._removed = set()
        known = self.groups
        self.groups = {
            group.name: Group(group, [self.machines[member] for member in group.members]) for group in groups
        }
        for name, group in self.groups.items():
            if name in known:
                group.state = known[name].state
        self._group_of = {name: group for group in self.groups.values() for name in group.settings.members}
        self._faults = {name: self._faults.get(name, frozenset()) for name in self.machines}
        self._place = {name: place for place, name in enumerate(self.machines)}
        self._deadlines = Deadlines()
        for name, machine in self.machines.items():
            self._deadlines.expect(name, machine.deadline)

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is to be called next, be there something to do or not; None: never, as it stands."""
        return self._deadlines.first

    def _schedule(self, machine: Machine) -> None:
        self._deadlines.expect(machine.settings.name, machine.deadline)

    # -- coming, going, time, packets ---------------------------------------------------

    def start(self, now: float, names: Collection[str] | None = None) -> list[Command]:
        """Instances begin: all, or those named. A group's members have to begin together."""
        starting = {
            name: machine for name, machine in self.machines.items() if names is None or name in names
        }
        commands: list[Command] = []
        for name, machine in starting.items():
            machine.faults = self._all_faults(name)
            commands += machine.set_priority(self._priority(machine), now)
        for group in self.groups.values():
            if group.state is State.INIT and starting.keys() & {*group.settings.members}:
                down = any(member.faults for member in group.members)
                commands += self._enter(group, State.FAULT if down else State.BACKUP)
        for machine in starting.values():
            commands += self._together(machine, machine.start(now), now)
        return commands

    def remove(self, name: str, now: float, event: Event = Event.FAULT) -> list[Command]:
        """The configuration has it no more: it gives way, and ``event`` is what is told of it.

        ``reload`` has to follow.
        """
        machine = self.machines[name]
        self._removed.add(name)
        commands = [one for one in machine.stop(now) if not isinstance(one, Notify)]
        return [*commands, Notify(name, event, machine.priority)]

    def rename(self, before: str, after: str) -> None:
        """The same virtual router has another name from the ``reload`` on that has to follow."""
        self.machines[after] = self.machines.pop(before)
        self._faults[after] = self._faults.pop(before)

    def reload(
        self, instances: Iterable[Settings], groups: Iterable[GroupSettings], now: float
    ) -> list[Command]:
        """Goes on with other settings: machines of the same name keep their state and their timers.

        New ones are to be told of addresses and faults, and begun with ``start``.
        """
        instances = list(instances)
        self._set(instances, groups)
        commands: list[Command] = []
        for settings in instances:
            machine = self.machines[settings.name]
            if machine.settings != settings:
                machine.reload(settings, now)
        for machine in self.machines.values():
            if machine.state is not State.INIT:
                commands += self._refresh([machine], now)
        return commands

    def stop(self, now: float) -> list[Command]:
        """All instances end."""
        commands = [command for machine in self.machines.values() for command in machine.stop(now)]
        for group in self.groups.values():
            commands += self._enter(group, State.STOP)
        return commands

    def tick(self, now: float) -> list[Command]:
        """What is due at ``now``."""
        commands: list[Command] = []
        for name in sorted(self._deadlines.take(now), key=self._place.__getitem__):
            machine = self.machines[name]
            if machine.deadline is not None and machine.deadline <= now:
                group = self._group_of.get(name)
                allowed = group is None or group.agrees(machine)
                commands += self._together(machine, machine.tick(now, allowed), now)
            else:
                self._schedule(machine)
        return commands

    def receive(self, name: str, packet: Received, now: float) -> list[Command]:
        """An advert came on the instance's interface with its id."""
        machine = self.machines[name]
        return self._together(machine, machine.receive(packet, now), now)

    # -- the node around it -------------------------------------------------------------

    def set_addresses(self, name: str, source: Address | None, local: frozenset[Address]) -> None:
        """The address that the instance sends from, and all that this node has."""
        machine = self.machines[name]
        machine.source, machine.local = source, local

    def set_faults(self, name: str, reasons: frozenset[str], now: float) -> list[Command]:
        """All that keeps the instance itself from serving: its interfaces, its source address."""
        if self._faults[name] == reasons:
            return []
        self._faults[name] = reasons
        return self._refresh([self.machines[name]], now)

    def report(self, kind: TrackKind, name: str, value: int, now: float) -> list[Command]:
        """A tracked file's number, or whether a tracked thing is up (True) or down."""
        if self._values.get((kind, name)) == value:
            return []
        self._values[kind, name] = value
        tracking = [
            machine
            for machine in self.machines.values()
            if any(track.kind is kind and track.name == name for track in self._tracks(machine))
        ]
        return self._refresh(tracking, now)

    def to_hear(self, name: str) -> set[tuple[TrackKind, str]]:
        """Scripts that decide over the instance (those with a weight do not) and were not reported yet."""
        return {
            (track.kind, track.name)
            for track in self._tracks(self.machines[name])
            if track.kind is TrackKind.SCRIPT
            and not track.weight
            and (track.kind, track.name) not in self._values
        }

    def force(self, name: str, state: State, now: float) -> list[Command]:
        """An operator makes it master or backup; adverts of others decide from then on."""
        machine = self.machines[name]
        if machine.state not in (State.BACKUP, State.MASTER) or machine.state is state:
            return []
        commands = machine.become_master(now) if state is State.MASTER else machine.yield_(now)
        return self._together(machine, commands, now)

    def addresses_lost(self, name: str, now: float) -> list[Command]:
        """Somebody took an address away from the master: it gives way and begins anew."""
        machine = self.machines[name]
        if machine.state is not State.MASTER:
            return []
        return self._together(machine, machine.yield_(now), now)

    # -- tracking -----------------------------------------------------------------------

    def _tracks(self, machine: Machine) -> list[Track]:
        group = self._group_of.get(machine.settings.name)
        own = machine.settings.tracks
        if group is not None and not group.settings.tracking_weight:
            own = tuple(_of_member(own))
        return [*own, *(group.settings.tracks if group else ())]

    def _verdicts(self, machine: Machine) -> list[tuple[Track, bool, int]]:
        known = ((track, self._values.get((track.kind, track.name))) for track in self._tracks(machine))
        return [(track, *verdict(track, value)) for track, value in known if value is not None]

    def _own_faults(self, name: str) -> frozenset[str]:
        tracked = self._verdicts(self.machines[name])
        down = {f"tracked {track.kind.value} {track.name}" for track, fault, _ in tracked if fault}
        return self._faults[name] | down

    def _all_faults(self, name: str) -> frozenset[str]:
        """Its own, and that a fellow of its group has one."""
        group = self._group_of.get(name)
        fellows = [member.settings.name for member in group.members] if group else []
        down = {f"{other} is down" for other in fellows if other != name and self._own_faults(other)}
        return self._own_faults(name) | down

    def _priority(self, machine: Machine) -> int:
        return effective(machine.settings.priority, (step for _, _, step in self._verdicts(machine)))

    def _refresh(self, machines: list[Machine], now: float) -> list[Command]:
        commands: list[Command] = []
        for machine in machines:
            name = machine.settings.name
            for reason in sorted(self._own_faults(name) - machine.faults):
                commands.append(Log(f"({name}): {reason} now FAULT state"))
            fellows = self._group_of[name].members if name in self._group_of else [machine]
            for gone in sorted(machine.faults - self._own_faults(name)):
                if not gone.endswith(" is down"):
                    commands.append(Log(f"({name}): {gone} leaving FAULT state"))
            if not self._own_faults(name):
                commands += machine.set_priority(self._priority(machine), now)
            for each in [machine, *(fellow for fellow in fellows if fellow is not machine)]:
                commands += each.set_faults(self._all_faults(each.settings.name), now)
                self._schedule(each)
            commands += self._settle(machine)
        return commands

    # -- groups -------------------------------------------------------------------------

    def _together(self, machine: Machine, commands: list[Command], now: float) -> list[Command]:
        """The rest of the group follows where the machine went."""
        self._schedule(machine)
        if not any(isinstance(command, Become) for command in commands):
            return commands
        followed = self._follow(machine, now)
        group = self._group_of.get(machine.settings.name)
        for member in group.members if group else ():
            self._schedule(member)
        return [*commands, *followed]

    def _follow(self, machine: Machine, now: float) -> list[Command]:
        group = self._group_of.get(machine.settings.name)
        if group is None or group.state is machine.state:
            return []
        commands: list[Command] = []
        others = [member for member in group.members if member is not machine]
        if machine.state is State.MASTER and others:
            commands.append(_syncing(group, State.MASTER))
            for member in others:
                commands += member.become_master(now)
        elif machine.state is State.BACKUP and any(member.state is State.MASTER for member in others):
            commands.append(_syncing(group, State.BACKUP))
            for member in others:
                commands += member.become_backup(now) if member.state is State.MASTER else []
        return [*commands, *self._settle(machine)]

    def _settle(self, machine: Machine) -> list[Command]:
        """The group's own state is its members', told after theirs."""
        group = self._group_of.get(machine.settings.name)
        if group is None or any(member.state is not machine.state for member in group.members):
            return []
        return self._enter(group, machine.state)

    def _enter(self, group: Group, state: State) -> list[Command]:
        if group.state is state:
            return []
        group.state = state
        return [Notify(group.settings.name, Event(state.value), 0, group=True)]


def _of_member(tracks: Iterable[Track]) -> Iterator[Track]:
    """What a group's member tracks: with weights of their own they would part.

    As keepalived 2.2.7 was seen to have it: a script with a weight is not tracked at all, of a file only
    the weight is ignored; those of interfaces and processes count all the same.
    """
    for track in tracks:
        if track.kind in (TrackKind.FILE, TrackKind.BFD):
            yield replace(track, weight=0)
        elif track.kind is not TrackKind.SCRIPT or not track.weight:
            yield track


def _syncing(group: Group, state: State) -> Log:
    return Log(f"VRRP_Group({group.settings.name}) Syncing instances to {state.value} state")
