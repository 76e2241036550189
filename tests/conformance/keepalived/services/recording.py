"""Answers of the real program, kept beside this file."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_name("recording.xz")


@dataclass(frozen=True)
class Answer:
    """-t's exit status, and the sections of its dump (None: it came to none)."""

    status: int
    values: list[list[str]] | None


def load(path: Path = PATH) -> dict[tuple[str, str], Answer]:
    """Every recorded case."""
    found = json.loads(lzma.decompress(path.read_bytes()))
    return {(place, statement): Answer(status, values) for place, statement, status, values in found}


def by_place(cases: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The statements of each place."""
    found: dict[str, list[str]] = {}
    for place, statement in cases:
        found.setdefault(place, []).append(statement)
    return found


def save(answers: dict[tuple[str, str], Answer], path: Path = PATH) -> None:
    """Write the recording."""
    rows = [[place, statement, each.status, each.values] for (place, statement), each in answers.items()]
    path.write_bytes(lzma.compress(json.dumps(rows, ensure_ascii=True).encode(), preset=9))
