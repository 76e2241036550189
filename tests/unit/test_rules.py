"""Changes of the rules, where no kernel is needed: notes, marks."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane import journal, layout
from xlvs.dataplane.commit import StagedDest, StagedService, moved_mark, overloaded
from xlvs.dataplane.journal import Change, Entry, Write, index
from xlvs.dataplane.rows import swap16
from xlvs.dataplane.tables import kernel_version
from xlvs.model import AF_INET, Destination, DestinationKey, Service, ServiceKey

MAPS = st.sampled_from(["services", "dests", "members", "rates", "settings"])
WRITES = st.builds(Write, MAPS, st.integers(0, (1 << 62) - 1), st.binary(max_size=64))
INDEXES = st.builds(index, st.binary(min_size=20, max_size=20), st.none() | st.integers(0, 8191))
ENTRIES = st.builds(Entry, MAPS, st.binary(max_size=40), st.none() | st.binary(max_size=16))


@given(st.lists(st.one_of(WRITES, INDEXES, ENTRIES)))
def test_a_note_says_what_was_written(changes: list[Change]) -> None:
    assert journal.decode(journal.encode(changes)) == changes


def test_a_note_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "note")
    assert journal.read(path) is None
    changes: list[Change] = [Write("dests", 192, b"x" * 100), index(bytes(20), None)]
    journal.write(path, changes)
    assert journal.read(path) == changes
    assert [each.name for each in tmp_path.iterdir()] == ["note"]


def test_fields_are_written_in_the_order_given() -> None:
    writes = journal.field("dests", layout.DestRow, 3, weight=-1, flags=5)
    base = 3 * ctypes.sizeof(layout.DestRow)
    assert writes == [
        Write("dests", base + layout.DestRow.weight.offset, b"\xff" * 4),
        Write("dests", base + layout.DestRow.flags.offset, b"\x05\0\0\0"),
    ]


@given(st.integers(0, 0xFFFF))
def test_swapped_twice_is_the_same(port: int) -> None:
    assert swap16(swap16(port)) == port
    assert swap16(port) == int.from_bytes(port.to_bytes(2, "big"), "little")


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-28-amd64", (6, 1)), ("5.10.216", (5, 10)), ("6.18.0+", (6, 18))]
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


# -- where the schedulers go on ------------------------------------------------------


def staged(scheduler: str, old: list[int], new: list[int]) -> StagedService:
    key = DestinationKey(AF_INET, bytes(4), 80)
    service = Service(ServiceKey(AF_INET, 6, bytes(4), 80), scheduler)
    dests = [StagedDest(Destination(key), row=row) for row in new]
    return StagedService(service, 0, dests, old, old_scheduler=scheduler)


@pytest.mark.parametrize(
    ("position", "new", "expected"),
    [
        (2, [1, 2, 3], 2),  # nothing happened to it
        (2, [9, 1, 2, 3], 3),  # one came in at the head
        (2, [1, 3], 1),  # the last one chosen went: the one before it was the last
        (2, [3], 0),
        (0, [1, 2], 0),
        (7, [1, 2, 3], 3),  # the list was longer once
    ],
)
def test_rr_goes_on_after_the_last_one_chosen(position: int, new: list[int], expected: int) -> None:
    assert moved_mark(staged("rr", [1, 2, 3], new), position, 0) == expected


def test_rr_begins_anew_under_another_scheduler() -> None:
    service = staged("rr", [1, 2], [1, 2])
    service.restarted = True
    assert moved_mark(service, 2 | 3 << 32, 0) == 0


@pytest.mark.parametrize(
    ("weight", "steps", "expected"),
    [
        (0, [(1, 4)], 4),
        (9, [(1, 4)], 4),
        (3, [(1, 4)], 3),
        (5, [(2, 7)], 5),
        (4, [(2, 7)], 5),
        (9, [(1, 4), (2, 3)], 3),
    ],
)
def test_wrr_goes_on_from_the_head(weight: int, steps: list[tuple[int, int]], expected: int) -> None:
    """Through every change of a batch: each has its step and its greatest weight."""
    service = staged("wrr", [1], [1])
    service.wrr_steps = steps
    assert moved_mark(service, 1 | weight << 32, 0) == expected << 32


@pytest.mark.parametrize(
    ("busy", "connections", "thresholds", "expected"),
    [
        (False, 7, [(5, 0)], True),
        (False, 7, [(7, 0)], True),
        (False, 7, [(8, 0)], False),
        (True, 10, [(12, 0)], True),
        (True, 10, [(14, 0)], False),
        (True, 10, [(20, 3)], True),
        (True, 5, [(10, 6)], False),
        (True, 5, [(8, 3)], True),
        (True, 5, [(8, 0)], False),
        (True, 10, [(0, 0)], False),
        (False, 7, [(5, 0), (8, 0)], True),
    ],
)
def test_thresholds_changed(
    busy: bool, connections: int, thresholds: list[tuple[int, int]], expected: bool
) -> None:
    """As asked of IPVS on Linux 6.1.192, one change at a time."""
    assert overloaded(busy, connections, thresholds) is expected
