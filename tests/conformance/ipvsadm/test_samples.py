"""Listings of connections and counters are the real program's, recorded in the guest, to the byte."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.conformance.ipvsadm.runner import run_step
from tests.conformance.ipvsadm.table import HERE, SAMPLES, Step
from xlvs.dataplane.kernel import read_connection
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.model import (
    AF_INET,
    AF_INET6,
    L4,
    Counters,
    DestinationKey,
    Rates,
    ServiceKey,
)

RECORDED: dict[str, Any] = json.loads(SAMPLES.read_text())
SAMPLES_SCRIPT = HERE / "samples.sh"


def listing(plane: MemoryDataPlane, *arguments: str) -> str:
    step = Step(0, "", ["ipvsadm", *arguments])
    answer = run_step(step, lambda: plane)
    assert (answer.stderr, answer.status) == ("", 0)
    return answer.stdout


@pytest.mark.parametrize(
    ("sample", "arguments"),
    [
        ("connections", ["-Lnc"]),
        ("connections", ["-L", "-n", "-c", "--sort"]),
        ("connections-names", ["-Lc"]),
        ("connections-persistent", ["-Lnc", "--persistent-conn"]),
    ],
)
def test_connections(sample: str, arguments: list[str]) -> None:
    plane = MemoryDataPlane()
    lines = RECORDED["samples"]["proc"].splitlines()[1:]
    plane.connection_entries = [read_connection(line) for line in lines]
    states = {entry.state for entry in plane.connection_entries}
    assert {"ESTABLISHED", "UDP"} <= states
    assert any(entry.family == AF_INET6 for entry in plane.connection_entries)
    assert any(entry.pe_data for entry in plane.connection_entries)
    assert listing(plane, *arguments) == RECORDED["samples"][sample]


@pytest.mark.parametrize(
    ("sample", "arguments"),
    [
        ("stats", ["-Ln", "--stats"]),
        ("stats-exact", ["-Ln", "--stats", "--exact"]),
        ("rate", ["-Ln", "--rate"]),
        ("rate-exact", ["-Ln", "--rate", "--exact"]),
    ],
)
def test_numbers_of_every_size(sample: str, arguments: list[str]) -> None:
    numbers = RECORDED["counters"]
    assert max(numbers) == 2**64 - 1
    plane = MemoryDataPlane()
    assert listing(plane, "-A", "-t", "10.0.0.1:80", "-s", "rr") == ""
    assert listing(plane, "-a", "-t", "10.0.0.1:80", "-r", "10.0.0.2:8080", "-m") == ""
    key = ServiceKey(AF_INET, L4.TCP, bytes((10, 0, 0, 1)), 80)
    plane.observe(key, counters=Counters(*numbers[:5]), rates=Rates(*numbers[5:10]))
    plane.observe(
        key,
        lambda entry: replace(entry, counters=Counters(2**32, 2**33, 2**34, *numbers[10:12])),
        DestinationKey(AF_INET, bytes((10, 0, 0, 2)), 8080),
    )
    assert listing(plane, *arguments) == RECORDED["samples"][sample]


def test_active_and_inactive_connections() -> None:
    plane = MemoryDataPlane()
    rules = re.findall(r"^ipvsadm (-[Aa] .*)$", SAMPLES_SCRIPT.read_text(), re.MULTILINE)[:10]
    for rule in rules:
        assert listing(plane, *rule.split()) == ""
    recorded = RECORDED["samples"]["services"]
    rows = re.findall(r"-> \S+ +Masq    1      (\d+) +(\d+) +$", recorded, re.MULTILINE)
    assert any(active != "0" for active, _ in rows)
    assert any(inactive != "0" for _, inactive in rows)
    # The listing's order is that of the rules here, so its rows tell what to observe where.
    for entry, (active, inactive) in zip(plane.services(), rows, strict=True):
        plane.observe(
            entry.service.key,
            partial(replace, active=int(active), inactive=int(inactive)),
            entry.destinations[0].destination.key,
        )
    assert listing(plane, "-Ln") == recorded
