"""Stretches of rows: none is handed out twice, and one given up is not soon written over."""

from __future__ import annotations

from errno import ENOMEM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane.regions import Regions
from xlvs.errors import IpvsError

SIZE = 1 << 20


def regions(following: int, *used: tuple[int, int]) -> Regions:
    return Regions("rows", SIZE, following, (first | count << 32 for first, count in used))


def first_of(word: int) -> int:
    return word & 0xFFFFFFFF


def test_stretches_are_handed_out_onwards() -> None:
    free = regions(0)
    assert [free.take(count) for count in (10, 5, 0, 1)] == [10 << 32, 10 | 5 << 32, 0, 15 | 1 << 32]
    assert free.following == 16


def test_what_is_used_is_passed_over() -> None:
    free = regions(5, (0, 8), (10, 4))
    assert first_of(free.take(2)) == 8
    assert first_of(free.take(2)) == 14


def test_the_end_leads_to_the_beginning() -> None:
    free = regions(SIZE - 3, (0, 4))
    assert first_of(free.take(8)) == 4


def test_no_room() -> None:
    with pytest.raises(IpvsError, match="no room for 7 more rows") as caught:
        regions(0, (0, SIZE - 6)).take(7)
    assert caught.value.errno == ENOMEM


@given(
    st.integers(0, SIZE - 1),
    st.lists(st.tuples(st.integers(0, 90000), st.integers(1, 500)), max_size=8),
    st.lists(st.integers(1, 5000), max_size=8),
)
def test_nothing_is_handed_out_twice(following: int, gaps: list[tuple[int, int]], wanted: list[int]) -> None:
    used, at = [], 0
    for gap, count in gaps:
        used.append((at + gap, count))
        at += gap + count
    free = regions(following, *used)
    taken = [(first, first + count) for first, count in used]
    for count in wanted:
        word = free.take(count)
        first = first_of(word)
        assert word >> 32 == count
        assert first + count <= SIZE
        assert all(first + count <= begin or end <= first for begin, end in taken)
        taken.append((first, first + count))
