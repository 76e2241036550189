"""The tables of sh, dh and mh: who gets how many buckets, and what moves when a server leaves.

That they are the kernel's to the bit is for tests/conformance/schedulers to say.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane.buckets import (
    MH_TABLE,
    SH_TABLE,
    Candidate,
    dh_table,
    mh_table,
    sh_table,
    siphash_word,
    table_of,
)
from xlvs.model import AF_INET, AF_INET6

WEIGHTS = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 10, 100, 65535]), max_size=12)
FEW_WEIGHTS = st.lists(st.integers(1, 12), min_size=2, max_size=12)


def candidates(weights: Sequence[int]) -> list[Candidate]:
    """Rows 0, 1, 2 ...; their addresses are theirs wherever they stand."""
    return [
        Candidate(row, weight, weight, bytes((10, 1, 0, row)).ljust(16, b"\0"), 80)
        for row, weight in enumerate(weights)
    ]


def test_siphash_of_a_word_is_pythons_own() -> None:
    """Python hashes bytes by SipHash-1-3, with a key of zeros if it is told to have no seed."""
    words = (0, 1, 0x0A130001, 0xFFFFFFFF)
    script = f"print(*(hash(word.to_bytes(4, 'little')) & 0xFFFFFFFF for word in {words}))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [siphash_word(word, 0) for word in words] == [int(word) for word in run.stdout.split()]


def test_sh_gives_each_server_as_many_buckets_in_a_row_as_its_weight() -> None:
    table = sh_table(candidates([2, 1, 0]))
    assert table[:8] == [0, 0, 1, 2, 0, 0, 1, 2]
    assert len(table) == SH_TABLE


def test_dh_gives_each_server_every_nth_bucket() -> None:
    assert dh_table(candidates([2, 100, 0]))[:7] == [0, 1, 2, 0, 1, 2, 0]


@given(WEIGHTS)
def test_a_table_is_whole_or_empty(weights: list[int]) -> None:
    servers = candidates(weights)
    for family in (AF_INET, AF_INET6):
        assert len(table_of("sh", family, servers)) == (SH_TABLE if weights else 0)
        assert len(table_of("dh", family, servers)) == (SH_TABLE if weights else 0)
        assert len(table_of("mh", family, servers)) == (MH_TABLE if any(weights) else 0)
        assert table_of("wlc", family, servers) == []


@given(FEW_WEIGHTS)
def test_mh_shares_by_weight(weights: list[int]) -> None:
    """Exactly, but for the last round's unfinished turns."""
    counted = Counter(mh_table(AF_INET, candidates(weights)))
    whole = sum(weights)
    for row, weight in enumerate(weights):
        assert abs(counted[row] - MH_TABLE * weight / whole) <= max(weights)


@given(FEW_WEIGHTS, st.integers(0, 100))
def test_mh_moves_little_when_one_leaves(weights: list[int], which: int) -> None:
    """Of the buckets of those who stay at most some go elsewhere; and the one who left has none."""
    servers = candidates(weights)
    gone = servers[which % len(servers)]
    before = mh_table(AF_INET, servers)
    after = mh_table(AF_INET, [each for each in servers if each is not gone])
    moved = sum(old not in (new, gone.row) for old, new in zip(before, after, strict=True))
    stayed = sum(old != gone.row for old in before)
    assert gone.row not in after
    assert moved <= max(0.5 * stayed, 0.1 * MH_TABLE)


@given(FEW_WEIGHTS, st.integers(0, 100))
def test_mh_keeps_its_table_when_a_weight_becomes_0(weights: list[int], which: int) -> None:
    servers = candidates(weights)
    quiet = [
        Candidate(each.row, 0 if each.row == which % len(servers) else each.weight, *rest)
        for each in servers
        for rest in [(each.last_weight, each.address, each.port)]
    ]
    assert mh_table(AF_INET, quiet) == mh_table(AF_INET, servers)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=12), st.integers(2, 9))
def test_only_the_ratio_of_weights_counts_for_mh(weights: list[int], factor: int) -> None:
    assert mh_table(AF_INET, candidates(weights)) == mh_table(
        AF_INET, candidates([weight * factor for weight in weights])
    )
