"""The machines behind health checks: when they ask, what answers come to, quorum, the agent."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.health import files, misc
from xlvs.health.agent import Agent, AgentDialogue, read
from xlvs.health.answers import PASSED, Answer
from xlvs.health.checker import Checker, fraction
from xlvs.health.checks import AgentCheck, Check, FileCheck, MiscCheck, Script
from xlvs.health.quorum import Quorum
from xlvs.health.verdict import MOST_WEIGHT, NEUTRAL, Health, Verdict, Weighting, health

FAILED = Answer(False, "refused")


def checker(**changes: object) -> Checker:
    values: dict[str, object] = {"interval": 10.0, "retries": 2, "retry_delay": 1.0, "warmup": 10.0}
    return Checker(Check(**{**values, **changes}), 0.0, 0.25)  # type: ignore[arg-type]


def converse(machine: Checker, answers: str) -> list[tuple[float, bool]]:
    """Answer as the string says (+ or -) whenever it asks: the times and values of new verdicts."""
    news = []
    for letter in answers:
        now = machine.due
        if machine.answered(PASSED if letter == "+" else FAILED, now):
            news.append((now, machine.verdict.up))
    return news


def test_the_first_answer_is_news_and_the_rest_only_if_it_changes() -> None:
    assert converse(checker(), "++++") == [(2.5, True)]


def test_retries_come_before_a_server_is_taken_out() -> None:
    machine = checker()
    assert converse(machine, "+---") == [(2.5, True), (14.5, False)]  # 12.5, and two more a second apart
    assert machine.tries == 0
    assert converse(machine, "--+") == [(42.5, True)]  # one success puts it back


def test_a_success_in_between_begins_the_retries_anew() -> None:
    assert converse(checker(), "+--+--+--+") == [(2.5, True)]


def test_the_very_first_failure_counts_at_once() -> None:
    """As the real program has it: a server never heard of gets no retries."""
    assert converse(checker(), "-") == [(2.5, False)]
    assert converse(checker(alpha=True), "--+") == [(2.5, False), (22.5, True)]


def test_what_could_not_be_asked_says_nothing() -> None:
    machine = checker()
    converse(machine, "+")
    for _ in range(10):
        assert not machine.answered(Answer(False, "no socket", asked=False), machine.due)
    assert (machine.verdict.up, machine.tries, machine.attempts) == (True, 0, 1)


def test_urls_are_asked_in_turn_and_all_of_them_after_a_failure() -> None:
    machine = Checker(Check(interval=10.0, retries=0, warmup=0.0), 0.0, 0.0, steps=3)
    steps = []
    for letter in "+++" + "+-" + "-++++":
        steps.append(machine.step)
        machine.answered(PASSED if letter == "+" else FAILED, machine.due)
    # The second failed twice; when it passes, all three are asked before the server is back.
    assert steps == [0, 1, 2, 0, 1, 1, 1, 0, 1, 2]
    assert machine.verdict.up


def test_fast_recovery_asks_all_urls_without_a_pause() -> None:
    machine = Checker(Check(interval=10.0, retries=0, warmup=0.0, alpha=True), 0.0, 0.0, steps=3, fast=True)
    times = []
    for letter in "+++-++++":
        times.append(machine.due)
        machine.answered(PASSED if letter == "+" else FAILED, machine.due)
    assert times == [0.0, 0.0, 0.0, 10.0, 20.0, 20.0, 20.0, 20.0]
    assert machine.verdict.up


@given(
    st.text("+-", max_size=60),
    st.integers(0, 3),
    st.booleans(),
    st.lists(st.floats(0, 30), min_size=60, max_size=60),
)
def test_verdicts_follow_from_the_answers_alone(
    answers: str, retries: int, alpha: bool, slow: list[float]
) -> None:
    """However long attempts take: the model is a few lines, and nobody waits two intervals."""
    machine = Checker(Check(interval=10.0, retries=retries, warmup=10.0, alpha=alpha), 0.0, 0.5)
    up, ran, row = not alpha, False, 0
    for letter, took in zip(answers, slow, strict=False):
        now = machine.due + took
        machine.answered(PASSED if letter == "+" else FAILED, now)
        row = 0 if letter == "+" else row + 1
        if letter == "+":
            up = True
        elif not ran or row > retries:
            up = False
        ran = True
        assert machine.verdict.up == up
        assert now < machine.due <= now + 15.0


@given(st.integers(1, 2000), st.floats(0, 0.999))
def test_checks_are_spread_evenly_however_many_there_are(many: int, start: float) -> None:
    places = sorted(fraction(number, start) for number in range(many))
    gaps = [after - before for before, after in zip(places, [*places[1:], places[0] + 1], strict=True)]
    assert max(gaps) < 2.7 / many  # the golden section's bound is 2.618 (three-distance theorem)


def test_checks_stay_spread_whatever_attempts_take() -> None:
    machine = checker()
    for _ in range(50):
        machine.answered(PASSED, machine.due + 3.0)
    assert machine.due % 10.0 == pytest.approx(2.5)


@given(
    st.integers(0, MOST_WEIGHT),
    st.lists(
        st.builds(
            Verdict,
            st.booleans(),
            st.builds(
                Weighting, st.none() | st.integers(0, 253), st.integers(-(2**31), 2**31), st.floats(0, 256)
            ),
        ),
        max_size=4,
    ),
)
def test_a_weight_is_always_one_that_the_kernel_takes(configured: int, verdicts: list[Verdict]) -> None:
    result = health(configured, verdicts)
    assert 0 <= result.weight <= MOST_WEIGHT
    assert result.up == all(verdict.up for verdict in verdicts)


def test_weights_add_up_and_shares_multiply() -> None:
    both = [Verdict(True, Weighting(instead=12)), Verdict(True, Weighting(plus=-3))]
    assert health(5, both) == Health(True, 9)
    assert health(10, [Verdict(True, Weighting(share=0.5)), Verdict(True)]) == Health(True, 5)
    assert health(1, [Verdict(True, Weighting(share=0.1))]) == Health(True, 1)  # busy is not drained
    assert health(9, [Verdict(True, Weighting(share=0.0))]) == Health(True, 0)
    assert health(9, []) == Health(True, 9)


def test_quorum_has_hysteresis() -> None:
    quorum = Quorum(5, 1)
    assert [quorum.heard(weight) for weight in (5, 6, 5, 4, 3, 4, 5, 6)] == [
        *(False, True, False, False, True, False, False, True)
    ]
    quorum = Quorum(1, 3)  # lost at no weight at all, though 1 - 3 is below that
    assert [quorum.heard(weight) for weight in (3, 4, 1, 0)] == [False, True, False, True]


@given(st.integers(1, 50), st.data(), st.lists(st.integers(0, 100), max_size=50))
def test_quorum_turns_only_across_its_thresholds(
    quorum: int, data: st.DataObject, weights: list[int]
) -> None:
    hysteresis = data.draw(st.integers(0, quorum - 1))
    machine = Quorum(quorum, hysteresis)
    for weight in weights:
        before = machine.up
        changed = machine.heard(weight)
        assert changed == (machine.up != before)
        if weight >= quorum + hysteresis:
            assert machine.up
        elif weight < quorum - hysteresis or weight == 0:
            assert not machine.up
        else:
            assert machine.up == before


def test_an_agents_words() -> None:
    said = read("75%, up maxconn:30\t#fine")
    assert (said.share, said.up, said.unknown, said.reason) == (0.75, True, ("maxconn:30",), "fine")
    assert read("DRAIN").admin == "drain"
    assert read("down #disk full").up is False
    assert read("one%").share is None
    assert read("").unknown == ()


def test_an_agents_states_hold_and_its_shares_are_damped() -> None:
    agent = Agent(0.5)
    assert agent.said("100%").weighting.share == 1.0
    shares = [agent.said("20%").weighting.share for _ in range(8)]
    assert shares[:2] == [0.6, 0.4]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.2  # it arrives
    assert agent.said("drain").weighting.share == 0.0
    assert agent.said("20%").weighting.share == 0.0  # until ready
    assert agent.said("ready").weighting.share == 0.2
    assert not agent.said("down #tired").ok
    assert not agent.said("20%").ok  # until up
    assert agent.said("up").ok
    assert not agent.said("HTTP/1.1 400 Bad Request").ok


@given(st.lists(st.sampled_from(("10%", "50%", "100%", "300%")), min_size=1), st.floats(0.01, 1))
def test_a_damped_share_stays_between_what_was_said(lines: list[str], damping: float) -> None:
    agent = Agent(damping)
    said = []
    for line in lines:
        share = agent.said(line).weighting.share
        said.append(int(line[:-1]) / 100)
        assert min(said) - 0.001 <= share <= max(said) + 0.001
    for _ in range(2000):
        share = agent.said(lines[-1]).weighting.share
    assert share == said[-1]


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_an_agent_may_say_anything(said: bytes, piece: int) -> None:
    check = AgentCheck(address=ip_address("192.0.2.1"), port=1, send="x\n")
    dialogue = AgentDialogue(check, Agent(1.0))
    assert dialogue.opened() == b"x\n"
    for start in range(0, len(said), piece):
        step = dialogue.received(said[start : start + piece])
        if isinstance(step, Answer):
            return
        assert step == b""
    assert isinstance(dialogue.ended(), Answer)


def test_exit_statuses() -> None:
    plain = MiscCheck(script=Script(("/bin/x",)))
    dynamic = MiscCheck(script=Script(("/bin/x",)), dynamic=True)
    assert misc.answer(plain, 0, NEUTRAL).ok
    assert not misc.answer(plain, 2, NEUTRAL).ok
    assert not misc.answer(dynamic, 1, NEUTRAL).ok
    assert not misc.answer(dynamic, -9, NEUTRAL).ok
    assert misc.answer(dynamic, 2, NEUTRAL).weighting == Weighting(instead=0)
    ten = misc.answer(dynamic, 12, NEUTRAL).weighting
    assert ten == Weighting(instead=10)
    assert misc.answer(dynamic, 0, ten).weighting == ten  # status 0 leaves the weight alone


def test_numbers_in_files() -> None:
    texts = ("7\n", "", "x", "-3 rest", "99999999999")
    assert [files.number(text) for text in texts] == [7, 0, 0, -3, 2**31 - 1]
    weighed = FileCheck(track_file="f", weight=2)
    assert files.answer(weighed, 3) == Answer(True, "value 3", Weighting(plus=6))
    assert not files.answer(weighed, -(2**30)).ok
    assert [files.answer(FileCheck(track_file="f", weight=0), value).ok for value in (0, 1, -1)] == [
        *(True, False, False)
    ]
