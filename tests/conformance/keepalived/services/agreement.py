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


_NUMBERED = "delay_before_retry|warmup|weight|[ul]threshold|connect_port|bind_port|fwmark|retry|nb_get_retry"
# Deviations of docs/keepalived.md: the reason, and the cases ("place: statement") that it holds for.
_DEVIATIONS = (
    ("a lone point or sign is no number", r"\b(delay_\w+|warmup|connect_timeout) [.+]$"),
    ("a value that is refused is not used", rf"\b({_NUMBERED}) (x|1x|1,2|0\.5|0x\w+|[-+])$"),
    ("the greatest number is one: not 'none given'", r"\b(retry 4294967295|connect_timeout 4294\.967295)$"),
    ("a quorum is never lowered to 0", r"^server(, inheriting)?: weight 0$"),
    ("checks ask the service's port", r"^head, by TUN to IPv6: |^server's head: \S+ 0$"),
    ("global_defs' word counts for each check", r"^global_defs: checker_log_all_failures$"),
    ("a block without a brace is empty", r"real_server 10\.0\.0\.3$"),
    ("a regular expression that does not compile is left out", r"regex \[a$"),
    ("the real one loses ranges beyond the last part", r"10\.0\.0\.250-10\.0\.1\.5 80$"),
)
REASONS = tuple(reason for reason, _ in _DEVIATIONS)


def excused(place: str, statement: str) -> str | None:
    """Why this case may come out otherwise than in the real program, or None."""
    for reason, pattern in _DEVIATIONS:
        if re.search(pattern, f"{place}: {statement}"):
            return reason
    return None
