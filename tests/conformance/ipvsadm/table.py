"""The table of command lines (table.txt, which explains its own form) as values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE = HERE / "table.txt"
ANSWERS = HERE / "answers.json"
SAMPLES = HERE / "samples.json"
PROGRAMS = ("ipvsadm", "ipvsadm-save", "ipvsadm-restore")


@dataclass(frozen=True)
class Answer:
    """What a program said: both streams as text, and the exit status."""

    stdout: str
    stderr: str
    status: int


@dataclass
class Step:
    """One command line; ``line`` is where in the table, ``stdin`` what it reads."""

    line: int
    text: str
    argv: list[str]
    stdin: str = ""


@dataclass
class Section:
    """Steps that share one state, from an empty table on."""

    name: str
    steps: list[Step] = field(default_factory=list)


def load(text: str | None = None) -> list[Section]:
    """Read the table; raises ValueError naming the line where it makes no sense."""
    sections: list[Section] = []
    for number, line in enumerate((text or TABLE.read_text()).split("\n"), 1):
        if line.startswith("["):
            sections.append(Section(line.strip("[]")))
        elif line.startswith("<= "):
            sections[-1].steps[-1].stdin += json.loads(line[3:])
        elif line.startswith("<"):
            sections[-1].steps[-1].stdin += line[2:] + "\n"
        elif line and not line.startswith("#"):
            argv = shlex.split(line, comments=False)
            if argv[0] not in PROGRAMS:
                raise ValueError(f"line {number}: {argv[0]} is not a program of this table")
            sections[-1].steps.append(Step(number, line, argv))
    return sections


def load_answers(sections: Iterable[Section]) -> dict[int, Answer]:
    """The recorded answers by the table's line number.

    Raises ValueError where the table has changed since: record again.
    """
    recorded = json.loads(ANSWERS.read_text())["answers"]
    steps = [step for section in sections for step in section.steps]
    if [(step.text, step.stdin) for step in steps] != [(one["command"], one["stdin"]) for one in recorded]:
        raise ValueError("table.txt is not what was recorded: python -m tests.conformance.ipvsadm.record")
    return {
        step.line: Answer(one["stdout"], one["stderr"], one["status"])
        for step, one in zip(steps, recorded, strict=True)
    }
