"""Our answer to a case, and why it may differ from the real program's."""

from __future__ import annotations

import re

from tests.conformance.keepalived.services import compare, corpus
from tests.conformance.keepalived.services.recording import Answer
from xlvs.keepalived.files import Memory
from xlvs.keepalived.host import Link
from xlvs.keepalived.parse import parse

FILE = "/etc/keepalived/keepalived.conf"


class Bench:
    """The machine on which recordings were made, as far as these cases ask."""

    def link(self, name: str) -> Link | None:
        return Link(name, loopback=name == "lo") if name == "lo" else None

    def user(self, name: str) -> bool:
        return name == "root"

    def group(self, name: str) -> bool:
        return name == "root"

    def program(self, path: str) -> bool:
        return path in ("/bin/true", "/bin/false")


def ours(place: str, statement: str) -> Answer:
    """What we make of a case."""
    outcome = parse(FILE, Memory({FILE: corpus.text(place, statement)}), "x", Bench())
    return Answer(outcome.status, None if outcome.config is None else compare.ours(outcome.config))


_TIMER = r"\b(delay_loop|delay_before_retry|warmup|connect_timeout)"
# Deviations of docs/keepalived.md: the reason, and the cases ("place: statement") that it holds for.
_DEVIATIONS = (("a lone point or sign is no number", re.compile(_TIMER + r" [.+]$")),)
REASONS = tuple(reason for reason, _ in _DEVIATIONS)


def excused(place: str, statement: str) -> str | None:
    """Why this case may come out otherwise than in the real program, or None."""
    for reason, pattern in _DEVIATIONS:
        if pattern.search(f"{place}: {statement}"):
            return reason
    return None
