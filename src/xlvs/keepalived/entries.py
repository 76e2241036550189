"""An entry of virtual_routes, virtual_rules and their static likes: words, taken one by one."""

from __future__ import annotations

import re

from xlvs.keepalived.schema import Line


class Wrong(Exception):
    """The whole entry is left out; the text is told unless it is empty."""


class Words:
    """The words of an entry; a missing one refuses the configuration."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._at = 0

    def more(self) -> bool:
        """Whether there is another."""
        return self._at < len(self.line.words)

    def peek(self) -> str:
        """The next, which stays; "" where there is none."""
        return self.line.words[self._at] if self.more() else ""

    def take(self) -> str:
        """The next."""
        if not self.more():
            del self.line.words[self._at :]
        self._at += 1
        return self.line.word(self._at - 1)


def traffic_class(words: Words, refusal: str) -> str:
    """A TOS or traffic class, as iproute2 reads it: it takes digits without 0x for hexadecimal ones."""
    word = words.take()
    match = re.fullmatch(r"0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*)", word[:12])
    read = zip(match.groups() if match else (), (16, 8, 10), strict=False)
    found = next((int(digits, base) for digits, base in read if digits), 256)
    if found > 255:
        raise Wrong(refusal.format(word=word))
    return hex(found)
