"""The receiver believes no mutated packet that a sender with its secrets would not have written."""

from __future__ import annotations

import pytest

from tests.interop.vrrp.attack import attack, judge, read, seeds


@pytest.mark.parametrize("seed", range(3))
def test_mutated_adverts(seed: int) -> None:
    readable, believed = attack(4_000, seed)
    assert readable > 400
    assert believed > 100


def test_the_judge_sees_what_is_wrong() -> None:
    settings, whole = seeds()[0]
    other = whole[:21] + bytes((whole[21] ^ 1,)) + whole[22:]
    judge(settings, whole, read(whole))
    with pytest.raises(AssertionError):
        judge(settings, other, read(whole))
