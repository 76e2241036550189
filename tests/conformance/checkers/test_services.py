"""xlvs keepalived drives the kernel's own IPVS as the real keepalived does, event by event."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conformance.checkers.record import RECORDING, play

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]


def test_services_and_scripts_are_the_real_ones_after_every_event(tmp_path: Path) -> None:
    recorded = json.loads(RECORDING.read_text())
    assert sum(name.endswith(".listing") for name in recorded) == 13
    got = play(f"{sys.executable} -P -m xlvs.cli.main keepalived --engine kernel", tmp_path, recorded)
    log = got.pop("log")
    assert got == recorded, log
