"""All virtual routers of a node, with what binds them together: the whole that a runtime drives.

Instances are named; commands say whose they are. As with a machine, every method takes the time and
returns what is to be done, in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.vrrp.commands import Command
from xlvs.vrrp.machine import Machine
from xlvs.vrrp.packet import Address, Received
from xlvs.vrrp.settings import GroupSettings, Settings


class Router:
    """The machines by name, in the configuration's order."""

    def __init__(self, instances: Iterable[Settings], groups: Iterable[GroupSettings] = ()) -> None:
        self.machines = {settings.name: Machine(settings) for settings in instances}
        self.groups = {group.name: group for group in groups}

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is to be called next; None: never, as it stands."""
        deadlines = (machine.deadline for machine in self.machines.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def start(self, now: float) -> list[Command]:
        """All instances begin."""
        return [command for machine in self.machines.values() for command in machine.start(now)]

    def stop(self, now: float) -> list[Command]:
        """All instances end."""
        return [command for machine in self.machines.values() for command in machine.stop(now)]

    def tick(self, now: float) -> list[Command]:
        """What is due at ``now``."""
        commands: list[Command] = []
        for machine in self.machines.values():
            if machine.deadline is not None and machine.deadline <= now:
                commands += machine.tick(now)
        return commands

    def receive(self, name: str, packet: Received, now: float) -> list[Command]:
        """An advert came on the instance's interface with its id."""
        return self.machines[name].receive(packet, now)

    def set_addresses(self, name: str, source: Address | None, local: frozenset[Address]) -> None:
        """The address that the instance sends from, and all that this node has."""
        machine = self.machines[name]
        machine.source, machine.local = source, local
