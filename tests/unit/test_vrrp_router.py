"""A node's virtual routers together: reloads, operators' wishes, what is tracked by several."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from xlvs.vrrp.commands import AddAddresses, Become, Command, Event, Notify, RemoveAddresses, Send, State
from xlvs.vrrp.packet import GROUP4, Advert, datagram, parse4
from xlvs.vrrp.router import Router
from xlvs.vrrp.settings import GroupSettings, Settings, Track, TrackKind

OURS, OTHER = IPv4Address("192.168.99.2"), IPv4Address("192.168.99.9")
ONE = Settings(name="one", router_id=1, addresses=(IPv4Address("10.0.0.1"),))
TWO = Settings(name="two", router_id=2, addresses=(IPv4Address("10.0.0.2"),))
PAIR = GroupSettings("pair", ("one", "two"))


def running(*instances: Settings, groups: tuple[GroupSettings, ...] = (), until: float = 0.0) -> Router:
    router = Router(instances, groups)
    for settings in instances:
        router.set_addresses(settings.name, OURS, frozenset((OURS,)))
    router.start(0.0)
    while (due := router.deadline) is not None and due <= until:
        router.tick(due)
    return router


def heard(router: Router, settings: Settings, priority: int, now: float) -> list[Command]:
    advert = Advert(2, settings.router_id, priority, 1.0, settings.addresses)
    return router.receive(settings.name, parse4(datagram(advert, OTHER, GROUP4)), now)


def states(router: Router) -> list[State]:
    return [machine.state for machine in router.machines.values()]


@pytest.mark.parametrize("until", [1.0, 10.0])
@pytest.mark.parametrize("groups", [(), (PAIR,)])
def test_the_same_again_is_not_noticed(until: float, groups: tuple[GroupSettings, ...]) -> None:
    router = running(ONE, TWO, groups=groups, until=until)
    before = [(machine, machine.deadline) for machine in router.machines.values()]
    for _ in range(1000):
        assert router.reload([replace(ONE), replace(TWO)], groups, until) == []
    assert [(machine, machine.deadline) for machine in router.machines.values()] == before


def test_what_did_not_change_goes_on_beside_what_did() -> None:
    three = replace(TWO, name="three", router_id=3)
    router = running(ONE, TWO, until=10.0)
    deadline = router.machines["one"].deadline
    commands = router.remove("two", 10.5, Event.DELETED)
    assert RemoveAddresses("two") in commands
    assert Notify("two", Event.DELETED, 100) in commands
    assert [one.advert.priority for one in commands if isinstance(one, Send)] == [0]
    assert router.reload([ONE, three], [], 10.5) == []
    assert list(router.machines) == ["one", "three"]
    router.set_addresses("three", OURS, frozenset((OURS,)))
    started = router.start(10.5, ["three"])
    assert {one.instance for one in started if isinstance(one, Become)} == {"three"}
    assert router.machines["one"].deadline == deadline
    assert states(router) == [State.MASTER, State.BACKUP]


def test_a_new_priority_counts_at_once() -> None:
    router = running(ONE, until=10.0)
    router.reload([replace(ONE, priority=50)], [], 10.0)
    assert states(router) == [State.MASTER]
    heard(router, ONE, 60, 10.1)
    assert states(router) == [State.BACKUP]


def test_shorter_adverts_come_sooner() -> None:
    three = replace(ONE, version=3, advert=5.0)
    router = running(three, until=30.0)
    router.reload([replace(three, advert=0.5)], [], 30.0)
    assert router.deadline is not None
    assert router.deadline <= 30.5


def test_an_operator_may_move_a_whole_group() -> None:
    router = running(ONE, TWO, groups=(PAIR,), until=1.0)
    commands = router.force("two", State.MASTER, 1.0)
    assert states(router) == [State.MASTER, State.MASTER]
    assert [one.instance for one in commands if isinstance(one, AddAddresses)] == ["two", "one"]
    assert commands[-1] == Notify("pair", Event.MASTER, 0, group=True)
    router.force("one", State.BACKUP, 2.0)
    assert states(router) == [State.BACKUP, State.BACKUP]
    assert router.force("one", State.BACKUP, 2.0) == []


def test_a_fault_is_forced_by_nobody() -> None:
    router = running(ONE, until=1.0)
    router.set_faults("one", frozenset({"eth0"}), 1.0)
    assert router.force("one", State.MASTER, 1.0) == []
    assert states(router) == [State.FAULT]


def test_a_master_whose_address_was_taken_away_begins_anew() -> None:
    router = running(ONE, until=10.0)
    commands = router.addresses_lost("one", 10.0)
    assert [one.advert.priority for one in commands if isinstance(one, Send)] == [0]
    assert RemoveAddresses("one") in commands
    assert states(router) == [State.BACKUP]
    assert router.addresses_lost("one", 10.0) == []


def test_everybody_who_tracks_it_hears_of_it() -> None:
    script = (Track(TrackKind.SCRIPT, "chk", -30),)
    fatal = (Track(TrackKind.SCRIPT, "chk", 0),)
    router = running(replace(ONE, tracks=script), replace(TWO, tracks=fatal), until=10.0)
    assert router.report(TrackKind.SCRIPT, "chk", True, 10.0) == []
    router.report(TrackKind.SCRIPT, "chk", False, 10.0)
    assert router.machines["one"].priority == 70
    assert states(router) == [State.MASTER, State.FAULT]
    assert router.report(TrackKind.SCRIPT, "chk", False, 11.0) == []
    router.report(TrackKind.SCRIPT, "chk", True, 12.0)
    assert router.machines["one"].priority == 100
    assert states(router) == [State.MASTER, State.BACKUP]


@pytest.mark.parametrize(
    ("weight", "reverse", "up", "priority"),
    [
        (20, False, True, 120),
        (20, False, False, 100),
        (20, True, True, 80),
        (-20, False, True, 100),
        (-20, False, False, 80),
        (-20, True, False, 120),
        (253, False, True, 254),
        (-253, False, False, 1),
    ],
)
def test_weights(weight: int, reverse: bool, up: bool, priority: int) -> None:
    router = running(replace(ONE, tracks=(Track(TrackKind.INTERFACE, "eth1", weight, reverse),)))
    router.report(TrackKind.INTERFACE, "eth1", up, 1.0)
    assert router.machines["one"].priority == priority


def test_a_renamed_member_stays_in_its_group_and_in_time() -> None:
    router = running(ONE, TWO, groups=(PAIR,), until=10.0)
    router.rename("one", "uno")
    renamed = replace(ONE, name="uno")
    assert router.reload([renamed, TWO], [GroupSettings("pair", ("uno", "two"))], 10.2) == []
    heard(router, renamed, 200, 10.3)
    assert states(router) == [State.BACKUP, State.BACKUP]
    while (due := router.deadline) is not None and due <= 30.0:
        router.tick(due)
    assert states(router) == [State.MASTER, State.MASTER]


def test_weights_of_a_groups_members_may_count() -> None:
    tracks = (Track(TrackKind.INTERFACE, "eth1", 20), Track(TrackKind.SCRIPT, "chk", 30))
    router = running(replace(ONE, tracks=tracks), TWO, groups=(replace(PAIR, tracking_weight=True),))
    for kind, name in ((TrackKind.INTERFACE, "eth1"), (TrackKind.SCRIPT, "chk")):
        router.report(kind, name, True, 1.0)
    assert router.machines["one"].priority == 150
    router.report(TrackKind.SCRIPT, "chk", False, 2.0)
    assert router.machines["one"].priority == 120
    assert State.FAULT not in states(router)


def test_what_keeps_it_from_serving_is_told_as_a_whole() -> None:
    router = running(ONE, until=1.0)
    router.set_faults("one", frozenset({"interface eth0 down", "interface eth1 down"}), 1.0)
    router.set_faults("one", frozenset({"interface eth1 down"}), 2.0)
    assert states(router) == [State.FAULT]
    router.set_faults("one", frozenset(), 3.0)
    assert states(router) == [State.BACKUP]
    assert router.set_faults("one", frozenset(), 4.0) == []


@pytest.mark.parametrize(
    ("kind", "weight", "value", "state", "priority"),
    [
        (TrackKind.SCRIPT, 10, 0, State.BACKUP, 100),
        (TrackKind.SCRIPT, 10, 1, State.BACKUP, 100),
        (TrackKind.SCRIPT, 0, 0, State.FAULT, 100),
        (TrackKind.INTERFACE, 10, 1, State.BACKUP, 110),
        (TrackKind.INTERFACE, -10, 0, State.BACKUP, 90),
        (TrackKind.PROCESS, 10, 1, State.BACKUP, 110),
        (TrackKind.FILE, 1, 20, State.FAULT, 100),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_what_a_groups_member_tracks_by_weight(
    kind: TrackKind, weight: int, value: int, state: State, priority: int, own: bool
) -> None:
    """As keepalived 2.2.7 was seen to do: a member's weighted script never takes the group down."""
    track = Track(kind, "it", weight)
    if own:
        router = running(replace(ONE, tracks=(track,)), TWO, groups=(PAIR,))
        router.report(kind, "it", value, 1.0)
        assert (router.machines["one"].state, router.machines["one"].priority) == (state, priority)
    else:
        router = running(ONE, TWO, groups=(replace(PAIR, tracks=(track,)),))
        router.report(kind, "it", value, 1.0)
        expected = State.FAULT if weight == 0 else State.BACKUP
        assert router.machines["two"].state is expected


def test_only_scripts_without_weight_are_waited_for() -> None:
    tracks = (
        Track(TrackKind.SCRIPT, "needed"),
        Track(TrackKind.SCRIPT, "heavy", 10),
        Track(TrackKind.FILE, "file"),
    )
    router = Router([replace(ONE, tracks=tracks), TWO], [replace(PAIR, tracks=tracks[:1])])
    assert router.to_hear("one") == router.to_hear("two") == {(TrackKind.SCRIPT, "needed")}
    router.report(TrackKind.SCRIPT, "needed", 0, 0.0)
    assert router.to_hear("one") == set()
