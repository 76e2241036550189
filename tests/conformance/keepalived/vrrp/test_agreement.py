"""Every case of VRRP and BFD: the real keepalived's status and values, recorded and in part live."""

from __future__ import annotations

import random

import pytest

from tests.conformance.keepalived.carried import carry_out
from tests.conformance.keepalived.real import namespace
from tests.conformance.keepalived.services import recording
from tests.conformance.keepalived.vrrp import agreement, compare, corpus, record
from tests.conformance.keepalived.vrrp.dump import standing

RECORDED = recording.load(record.PATH)
BY_PLACE = recording.by_place(RECORDED)
LIVE = 15


def test_every_case_is_recorded() -> None:
    assert list(RECORDED) == list(corpus.cases())
    assert set(BY_PLACE) == {*corpus.PLACES, corpus.SAMPLE}
    assert sum(answer.values is not None for answer in RECORDED.values()) > 1300


@pytest.mark.parametrize("place", BY_PLACE)
def test_statuses_agree(place: str) -> None:
    wrong = {}  # negative: the signal that ended it (docs/keepalived.md, 6)
    for statement in BY_PLACE[place]:
        real, found = RECORDED[place, statement], agreement.ours(place, statement)
        if 0 <= real.status != found.status and agreement.excused(place, statement) is None:
            wrong[statement] = (real.status, found.status)
    assert not wrong


@pytest.mark.parametrize("place", BY_PLACE)
def test_values_agree(place: str) -> None:
    for statement in BY_PLACE[place]:
        real, found = RECORDED[place, statement], agreement.ours(place, statement)
        if real.values is not None and agreement.excused(place, statement) is None:
            assert found.values is not None, statement
            theirs, mine = compare.agreeing(real.values, found.values)
            assert mine == theirs, statement


@pytest.mark.parametrize("place", BY_PLACE)
def test_what_is_read_can_be_carried_out(place: str) -> None:
    for statement in BY_PLACE[place]:
        config = agreement.parsed(place, statement).config
        if config is not None:
            carry_out(config)


def test_every_excuse_is_needed() -> None:
    reasons = set()
    for case, real in RECORDED.items():
        reason = agreement.excused(*case)
        if reason is not None and real.values is not None:
            found = agreement.ours(*case)
            theirs, mine = compare.agreeing(real.values, found.values or [])
            if found.status != real.status or mine != theirs:
                reasons.add(reason)
    assert reasons == set(agreement.REASONS)


@pytest.mark.root
def test_the_real_one_still_says_so() -> None:
    """A part of the recording, chosen anew each time."""
    chosen = random.sample([case for case, answer in RECORDED.items() if answer.values is not None], LIVE)
    with namespace(), standing() as real:
        for case in chosen:
            # A signal that comes before one of its processes hears ends that: it is asked again then.
            assert any(_timeless(record.ask(real, *case)) == _timeless(RECORDED[case]) for _ in range(4)), (
                case
            )


def _timeless(answer: recording.Answer) -> recording.Answer:
    """Without the state that an instance wants: it has one once it has begun, and may wait for scripts."""
    blocks = answer.values or []
    kept = [[line for line in block if not line.startswith("Wantstate")] for block in blocks]
    return recording.Answer(answer.status, None if answer.values is None else kept)
