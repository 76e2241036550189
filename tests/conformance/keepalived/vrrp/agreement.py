"""Our answer to a case, and why it may differ from the real program's."""

from __future__ import annotations

import re

from tests.conformance.keepalived.real import CONFIG_ID, FILE, Bench
from tests.conformance.keepalived.services.recording import Answer
from tests.conformance.keepalived.vrrp import compare, corpus
from xlvs.keepalived.config import Outcome
from xlvs.keepalived.files import Memory
from xlvs.keepalived.parse import parse


def parsed(place: str, statement: str) -> Outcome:
    """What our parser says to a case."""
    return parse(FILE, Memory({FILE: corpus.text(place, statement)}), CONFIG_ID, Bench())


def ours(place: str, statement: str) -> Answer:
    """What we make of a case."""
    outcome = parsed(place, statement)
    return Answer(outcome.status, None if outcome.config is None else compare.ours(outcome.config))


_LIMITED = "garp_(master|lower_prio)_(delay|repeat)|smtp_connect_timeout|timeout|weight|quorum_max"
# Deviations of docs/keepalived.md: the reason, and the cases ("place: statement") that it holds for.
_DEVIATIONS = (
    (
        "a value that is refused is not used",
        rf"(\b|_)({_LIMITED}) (x|1\.5)\b|^script: weight (254|4\d+|2147483648)$",
    ),
    ("a length that is none is not 0", r"10\.0\.0\.9/x"),
    ("a table beyond all is not 0", r" table 4294967296$"),
    ("off means off", r"skip_check_adv_addr off"),
    ("an hour is no time before now", r"delay 3600$"),
    ("an option that is refused refuses its route or rule", r" (features|ttl-propagate|protocol|ipproto) x$"),
    ("an option that is refused refuses its route or rule", r" ([sd]port (1|x)|protocol static|weight 0)$"),
    ("an option that is refused refuses its route or rule", r"rules: from 10\.1\.0\.0/33 "),
    ("ports end at 65535", r" sport 65536-"),
    ("times are told as they were written", r" (rtt|rttvar|rto_min) "),
    ("locks and realms are told as they were written", r" congctl lock|^routes: .* realms 3$"),
    ("deprecated: or", r"^routes: .* or "),
    ("the dump does not tell a label or a locator", r" encap (mpls 1|ila 1:2:3:4$)"),
    ("an option that is refused refuses its route or rule", r" encap( seg6| ip| mpls x| ila 1:2)?$"),
    ("an option that is refused refuses its route or rule", r"nexthop .* encap ip id x$"),
    ("a next hop's words are told as they were written", r"nexthop .* encap .* weight 3 "),
    ("what an interface is is seen when it is used", r" vrf eth1$"),
    ("a family may be said before the destination", r": inet6? "),
    ("a track_group that there is not is told of", r"^static \w+: .* track_group T$"),
    ("the dump does not tell the peer", r" peer 10\.0\.0\.10/24$"),
)
REASONS = tuple(dict.fromkeys(reason for reason, _ in _DEVIATIONS))


def excused(place: str, statement: str) -> str | None:
    """Why this case may come out otherwise than in the real program, or None."""
    for reason, pattern in _DEVIATIONS:
        if re.search(pattern, f"{place}: {statement}"):
            return reason
    return None
