"""xlvs keepalived drives the kernel's own IPVS as the real keepalived does, and takes over from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conformance.checkers.record import RECORDING, play

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

OURS = f"{sys.executable} -P -m xlvs.cli.main keepalived --engine kernel"


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one guest made of everything."""
    folder = tmp_path_factory.mktemp("share")
    play(OURS, folder, json.loads(RECORDING.read_text()))
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_services_and_scripts_are_the_real_ones_after_every_event(share: Path) -> None:
    recorded = json.loads(RECORDING.read_text())
    assert sum(name.endswith(".listing") for name in recorded) == 31
    got = files(share / "got")
    log = got.pop("log")
    assert {name: got.get(name) for name in recorded} == recorded, log
    assert got.keys() == recorded.keys()


def test_the_real_one_and_ours_take_over_from_each_other(share: Path) -> None:
    got = files(share / "takeover")
    log = got.pop("log")
    # Stopped and killed, there and back: what was there stays, and nothing is there twice.
    for change in range(1, 5):
        assert got[f"{change}.before"] == got["0.after"], (change, log)
        assert got[f"{change}.after"] == got["0.after"], (change, log)
    answered, lost, broken = map(int, got["counts"].split())
    assert answered >= 85, log
    assert (lost, broken) == (0, 0), log
