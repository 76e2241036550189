"""Kinds of rows of global_defs, and where their values are kept while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row
from xlvs.keepalived.values import FALSE, TRUE, number

_MOST = 2**31 - 1


def globals_of(parser: Parser) -> Draft:
    """The draft of global_defs, empty where there is none."""
    draft: Draft = parser.top.values.setdefault("globals", Draft("global_defs"))
    return draft


def defaults_of(parser: Parser) -> dict[str, Any]:
    """What global_defs says about every instance."""
    found: dict[str, Any] = globals_of(parser).values.setdefault("defaults", {})
    return found


# -- makers of rows -----------------------------------------------------------------


def part(part: str, field: str, kind: Callable[[Line], Any]) -> Row:
    """A keyword that sets ``field`` of a dict within the draft (defaults, mail)."""

    def handle(line: Line) -> None:
        globals_of(line.parser).values.setdefault(part, {})[field] = kind(line)
        line.draft.origins[f"{part}.{field}"] = line.origin

    return Row(handle)


def default(field: str, kind: Callable[[Line], Any]) -> Row:
    return part("defaults", field, kind)


def switch(refusal: str) -> Callable[[Line], bool]:
    def kind(line: Line) -> bool:
        word = line.words[1] if len(line.words) > 1 else "true"
        if word not in (*TRUE, *FALSE):
            raise Refused(refusal.format(word=word))
        return word in TRUE

    return kind


def bounded(low: int, high: int, refusal: str) -> Callable[[Line], int]:
    def kind(line: Line) -> int:
        found = number(line, line.word(), low, high)
        if found is None:
            raise Refused(refusal.format(word=line.word()))
        return found

    return kind


def positive(keyword: str) -> Callable[[Line], int]:
    def kind(line: Line) -> int:
        found = number(line, line.word(), 0, _MOST)
        if found is None:
            raise Refused(f"{keyword} '{line.word()}' invalid - ignoring")
        if found == 0:
            line.warn(f"{keyword} must be greater than 0, setting to 1")
        return found or 1

    return kind


def named(missing: str) -> Callable[[Line], str]:
    """``keyword NAME``; without one the keyword is ignored."""

    def kind(line: Line) -> str:
        if len(line.words) < 2:
            raise Refused(missing)
        return line.words[1]

    return kind


def other(least: int = 0, missing: str = "") -> Row:
    """Read for what it says, and of no effect here; ``least`` words must follow it."""

    def handle(line: Line) -> None:
        if missing and len(line.words) <= least:
            raise Refused(missing)
        if least:
            line.word(least)
        globals_of(line.parser).values.setdefault("others", {})[line.keyword] = tuple(line.words[1:])

    return Row(handle)


def checked(kind: Callable[[Line], Any]) -> Row:
    """Of no effect here, but its value is measured."""

    def handle(line: Line) -> None:
        kind(line)
        globals_of(line.parser).values.setdefault("others", {})[line.keyword] = tuple(line.words[1:])

    return Row(handle)


def sized(keyword: str) -> Row:
    def kind(line: Line) -> None:
        if len(line.words) < 2:
            raise Refused(f"{keyword} size missing")
        if number(line, line.words[1], 0, 2**32 - 1) is None:
            raise Refused(f"{keyword} size ({line.words[1]}) invalid")

    return checked(kind)


def process(role: str) -> dict[str, Row]:
    """Priorities and processors of one of keepalived's processes (daemon/keepalived/scheduling.py)."""

    def priority(line: Line) -> None:
        if len(line.words) < 2:
            raise Refused(f"No {role} process priority specified")
        if number(line, line.words[1], -20, 19) is None:
            raise Refused(f"Invalid {role} process priority specified")

    def processors(line: Line) -> None:
        if len(line.words) < 2:
            raise Refused(f"No {role} cpu_id set specified")
        for word in line.words[1:]:
            if number(line, word, 0, _MOST) is None:
                raise Refused(f"Invalid cpu_id:0 specified for {role} process")

    def realtime(line: Line) -> None:
        if len(line.words) < 2:
            raise Refused(f"No {role} process real-time priority specified")
        found = number(line, line.words[1], *(-(2**31), 2**31 - 1))
        if found is None:
            raise Refused(f"{role} process real-time priority '{line.words[1]}' invalid")
        if found < 1:
            line.warn(f"{role} process real-time priority {found} less than minimum 1 - setting to minimum")
        if found > 99:
            line.warn(
                f"{role} process real-time priority {found} greater than maximum 99 - setting to maximum"
            )

    return {
        f"{role}_priority": checked(priority),
        f"{role}_no_swap": other(),
        f"{role}_cpu_affinity": checked(processors),
        f"{role}_rt_priority": checked(realtime),
        f"{role}_rlimit_rttime": checked(bounded(1, 2**32 - 1, f"Invalid {role} real-time limit - {{word}}")),
        f"{role}_rlimit_rtime": checked(bounded(1, 2**32 - 1, f"Invalid {role} real-time limit - {{word}}")),
        f"{role}_process_name": other(1),
    }
