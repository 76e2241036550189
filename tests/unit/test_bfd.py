"""BFD sessions as dialogues, and two of them over a lossy wire in simulated time (RFC 5880)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.health.bfd import Changed, Command, Diagnostic, Malformed, Packet, Session, State, Timing, parse

# Of Debian's keepalived 2.2.7: down, the poll when up, its answer; 100/200/1000 ms and 10/10/1000 ms.
REAL = {
    "204004187c07174400000000000f4240000186a000000000": Packet(
        State.DOWN, 0x7C071744, 0, multiplier=4, min_tx=1.0, min_rx=0.1
    ),
    "20e00518d3fc5b6117064fa8000027100000271000000000": Packet(
        State.UP, 0xD3FC5B61, 0x17064FA8, multiplier=5, min_tx=0.01, min_rx=0.01, poll=True
    ),
    "20d0041 87c071744 0e7c7a73 00030d40 000186a0 00000000".replace(" ", ""): Packet(
        State.UP, 0x7C071744, 0x0E7C7A73, multiplier=4, min_tx=0.2, min_rx=0.1, final=True
    ),
}
TIMING = Timing(min_tx=0.2, min_rx=0.1, idle_tx=1.0, multiplier=3)


@pytest.mark.parametrize("text", REAL)
def test_packets_are_keepalived_s(text: str) -> None:
    assert parse(bytes.fromhex(text)) == REAL[text]
    assert REAL[text].pack().hex() == text


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0x40), (1, 0x44), (1, 0x41), (2, 0), (3, 23), (3, 25), (4, None), (1, 0xC0)]
)
def test_what_is_none_is_refused(at: int, value: int | None) -> None:
    data = bytearray(Packet(State.DOWN, 1, 0, 3, 1.0, 0.1).pack())
    data[at:8] = bytes(8 - at) if value is None else bytes((value, *data[at + 1 : 8]))
    with pytest.raises(Malformed):
        parse(bytes(data))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = parse(data)
    except Malformed:
        return
    assert parse(packet.pack()) == packet


def session(timing: Timing = TIMING, number: int = 1) -> Session:
    return Session(timing, number, lambda: 0.5)


def said(commands: list[Command]) -> list[State]:
    return [command.state for command in commands if isinstance(command, Packet)]


def state_of(session: Session) -> State:
    return session.state


def test_down_init_up_and_faster_after_a_poll() -> None:
    ours = session()
    assert said(ours.start(0.0)) == [State.DOWN]
    assert ours.interval == 1.0
    commands = ours.receive(Packet(State.DOWN, 9, 0, 3, 1.0, 0.05), 0.1)
    assert commands[0] == Changed(State.INIT, State.DOWN, Diagnostic.NONE)
    commands = ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05), 0.2)
    assert commands[0] == Changed(State.UP, State.INIT, Diagnostic.NONE)
    assert isinstance(commands[1], Packet)
    assert (commands[1].poll, commands[1].your, commands[1].min_tx) == (True, 9, 0.2)
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05, final=True), 0.3)
    assert ours.polling is False
    assert ours.interval == 0.2
    assert ours.detection == pytest.approx(0.3)


def up(timing: Timing = TIMING) -> Session:
    ours = session(timing)
    ours.start(0.0)
    ours.receive(Packet(State.DOWN, 9, 0, 3, 1.0, 0.05), 0.0)
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05), 0.0)
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05, final=True), 0.0)
    assert state_of(ours) is State.UP
    return ours


def test_another_process_goes_on_and_the_neighbour_notices_a_poll_only() -> None:
    before, theirs = session(number=1), session(number=2)
    packets: list[Packet] = []

    def hand_over(commands: list[Command], to: Session, now: float) -> list[Command]:
        sent = [command for command in commands if isinstance(command, Packet)]
        packets.extend(sent)
        return [answer for packet in sent for answer in to.receive(packet, now)]

    first = hand_over(before.start(0.0), theirs, 0.0)
    while first:
        first = hand_over(hand_over(first, before, 0.1), theirs, 0.1)
    assert (state_of(before), state_of(theirs)) == (State.UP, State.UP)
    standing = before.standing
    assert standing is not None

    after = session(number=77)
    answers = hand_over(after.resume(standing, 0.5), theirs, 0.5)
    assert (packets[-1].state, packets[-1].my, packets[-1].your, packets[-1].poll) == (State.UP, 1, 2, True)
    assert not any(isinstance(answer, Changed) for answer in answers)
    hand_over(answers, after, 0.5)
    assert (state_of(after), after.polling, after.interval) == (State.UP, False, 0.2)
    assert after.detection == before.detection
    assert Changed(State.DOWN, State.UP, Diagnostic.EXPIRED) in after.tick(0.5 + after.detection)
    assert after.standing is None


def test_a_process_that_comes_too_late_begins_anew() -> None:
    standing = up().standing  # heard at 0, and lost after 0.3
    assert standing is not None
    assert standing.lasts(TIMING.min_rx, 2.2, told_every=2.0)
    assert not standing.lasts(TIMING.min_rx, 2.4, told_every=2.0)


def test_silence_takes_it_down_and_slows_it() -> None:
    ours = up()
    assert not any(isinstance(command, Changed) for command in ours.tick(0.29))
    commands = ours.tick(0.31)
    assert Changed(State.DOWN, State.UP, Diagnostic.EXPIRED) in commands
    assert said(commands) == [State.DOWN]
    assert ours.interval == 1.0
    assert ours.went_down == 1


@pytest.mark.parametrize("theirs", [State.DOWN, State.ADMIN_DOWN])
def test_the_neighbour_takes_it_down(theirs: State) -> None:
    ours = up()
    commands = ours.receive(Packet(theirs, 9, 1, 3, 1.0, 0.05), 0.1)
    assert commands[0] == Changed(State.DOWN, State.UP, Diagnostic.NEIGHBOR_DOWN)


def test_polls_are_answered_at_once() -> None:
    (answer,) = up().receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05, poll=True), 0.1)
    assert isinstance(answer, Packet)
    assert answer.final
    assert not answer.poll


def test_it_keeps_to_what_the_neighbour_takes() -> None:
    ours = up()
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 5.0), 0.1)
    assert ours.interval == 5.0
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.0), 0.2)
    assert ours.deadline == pytest.approx(0.2 + 0.3)  # only its silence
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05, demand=True), 0.3)
    assert ours.deadline == pytest.approx(0.3 + 0.3)


def test_a_passive_one_waits() -> None:
    ours = session(replace(TIMING, passive=True))
    assert ours.start(0.0) == []
    assert ours.deadline is None
    assert said(ours.receive(Packet(State.DOWN, 9, 0, 3, 1.0, 0.05), 1.0)) == [State.INIT]


def test_a_stranger_s_discriminator_is_no_word_for_us() -> None:
    ours = up()
    assert ours.receive(Packet(State.DOWN, 9, 7, 3, 1.0, 0.05), 0.1) == []
    assert state_of(ours) is State.UP


def test_an_end_is_told_as_wanted() -> None:
    commands = up().stop()
    assert commands[0] == Changed(State.ADMIN_DOWN, State.UP, Diagnostic.ADMIN_DOWN)
    assert said(commands) == [State.ADMIN_DOWN]


def test_new_times_are_agreed_by_a_poll() -> None:
    ours = up()
    (packet,) = ours.change(replace(TIMING, min_tx=0.5, min_rx=0.3), 0.1)
    assert isinstance(packet, Packet)
    assert (packet.poll, packet.min_tx, packet.min_rx) == (True, 0.5, 0.3)
    assert ours.interval == 0.2  # until the neighbour has heard
    ours.receive(Packet(State.UP, 9, 1, 3, 0.05, 0.05, final=True), 0.15)
    assert ours.interval == 0.5


timings = st.builds(
    Timing,
    min_tx=st.sampled_from([0.01, 0.1, 1.0]),
    min_rx=st.sampled_from([0.01, 0.3]),
    multiplier=st.integers(2, 5),
    passive=st.booleans(),
)


@settings(derandomize=True)
@given(timings, timings.map(lambda timing: replace(timing, passive=False)), st.integers(), st.floats(0, 0.9))
def test_two_agree_after_any_loss(first: Timing, second: Timing, seed: int, loss: float) -> None:
    chance = random.Random(seed)
    both = [Session(first, 1, chance.random), Session(second, 2, chance.random)]
    now, flying = 0.0, list[tuple[float, int, Packet]]()
    changes = 0

    def run(who: int, commands: list[Command], losing: bool) -> None:
        nonlocal changes
        for command in commands:
            if isinstance(command, Changed):
                changes += 1
            elif not losing or chance.random() >= loss:
                flying.append((now + 0.001, 1 - who, parse(command.pack())))

    def pass_time(until: float, losing: bool) -> None:
        nonlocal now
        while True:
            timers = [(one.deadline, who) for who, one in enumerate(both) if one.deadline is not None]
            due, who = min(timers, default=(until, 0))
            if flying and flying[0][0] <= due:
                now, to, packet = flying.pop(0)
                run(to, both[to].receive(packet, now), losing)
            elif due < until:
                now = due
                run(who, both[who].tick(now), losing)
            else:
                return

    run(0, both[0].start(now), True)
    run(1, both[1].start(now), True)
    pass_time(5.0, losing=True)
    pass_time(20.0, losing=False)
    assert [one.state for one in both] == [State.UP, State.UP]
    assert not any(one.polling for one in both)
    before = changes
    pass_time(25.0, losing=False)
    assert changes == before
    for ours, theirs in (both, both[::-1]):
        assert ours.interval == max(ours.timing.min_tx, theirs.timing.min_rx)
        assert ours.detection == theirs.timing.multiplier * max(ours.timing.min_rx, theirs.timing.min_tx)
