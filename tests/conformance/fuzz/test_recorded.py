"""The in-memory engine answers as the real one did, command after command."""

from __future__ import annotations

from tests.conformance.fuzz.record import COMMANDS
from tests.conformance.fuzz.recording import load
from tests.conformance.fuzz.replay import HostsFile, differences, memory_plane


def test_every_answer_is_the_real_programs() -> None:
    recording = load()
    compared = 0
    for steps in recording.sequences:
        for difference in differences(steps, memory_plane(), HostsFile()):
            raise AssertionError(difference)
        compared += len(steps)
    assert compared == COMMANDS


def test_the_recording_is_worth_its_name() -> None:
    """Every command succeeds and fails in it, and the tables are not empty."""
    steps = [step for steps in load().sequences for step in steps]
    succeeded = [step for step in steps if not step.answer.status]
    assert len(succeeded) > len(steps) / 4
    assert len({step.answer.stderr for step in steps}) > 500
    assert len({step.listings for step in steps}) > len(steps) / 4
    # A program that was killed has said nothing worth comparing.
    assert not [step.command for step in steps if step.answer.status > 128 and step.answer.status != 255]
