"""Every case of virtual servers: the real keepalived's status and values, recorded and in part live."""

from __future__ import annotations

import random

import pytest

from tests.conformance.keepalived.services import agreement, corpus, record, recording
from tests.conformance.keepalived.services.dump import standing

RECORDED = recording.load()
BY_PLACE = recording.by_place(RECORDED)
LIVE = 20


def test_every_case_is_recorded() -> None:
    assert list(RECORDED) == list(corpus.cases())
    assert set(BY_PLACE) == set(corpus.PLACES)
    assert {answer.status for answer in RECORDED.values()} >= {0, 2, 5, 6}


@pytest.mark.parametrize("place", BY_PLACE)
def test_statuses_agree(place: str) -> None:
    wrong = {
        statement: (RECORDED[place, statement].status, agreement.ours(place, statement).status)
        for statement in BY_PLACE[place]
        if agreement.excused(place, statement) is None
    }
    assert {each: statuses for each, statuses in wrong.items() if statuses[0] != statuses[1]} == {}


@pytest.mark.parametrize("place", BY_PLACE)
def test_values_agree(place: str) -> None:
    for statement in BY_PLACE[place]:
        if agreement.excused(place, statement) is None:
            real, found = RECORDED[place, statement], agreement.ours(place, statement)
            # Without a virtual server the real one does not come to its dump.
            assert found.values == (real.values or ([] if real.status != 2 else None)), statement


def test_every_excuse_is_needed() -> None:
    reasons = set()
    for case, real in RECORDED.items():
        reason = agreement.excused(*case)
        if reason is not None:
            found = agreement.ours(*case)
            if found.status != real.status or found.values != real.values:
                reasons.add(reason)
    assert reasons == set(agreement.REASONS)


@pytest.mark.root
def test_the_real_one_still_says_so() -> None:
    """A part of the recording, chosen anew each time."""
    chosen = random.sample(list(RECORDED), LIVE)
    with standing() as real:
        for case in chosen:
            if RECORDED[case].values is not None:  # a dump that does not come is waited for
                assert record.ask(real, *case) == RECORDED[case], case
