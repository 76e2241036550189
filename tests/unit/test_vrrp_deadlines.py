"""Which of many machines is due first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xlvs.vrrp.deadlines import Deadlines

STEPS = st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 20), st.integers(0, 5))


@given(st.lists(STEPS, max_size=60))
def test_nothing_is_missed_and_nothing_stays(steps: list[tuple[str, int | None, int]]) -> None:
    deadlines, wanted, now = Deadlines(), dict[str, float | None](), 0.0
    for name, ahead, passed in steps:
        wanted[name] = None if ahead is None else now + ahead
        deadlines.expect(name, wanted[name])
        now += passed
        taken = deadlines.take(now)
        assert {one for one, moment in wanted.items() if moment is not None and moment <= now} <= taken
        for one in taken:
            if (moment := wanted[one]) is not None and moment <= now:
                wanted[one] = None
            deadlines.expect(one, wanted[one])
        first = deadlines.first
        assert first is None or first > now
        moments = [moment for moment in wanted.values() if moment is not None]
        assert not moments or (first is not None and first <= min(moments))


def test_a_time_that_moves_later_costs_nothing() -> None:
    deadlines = Deadlines()
    deadlines.expect("a", 3.0)
    for moment in range(4, 1000):
        deadlines.expect("a", float(moment))
    assert deadlines.first == 3.0
    assert deadlines.take(3.0) == {"a"}
    assert deadlines.first is None
