"""The defence's decisions (update_defense_level of ip_vs_ctl.c), and sysctls of the in-memory engine."""

from __future__ import annotations

from errno import EINVAL, ENOENT

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane.defence import Levels, available_pages, decide
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.errors import IpvsError

PLENTY, SHORT = 10_000, 700
AUTOMATIC = Levels(1024, 10, 1, 1, 1)


def test_automatic_modes_follow_the_memory() -> None:
    waiting = decide(AUTOMATIC, PLENTY)
    assert (waiting.drop_entry, waiting.drop_packet, waiting.secure_tcp) == (1, 1, 1)
    assert (waiting.drop_entries, waiting.drop_rate, waiting.secure_states) == (False, 0, False)
    defending = decide(AUTOMATIC, SHORT)
    assert (defending.drop_entry, defending.drop_packet, defending.secure_tcp) == (2, 2, 2)
    # 1024 / (1024 - 700): one packet in three.
    assert (defending.drop_entries, defending.drop_rate, defending.secure_states) == (True, 3, True)
    assert defending.restart
    again = decide(Levels(1024, 10, 2, 2, 2), PLENTY)
    assert again == waiting


def test_always_and_never_do_not_ask_the_memory() -> None:
    for available in (PLENTY, SHORT):
        always = decide(Levels(1024, 10, 3, 3, 3), available)
        assert (always.drop_entries, always.drop_rate, always.secure_states) == (True, 10, True)
        assert not always.restart
        never = decide(Levels(1024, 10, 0, 0, 0), available)
        assert (never.drop_entries, never.drop_rate, never.secure_states) == (False, 0, False)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_the_rate_is_one_at_least_and_rises_with_the_memory(threshold: int, available: int) -> None:
    decision = decide(Levels(threshold, 10, 0, 1, 0), available)
    assert (decision.drop_rate > 0) == (available < threshold)
    if available < threshold:
        assert decision.drop_rate <= threshold
        assert decide(Levels(threshold, 10, 0, 2, 0), max(0, available - 1)).drop_rate <= decision.drop_rate


def test_this_machine_has_memory() -> None:
    assert available_pages() > 0


def set_all(plane: MemoryDataPlane, values: dict[str, str]) -> None:
    with plane.transaction() as transaction:
        for name, text in values.items():
            transaction.set_sysctl(name, text)


def test_a_bad_value_undoes_the_transaction() -> None:
    plane = MemoryDataPlane()
    for name, text, errno in (("sync_version", "2", EINVAL), ("nosuch", "1", ENOENT)):
        with pytest.raises(IpvsError) as caught:
            set_all(plane, {"drop_packet": "3", name: text})
        assert caught.value.errno == errno
    values = {entry.name: entry.value for entry in plane.sysctls()}
    assert values["drop_packet"] == (0,)
    set_all(plane, {"sync_threshold": "7"})
    assert {entry.name: entry.value for entry in plane.sysctls()}["sync_threshold"] == (7, 50)
