"""One virtual router's machine, as a dialogue: time and packets in, commands out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

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
from xlvs.vrrp.machine import Machine
from xlvs.vrrp.packet import GROUP4, Advert, Fault, PacketError, Received, datagram, parse4
from xlvs.vrrp.settings import Announcements, Settings

VIP = IPv4Address("10.0.0.1")
OURS = IPv4Address("192.168.99.2")
LOWER = IPv4Address("192.168.99.1")
HIGHER = IPv4Address("192.168.99.3")
QUIET = Announcements(master_delay=0, lower_priority_delay=0)


def machine(**changes: object) -> Machine:
    settings = Settings(name="v", router_id=7, addresses=(VIP,), announcements=QUIET)
    made = Machine(replace(settings, **changes))  # type: ignore[arg-type]
    made.source = OURS
    made.local = frozenset((OURS,))
    return made


def heard(priority: int, source: IPv4Address = LOWER, **changes: object) -> Received:
    advert = Advert(version=2, router_id=7, priority=priority, interval=1.0, addresses=(VIP,))
    return parse4(datagram(replace(advert, **changes), source, GROUP4))  # type: ignore[arg-type]


def state_of(node: Machine) -> State:
    """Its state, read anew: mypy would take it for what it was."""
    return node.state


def sent(commands: list[Command]) -> list[int]:
    return [command.advert.priority for command in commands if isinstance(command, Send)]


def test_silence_makes_a_master_which_speaks_first() -> None:
    node = machine()
    commands = node.start(10.0)
    assert RemoveAddresses("v") in commands
    assert node.deadline == 10.0 + 3 + 156 / 256
    assert node.tick(13.5) == []
    commands = node.tick(13.61)
    kinds = [type(command) for command in commands]
    assert kinds.index(Send) < kinds.index(AddAddresses) < kinds.index(Announce) < kinds.index(Notify)
    assert state_of(node) is State.MASTER
    assert Become("v", State.MASTER, State.BACKUP) in commands
    assert sent(node.tick(14.61)) == [100]


def test_version_3_skews_by_its_interval() -> None:
    node = machine(version=3, advert=0.25)
    node.start(0.0)
    assert node.deadline == pytest.approx(0.75 + 156 / 256 * 0.25)


def test_a_higher_master_keeps_a_backup_quiet_and_sends_a_master_home() -> None:
    node = machine()
    node.start(0.0)
    node.receive(heard(150), 3.0)
    assert node.deadline == 3.0 + 3 + 156 / 256
    node.tick(6.7)
    commands = node.receive(heard(150), 7.0)
    assert RemoveAddresses("v") in commands
    assert Notify("v", Event.BACKUP, 100) in commands
    assert sent(commands) == []


@pytest.mark.parametrize(("source", "state"), [(LOWER, State.MASTER), (HIGHER, State.BACKUP)])
def test_of_equals_the_higher_address_stays(source: IPv4Address, state: State) -> None:
    node = machine()
    node.start(0.0)
    node.tick(3.7)
    commands = node.receive(heard(100, source), 4.0)
    assert state_of(node) is state
    assert sent(commands) == ([100] if state is State.MASTER else [])


def test_a_master_that_says_goodbye_is_followed_after_the_skew() -> None:
    node = machine()
    node.start(0.0)
    node.receive(heard(150), 1.0)
    node.receive(heard(0), 2.0)
    assert node.deadline == 2.0 + 156 / 256


@pytest.mark.parametrize("preempt", [True, False])
def test_preemption(preempt: bool) -> None:
    node = machine(preempt=preempt)
    node.start(0.0)
    node.receive(heard(50), 3.0)
    assert node.deadline == (3 if preempt else 6) + 156 / 256


def test_preemption_waits_as_it_is_told() -> None:
    node = machine(preempt_delay=10.0)
    node.start(0.0)
    for second in range(1, 13):
        node.receive(heard(50), float(second))
        assert node.tick(float(second)) == []
    # Patient until 11 s, 10 after it was first heard, then deaf: silence counts from the last one heard.
    assert node.deadline == 10 + 3 + 156 / 256


def test_a_fault_takes_a_master_down_and_its_end_brings_a_backup() -> None:
    node = machine()
    node.start(0.0)
    node.tick(3.7)
    commands = node.set_faults(frozenset({"eth0"}), 4.0)
    assert RemoveAddresses("v") in commands
    assert state_of(node) is State.FAULT
    assert node.deadline is None
    node.set_faults(frozenset({"eth0", "script"}), 5.0)
    assert node.set_faults(frozenset({"script"}), 6.0) == []
    node.set_faults(frozenset(), 7.0)
    assert state_of(node) is State.BACKUP
    assert node.deadline == 7 + 3 + 156 / 256


def test_clocks_that_jump_do_no_harm() -> None:
    node = machine()
    node.start(1000.0)
    node.tick(1000.0 - 500)  # set back: the wait goes on
    assert node.deadline == pytest.approx(500 + 3 + 156 / 256)
    node.tick(10_000.0)  # the machine slept: it listens first
    assert state_of(node) is State.BACKUP
    node.tick(10_003.7)
    assert state_of(node) is State.MASTER
    assert sent(node.tick(20_000.0)) == [100]  # one advert, not those of all the time
    assert node.deadline == 20_001.0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"addresses": ()}, Fault.ADDRESSES),
        ({"addresses": (OURS,)}, Fault.ADDRESSES),
        ({"interval": 2.0}, Fault.INTERVAL),
        ({"version": 3}, Fault.VERSION),
        ({"auth": "PASS", "key": b"x"}, Fault.AUTH_MISMATCH),
        ({"auth": "AH", "key": b"x"}, Fault.AUTH_MISMATCH),
    ],
)
def test_what_does_not_agree_is_counted_and_ignored(changes: dict[str, object], fault: Fault) -> None:
    node = machine()
    node.start(0.0)
    node.receive(heard(150, LOWER, **changes), 1.0)
    assert node.counters.refused == {fault: 1}
    assert node.deadline == 3 + 156 / 256


def test_passwords_and_headers_must_be_ours() -> None:
    for auth in ("PASS", "AH"):
        node = machine(auth=auth, key=b"ours")
        node.start(0.0)
        node.receive(heard(150, auth=auth, key=b"theirs", sequence=1), 1.0)
        assert node.counters.refused == {Fault.AUTH_FAILURE: 1}
        node.receive(heard(150, auth=auth, key=b"ours", sequence=2), 1.0)
        assert node.counters.received == 1


def test_an_owner_begins_as_master_and_stops_with_a_word() -> None:
    node = machine(priority=255, master=True)
    node.start(0.0)
    node.tick(0.0)
    assert state_of(node) is State.MASTER
    assert sent(node.stop(1.0)) == [0]


@pytest.mark.parametrize(("ttl", "refused"), [(253, {Fault.TTL: 1}), (254, {}), (255, {})])
def test_peers_may_be_limited_in_distance(ttl: int, refused: dict[Fault, int]) -> None:
    node = machine(unicast=True, peers=(LOWER,), peer_ttl=((254, 255),), check_unicast_source=True)
    node.start(0.0)
    node.receive(replace(heard(150), ttl=ttl), 1.0)
    assert node.counters.refused == refused
    node.receive(heard(150, HIGHER), 1.0)
    assert node.counters.refused[Fault.SOURCE] == 1


def test_an_owner_with_ah_hears_first_how_far_the_others_have_counted() -> None:
    node = machine(priority=255, master=True, auth="AH", key=b"key")
    node.start(0.0)
    assert state_of(node) is State.BACKUP


def heard_of_old(priority: int, source: IPv4Address = LOWER) -> Received:
    """An advert to our own address with the checksum of keepalived before 1.3.7."""
    advert = Advert(version=3, router_id=7, priority=priority, interval=1.0, addresses=(VIP,))
    return parse4(datagram(advert, source, OURS, old_checksum=True))


def test_a_peer_with_the_old_checksum_is_answered_in_kind() -> None:
    """It takes no other. keepalived 2.2.7 says that it changes over, and goes on with its own (seen)."""
    node = machine(version=3, unicast=True, peers=(LOWER,))
    node.start(0.0)
    (command,) = [one for one in node.tick(3.7) if isinstance(one, Send)]
    assert not command.old_checksum
    (command,) = [one for one in node.receive(heard_of_old(50), 4.0) if isinstance(one, Send)]
    assert command.old_checksum
    node.reload(node.settings, 5.0)
    assert node.old_checksum
    node.reload(replace(node.settings, old_checksum_heard=False), 5.0)
    assert not node.old_checksum


@pytest.mark.parametrize("settings", [{"old_checksum_heard": False, "unicast": True}, {"unicast": False}])
def test_the_old_checksum_is_refused_where_nobody_may_use_it(settings: dict[str, object]) -> None:
    node = machine(version=3, peers=(LOWER,), **settings)
    node.start(0.0)
    node.receive(heard_of_old(150), 1.0)
    assert node.counters.refused[Fault.CHECKSUM] == 1
    assert not node.old_checksum


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (slice(None, -4), "vrrp packet too short, length 36 and expect 40"),
        (slice(None), ""),
    ],
)
def test_lengths_are_told_as_keepalived_tells_them(cut: slice, text: str) -> None:
    """With the IP header: what an operator finds in both logs is the same."""
    one = Advert(2, 1, 100, 1.0, (VIP,))
    whole = datagram(one, LOWER, GROUP4)[cut]
    whole = whole[:2] + len(whole).to_bytes(2, "big") + whole[4:]
    try:
        parse4(whole)
        told = ""
    except PacketError as error:
        told = str(error)
    assert told == text


def test_a_master_that_gives_way_learns_the_interval() -> None:
    node = machine(version=3, priority=100)
    node.start(0.0)
    node.tick(node.deadline or 0.0)
    slower = replace(heard(150, version=3), interval=7.0)
    texts = [one.text for one in node.receive(slower, 10.0) if isinstance(one, Log)]
    assert any("advertisement interval updated from 1000ms to 7000ms by master" in text for text in texts)
    assert node.master_interval == 7.0
