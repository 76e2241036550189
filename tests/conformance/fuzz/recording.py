"""The real answers, kept in one compressed file: a line for the origin, one for each command."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.fuzz.commands import SEQUENCE, Command
from tests.conformance.ipvsadm.table import Answer

RECORDING = Path(__file__).with_name("recording.xz")
# What a sequence starts from.
RESET = ("-C", "--set 900 120 300", "--stop-daemon master", "--stop-daemon backup")
# What is looked at after every command, as lines of one -R: that is one run instead of eight.
LISTINGS = (
    *("-S -n", "-L -n", "-L -n --stats", "-L -n --thresholds", "-L -n --persistent-conn"),
    *("-L -n --tun-info", "-L -n --daemon", "-L --timeout"),
)


@dataclass(frozen=True)
class Step:
    """A command, what it said, and what LISTINGS show after it."""

    command: Command
    answer: Answer
    listings: str


@dataclass(frozen=True)
class Recording:
    """Sequences of steps, each from the state that RESET leaves."""

    seed: int
    program: str
    kernel: str
    sequences: list[list[Step]]


def save(recording: Recording) -> None:
    """Write RECORDING; listings that did not change are not written again."""
    lines = [json.dumps([recording.seed, recording.program, recording.kernel])]
    for sequence in recording.sequences:
        before = ""
        for step in sequence:
            command, answer = step.command, step.answer
            listings = None if step.listings == before else step.listings
            before = step.listings
            fields: list[Any] = [command.arguments, command.stdin, command.save]
            fields += [answer.stdout, answer.stderr, answer.status, listings]
            lines.append(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    RECORDING.write_bytes(lzma.compress("\n".join(lines).encode(), filters=filters))


def load() -> Recording:
    """Read RECORDING."""
    head, *lines = lzma.decompress(RECORDING.read_bytes()).decode().split("\n")
    seed, program, kernel = json.loads(head)
    steps = list(_steps(lines))
    sequences = [steps[start : start + SEQUENCE] for start in range(0, len(steps), SEQUENCE)]
    return Recording(seed, program, kernel, sequences)


def _steps(lines: Sequence[str]) -> Iterator[Step]:
    before = ""
    for line in lines:
        arguments, stdin, keep, stdout, stderr, status, listings = json.loads(line)
        before = before if listings is None else listings
        yield Step(Command(tuple(arguments), stdin, keep), Answer(stdout, stderr, status), before)
