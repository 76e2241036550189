"""When a check is asked: keywords that virtual servers, real servers and checkers share, and who inherits."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.config import Origin
from xlvs.keepalived.schema import Draft, Row, value
from xlvs.keepalived.values import FOREVER, boolean, integer, seconds

_LONGEST = 18446744073709.551614  # seconds: microseconds in 64 bits
_LONGEST_TIMEOUT = 4294.967295  # seconds: microseconds in 32 bits


def keywords(place: str) -> dict[str, Row]:
    """delay_loop, retry, ... of a ``place``: "virtual server", "real server" or "" (a checker)."""
    told = f"{place} " if place else ""
    least = 0 if not place else 1
    words = "delay loop" if place == "virtual server" else "delay_loop"
    retry_words = "delay before retry" if place == "virtual server" else "delay_before_retry"
    retry = "retry value invalid - {word}" if place else "Invalid retry connection value '{word}'"
    return {
        "delay_loop": value(
            "interval", seconds(0.000001, _LONGEST, f"{told}{words} '{{word}}' invalid - ignoring")
        ),
        "delay_before_retry": value(
            "retry_delay", seconds(0, _LONGEST, f"{told}{retry_words} '{{word}}' invalid - ignoring")
        ),
        "warmup": value("warmup", seconds(0, _LONGEST, f"{told}warmup '{{word}}' invalid - ignoring")),
        "retry": value("retries", integer(least, FOREVER, retry)),
    }


def connect_timeout(place: str) -> Row:
    """``connect_timeout TIMER``."""
    told = f"{place} " if place else ""
    return value(
        "timeout", seconds(0.000001, _LONGEST_TIMEOUT, f"{told}connect_timeout {{word}} invalid - ignoring")
    )


ALPHA = value("alpha", boolean("Invalid alpha parameter {word}"))


def inherited(drafts: tuple[Draft, ...], name: str, default: Any) -> tuple[Any, Origin | None]:
    """A field of the innermost draft that has it (innermost first), and where it was written."""
    for draft in drafts:
        if name in draft.values:
            return draft.values[name], draft.origins.get(name)
    return default, None
