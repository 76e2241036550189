"""xlvs sends what the real IPVS sends, packet by packet, and counts and lists as it does."""

from __future__ import annotations

import difflib
import json
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.traffic.record import play_in_guest
from tests.conformance.traffic.recorded import Record, read
from tests.conformance.traffic.scenarios import scenarios, topics

# Scenarios in which xlvs differs on purpose, by a pattern of their names: the entry of
# docs/deviations.md that says why.
DEVIATIONS = {
    r"nat. sctp: damaged": "SCTP's checksum",
    r"4 errors: parameter problems|for 6 over .: errors inside": "ICMP errors that IPVS leaves to the kernel",
    r"nat6: many targets of dh": "ICMPv6 errors about addresses that are not the director's own",
    r"fragments: (overlapping|doubled)|4 fragments: tiny segments": "Fragments are forwarded as they come",
}
REPOSITORY = Path(__file__).resolve().parents[3]
DOCUMENT = REPOSITORY / "docs/deviations.md"
# Scenarios that each run plays again in the guest: by real IPVS, and by xlvs on that kernel.
RECHECKED, ON_ITS_KERNEL = 12, 40

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]


def alike() -> list[str]:
    """The scenarios in which xlvs and IPVS are to do the same."""
    other = [re.compile(pattern) for pattern in DEVIATIONS]
    return [name for name in scenarios() if not any(pattern.search(name) for pattern in other)]


def deviating() -> list[str]:
    """Those in which they are not, for a reason."""
    patterns = [re.compile(pattern) for pattern in DEVIATIONS]
    return [name for name in scenarios() if any(pattern.search(name) for pattern in patterns)]


@pytest.fixture(scope="session")
def recording() -> Record:
    return {name: lines for topic in topics() for name, lines in read(topic).items()}


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """All scenarios through xlvs on this machine's kernel."""
    output = tmp_path_factory.mktemp("traffic") / "record.json"
    command = [
        sys.executable,
        "-m",
        "tests.conformance.traffic.play",
        "xlvs",
        str(output),
        *alike(),
        *deviating(),
    ]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    record: Record = json.loads(output.read_text())
    return record


def difference(name: str, expected: Record, found: Record) -> str:
    """Empty, or a difference that shows what came before it."""
    if expected[name] == found[name]:
        return ""
    lines = difflib.unified_diff(expected[name], found[name], "IPVS", "xlvs", n=4, lineterm="")
    return f"{name}\n" + "\n".join(list(lines)[:60])


def compare(names: list[str], expected: Record, found: Record) -> None:
    differences = [text for name in names if (text := difference(name, expected, found))]
    if differences:
        shown = "\n\n".join(differences[:10])
        pytest.fail(f"{len(differences)} of {len(names)} differ\n\n{shown}", pytrace=False)


def test_recording_is_of_these_scenarios() -> None:
    for topic, members in topics().items():
        assert list(read(topic)) == list(members), f"python -m tests.conformance.traffic.record {topic}"


def test_recorded_rules_were_all_accepted(recording: Record) -> None:
    for name, lines in recording.items():
        assert not any(line.startswith("! ") and "incomplete" not in line for line in lines), name
        for line, after in pairwise(lines):
            if line.startswith("$ ipvsadm -") and not line.startswith("$ ipvsadm -L"):
                assert not after.startswith("  "), f"{name}: {line}\n{after}"


@pytest.mark.parametrize("name", alike())
def test_xlvs_does_what_ipvs_did(name: str, recording: Record, here: Record) -> None:
    compare([name], recording, here)


@pytest.mark.parametrize("name", deviating())
def test_a_deviation_is_one(name: str, recording: Record, here: Record) -> None:
    assert difference(name, recording, here)


def test_deviations_are_named_and_few() -> None:
    entries = re.findall(r"^\d+\. \*\*(.*?)\.?\*\*", DOCUMENT.read_text(), re.MULTILINE)
    assert len(entries) <= 10
    assert set(DEVIATIONS.values()) <= set(entries)


def compare_in_guest(engine: str, names: list[str], recording: Record) -> None:
    """What differs is played once more, alone: a guest that got no processor for a while may spoil it."""
    found = play_in_guest(engine, names)
    if again := [name for name in names if found[name] != recording[name]]:
        print(f"once more: {again}", file=sys.stderr)
        found |= play_in_guest(engine, again)
    compare(names, recording, found)


@pytest.mark.guest
@pytest.mark.timeout(3600)
def test_xlvs_on_the_kernel_of_the_recording(recording: Record) -> None:
    compare_in_guest("xlvs", random.sample(alike(), ON_ITS_KERNEL), recording)


@pytest.mark.guest
@pytest.mark.timeout(3600)
def test_real_ipvs_still_does_it(recording: Record) -> None:
    compare_in_guest("ipvs", random.sample(list(scenarios()), RECHECKED), recording)
