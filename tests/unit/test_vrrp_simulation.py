"""Nodes on lossy segments in simulated time: whatever happened before, in the end there is one master.

Packets are real bytes, so what one machine says is what another one can read.
"""

from __future__ import annotations

import heapq
import os
import random
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlvs.vrrp.commands import AddAddresses, Command, RemoveAddresses, Send, State
from xlvs.vrrp.packet import GROUP4, datagram, parse4
from xlvs.vrrp.router import Router
from xlvs.vrrp.settings import GroupSettings, Settings, Track, TrackKind

EXAMPLES = int(os.environ.get("XLVS_EXAMPLES", "0"))  # so many at random; 0: a few, the same each time
DELAY = 0.01  # seconds on the wire, at most
PATIENCE = 30  # adverts without trouble, after which all must be well


@dataclass(slots=True)
class Node:
    number: int
    instances: tuple[Settings, ...]
    groups: tuple[GroupSettings, ...] = ()
    router: Router | None = None  # None: dead
    holding: set[str] = field(default_factory=set)  # instances whose addresses are there

    @property
    def address(self) -> IPv4Address:
        return IPv4Address("192.168.99.0") + self.number

    def master(self, name: str) -> bool:
        return self.router is not None and self.router.machines[name].state is State.MASTER


class World:
    """All nodes, one clock; ``cut`` are pairs of nodes that do not hear each other."""

    def __init__(self, nodes: list[Node], seed: int) -> None:
        self.nodes = nodes
        self.chance = random.Random(seed)
        self.now = 0.0
        self.loss = 0.0
        self.cut: set[frozenset[int]] = set()
        self.flying: list[tuple[float, int, int, str, bytes]] = []
        self.count = 0
        self.changes = 0  # of somebody's addresses

    def start(self, node: Node) -> None:
        node.router = Router(node.instances, node.groups)
        for name in node.router.machines:
            node.router.set_addresses(name, node.address, frozenset((node.address,)))
        self.run(node, node.router.start(self.now))

    def kill(self, node: Node) -> None:
        """kill -9: no farewell; the next one's start removes what was left."""
        node.router = None

    def stop(self, node: Node) -> None:
        if node.router is not None:
            self.run(node, node.router.stop(self.now))
            node.router = None

    def run(self, node: Node, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send):
                whole = datagram(command.advert, node.address, GROUP4)
                for other in self.nodes:
                    if other is not node and self.chance.random() >= self.loss:
                        self.count += 1
                        arrival = self.now + self.chance.random() * DELAY
                        entry = (arrival, self.count, other.number, command.instance, whole)
                        if frozenset((node.number, other.number)) not in self.cut:
                            heapq.heappush(self.flying, entry)
            elif isinstance(command, AddAddresses):
                assert command.instance not in node.holding, "twice the same addresses"
                node.holding.add(command.instance)
                self.changes += 1
            elif isinstance(command, RemoveAddresses):
                node.holding.discard(command.instance)
                self.changes += 1
        if node.router is not None:
            for name in node.router.machines:
                assert (name in node.holding) == node.master(name), (
                    "addresses where no master is, or the reverse"
                )

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            timers = [
                (node.router.deadline, node)
                for node in self.nodes
                if node.router is not None and node.router.deadline is not None
            ]
            due, who = min(timers, key=lambda timer: timer[0] or 0.0, default=(None, None))
            arrival = self.flying[0][0] if self.flying else None
            times = [time for time in (due, arrival) if time is not None]
            if not times or min(times) > until:
                break
            self.now = max(self.now, min(times))
            if arrival is not None and arrival <= self.now:
                _, _, number, name, whole = heapq.heappop(self.flying)
                node = next(node for node in self.nodes if node.number == number)
                if node.router is not None:
                    self.run(node, node.router.receive(name, parse4(whole), self.now))
            elif who is not None and who.router is not None:
                self.run(who, who.router.tick(self.now))
        self.now = until

    def heal(self) -> None:
        self.cut.clear()
        self.loss = 0.0

    def masters(self, name: str) -> list[Node]:
        return [node for node in self.nodes if node.master(name)]


ACTIONS = ("kill", "track", "stop", "start", "fault", "mend", "cut", "join", "lose", "force", "wait")
storms = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3), st.integers(0, 3), st.floats(0.0, 8.0)),
    max_size=25,
)


