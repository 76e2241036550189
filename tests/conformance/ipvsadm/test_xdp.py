"""The same answers from the XDP engine, in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMESPACE = f"xlvs-conformance-{os.getpid()}"
REPOSITORY = Path(__file__).resolve().parents[3]
# Runs inside the namespace: an engine belongs to the namespace that its process is in.
SCRIPT = """
from tests.conformance.ipvsadm.runner import comparable, run_section
from tests.conformance.ipvsadm.table import load, load_answers
from xlvs.cli.engine import open_data_plane

sections = load()
answers = load_answers(sections)
compared = 0
for section in sections:
    for step, answer in run_section(section, open_data_plane):
        ours, real = comparable(answer), comparable(answers[step.line])
        assert ours == real, f"table.txt:{step.line}: {step.text}\\nours: {ours}\\nreal: {real}"
        compared += 1
print(compared)
"""


@pytest.fixture
def namespace() -> Iterator[list[str]]:
    """The command that runs the rest of its line in a fresh namespace."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    inside = ["ip", "netns", "exec", NAMESPACE]
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        yield inside
    finally:
        subprocess.run([*inside, sys.executable, "-m", "xlvs.cli.main", "down"], check=False)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.mark.root
def test_the_xdp_engine_gives_the_real_programs_answers(namespace: list[str]) -> None:
    command = [*namespace, sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 600
