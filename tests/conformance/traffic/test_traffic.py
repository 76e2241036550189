"""xlvs sends what the real IPVS sends, packet by packet, and counts and lists as it does."""

from __future__ import annotations

import difflib
import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.traffic.play import Record
from tests.conformance.traffic.record import RECORDING, play_in_guest
from tests.conformance.traffic.scenarios import scenarios

REPOSITORY = Path(__file__).resolve().parents[3]
RECHECKED = 6

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="session")
def recording() -> Record:
    record: Record = json.loads(RECORDING.read_text())
    return record


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """All scenarios through xlvs on this machine's kernel."""
    output = tmp_path_factory.mktemp("traffic") / "record.json"
    command = [sys.executable, "-m", "tests.conformance.traffic.play", "xlvs", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    record: Record = json.loads(output.read_text())
    return record


@pytest.fixture(scope="session")
def in_guest() -> Record:
    """All scenarios through xlvs on the kernel that the recording was made on."""
    return play_in_guest("xlvs")


def compare(name: str, expected: Record, found: Record) -> None:
    """Equal, or a difference that shows what came before it."""
    if expected[name] != found[name]:
        lines = difflib.unified_diff(expected[name], found[name], "IPVS", "xlvs", n=4, lineterm="")
        pytest.fail(f"{name}\n" + "\n".join(list(lines)[:60]), pytrace=False)


def test_recording_is_of_these_scenarios(recording: Record) -> None:
    assert list(recording) == list(scenarios()), "record again: python -m tests.conformance.traffic.record"


def test_recorded_rules_were_all_accepted(recording: Record) -> None:
    for name, lines in recording.items():
        for line, after in pairwise(lines):
            if line.startswith("$ ipvsadm -") and not line.startswith("$ ipvsadm -L"):
                assert not after.startswith("  "), f"{name}: {line}\n{after}"


@pytest.mark.parametrize("name", scenarios())
def test_xlvs_does_what_ipvs_did(name: str, recording: Record, here: Record) -> None:
    compare(name, recording, here)


@pytest.mark.guest
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", scenarios())
def test_xlvs_on_the_kernel_of_the_recording(name: str, recording: Record, in_guest: Record) -> None:
    compare(name, recording, in_guest)


@pytest.mark.guest
def test_real_ipvs_still_does_it(recording: Record) -> None:
    names = random.sample(list(scenarios()), RECHECKED)
    found = play_in_guest("ipvs", names)
    assert list(found) == names
    for name in names:
        compare(name, recording, found)