def storm(world: World, steps: list[tuple[str, int, int, float]]) -> None:
    for action, first, second, pause in steps:
        node = world.nodes[first % len(world.nodes)]
        other = world.nodes[second % len(world.nodes)]
        router = node.router
        if action == "kill":
            world.kill(node)
        elif action == "stop":
            world.stop(node)
        elif action == "start" and router is None:
            world.start(node)
        elif action in ("fault", "mend") and router is not None:
            name = node.instances[second % len(node.instances)].name
            world.run(
                node, router.set_faults(name, frozenset({"eth0"} if action == "fault" else ()), world.now)
            )
        elif action == "track" and router is not None:
            world.run(node, router.report(TrackKind.FILE, "file", 40 * (second - 1), world.now))
        elif action == "cut" and node is not other:
            world.cut.add(frozenset((node.number, other.number)))
        elif action == "join":
            world.cut.discard(frozenset((node.number, other.number)))
        elif action == "lose":
            world.loss = (second + 1) / 5
        elif action == "force" and router is not None:
            name = node.instances[0].name
            to = State.MASTER if second % 2 else State.BACKUP
            world.run(node, router.force(name, to, world.now))
        world.pass_time(pause)


def in_the_end(world: World) -> None:
    """Every node up and well, and nothing lost: after a while one master for all instances."""
    world.heal()
    for node in world.nodes:
        if node.router is None:
            world.start(node)
        else:
            world.run(node, node.router.report(TrackKind.FILE, "file", 0, world.now))
            for name in node.router.machines:
                world.run(node, node.router.set_faults(name, frozenset(), world.now))
    quiet = PATIENCE * max(
        each.advert + each.preempt_delay for node in world.nodes for each in node.instances
    )
    world.pass_time(quiet)
    changes = world.changes
    world.pass_time(quiet)
    assert world.changes == changes, "a transition though nothing happened"
    names = [settings.name for settings in world.nodes[0].instances]
    first = world.masters(names[0])
    for name in names:
        found = world.masters(name)
        assert len(found) == 1, f"{name}: masters {[node.number for node in found]}"
        assert found == first or not world.nodes[0].groups, "a group that is parted"
        best = max(settings_of(node, name).priority for node in world.nodes)
        if all(settings_of(node, name).preempt for node in world.nodes):
            assert settings_of(found[0], name).priority == best


def settings_of(node: Node, name: str) -> Settings:
    return next(settings for settings in node.instances if settings.name == name)


instance = Settings(
    name="v",
    router_id=7,
    addresses=(IPv4Address("10.0.0.1"),),
    tracks=(Track(TrackKind.FILE, "file", 1),),
)
nodes = st.lists(
    st.tuples(st.integers(1, 254), st.booleans(), st.sampled_from([0.0, 0.0, 3.0])), min_size=2, max_size=4
)
common = settings(
    max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)


@common
@given(
    nodes, st.sampled_from([(2, 1.0, ""), (3, 0.1, ""), (3, 1.5, ""), (2, 1.0, "AH")]), storms, st.integers()
)
def test_one_master_after_any_storm(
    made: list[tuple[int, bool, float]],
    kind: tuple[int, float, str],
    steps: list[tuple[str, int, int, float]],
    seed: int,
) -> None:
    version, advert, auth = kind
    base = replace(instance, version=version, advert=advert, auth=auth, key=b"key")
    world = World(
        [
            Node(number, (replace(base, priority=priority, preempt=preempt, preempt_delay=delay),))
            for number, (priority, preempt, delay) in enumerate(made, 1)
        ],
        seed,
    )
    for node in world.nodes:
        world.start(node)
    storm(world, steps)
    in_the_end(world)


@common
@given(st.lists(st.integers(1, 254), min_size=2, max_size=3, unique=True), storms, st.integers())
def test_a_group_stays_together(
    priorities: list[int], steps: list[tuple[str, int, int, float]], seed: int
) -> None:
    world = World(
        [
            Node(
                number,
                tuple(replace(instance, name=f"v{i}", router_id=i, priority=priority) for i in (1, 2, 3)),
                (GroupSettings("g", ("v1", "v2", "v3")),),
            )
            for number, priority in enumerate(priorities, 1)
        ],
        seed,
    )
    for node in world.nodes:
        world.start(node)
    storm(world, steps)
    in_the_end(world)


@pytest.mark.parametrize("advert", [0.1, 1.0])
def test_a_dead_master_is_replaced_within_three_adverts_and_the_skew(advert: float) -> None:
    base = replace(instance, version=3, advert=advert)
    world = World([Node(1, (replace(base, priority=200),)), Node(2, (base,))], 1)
    for node in world.nodes:
        world.start(node)
    for _ in range(20):
        world.pass_time(10.0 + world.chance.random())
        assert world.masters("v") == [world.nodes[0]]
        world.kill(world.nodes[0])
        before = world.now
        while not world.masters("v"):
            world.pass_time(0.001)
        assert world.now - before <= 3 * advert + advert * 156 / 256 + DELAY + 0.002
        world.nodes[0].holding.clear()
        world.start(world.nodes[0])
