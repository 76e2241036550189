"""The commands that our documents tell people to type.

In a block fenced as ``console`` every line is a command as typed; output that is shown
to the reader stands in a plain block of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and its lines."""

    document: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """One entry a command; a line that ends in a backslash goes on in the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks() -> Iterator[Block]:
    for path in documents():
        text = path.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(str(path.relative_to(REPOSITORY)), line, match.group(1), match.group(2))


def console_blocks() -> list[Block]:
    return [block for block in blocks() if block.language == "console"]


def is_make(command: str) -> bool:
    return command.split()[0] == "make"
