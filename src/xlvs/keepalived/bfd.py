"""Keywords of bfd_instance (RFC 5880)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlvs.health.checks import Address
from xlvs.keepalived.config import Bfd
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.tracking import weight
from xlvs.keepalived.values import decimal, number, parse_address

LONGEST_NAME = 31
_MOST = 4294967  # milliseconds that fit into 32 bits of microseconds (RFC 5880, 4.1)
_SENSIBLE = 1000  # milliseconds


def _told(text: str) -> str:
    return f"Configuration error: BFD instance {{block}} {text}"


def _interval(field: str, low: int = 1) -> Row:
    def kind(line: Line) -> float:
        refusal = _told(f"{field} value {{word}} is not valid (must be in range [{low}-{_MOST}]), ignoring")
        found = decimal(line, line.word(), low, _MOST, refusal, unit=0.001)
        if found > _SENSIBLE / 1000 and field != "idle_tx":
            line.warn(
                f"Configuration warning: BFD instance {line.draft.name} {field} value {line.word()} "
                f"is larger than max sensible ({_SENSIBLE})",
                status=0,
            )
        return found

    return value(field, kind)


def _integer(field: str, low: int, high: int, what: str, shown: str) -> Row:
    def kind(line: Line) -> int:
        found = number(line, line.word(), low, high)
        if found is None:
            text = _told(f"{what} value {{word}} not valid (must be in range {shown}), ignoring")
            raise Refused(text.format(block=line.draft.name, word=line.word()))
        return found

    return value(field, kind)


def _neighbor(line: Line) -> Address:
    found = parse_address(line.word())
    if found is None:
        line.draft.dropped = True
        raise Refused(
            _told("has malformed neighbor address {word}, ignoring instance").format(
                block=line.draft.name, word=line.word()
            )
        )
    return found


def _source(line: Line) -> Address:
    found = parse_address(line.word())
    if found is None:
        raise Refused(
            _told("has malformed source address {word}, ignoring").format(
                block=line.draft.name, word=line.word()
            )
        )
    return found


def _only(other: str) -> Callable[[Line], None]:
    def handle(line: Line) -> None:
        line.draft.values.setdefault("only", set()).add(other)

    return handle


def _open(line: Line) -> Draft:
    draft = Draft("bfd_instance", line.words[1] if len(line.words) > 1 else "")
    known = line.parser.top.values.setdefault("bfds", {})
    if len(draft.name.encode(errors="surrogateescape")) > LONGEST_NAME:
        draft.dropped = True
        line.warn(
            f"Configuration error: BFD instance {draft.name} name too long "
            f"(maximum length is {LONGEST_NAME} characters) - ignoring"
        )
    elif draft.name in known:
        draft.dropped = True
        line.warn(f"Configuration error: BFD instance {draft.name} already configured - ignoring")
    return draft


def _close(parser: Parser, draft: Draft) -> None:
    values: dict[str, Any] = draft.values
    name = draft.name
    neighbor, source = values.get("neighbor"), values.get("source")
    if neighbor is None:
        parser.warn(
            draft, f"Configuration error: BFD instance {name} has no neighbor address set, disabling instance"
        )
        return
    if source is not None and source.version != neighbor.version:
        parser.warn(
            draft,
            f"Configuration error: BFD instance {name} source address {source} and neighbor address "
            f"{neighbor} are not of the same family, disabling instance",
        )
        return
    for other in parser.top.values["bfds"].values():
        if other.neighbor == neighbor and (source is None or other.source == source):
            which = (
                f"source/neighbor address {source}/{neighbor}" if source else f"neighbor address {neighbor}"
            )
            parser.warn(
                draft, f"Configuration error: BFD instance {name} has duplicate {which}, ignoring instance"
            )
            return
    if values.get("max_hops") == -1:
        values["max_hops"] = 255  # eight bits of it
    ttl = values.get("ttl") or (255 if neighbor.version == 4 else 64)
    if values.get("max_hops", 0) > ttl:
        parser.warn(draft, f"BFD instance {name}: max_hops exceeds ttl/hoplimit - setting to ttl/hoplimit")
        values["max_hops"] = ttl
    only = values.pop("only", set())
    if only:
        values["vrrp"], values["checker"] = "vrrp" in only, "checker" in only
    parser.top.values["bfds"][name] = Bfd(name, origins=draft.origins, **values)


_TTL = _integer("ttl", 1, 255, "ttl/hoplimit", "[1-255]")
_NEIGHBOR = value("neighbor", _neighbor)
KEYWORDS: Table = {
    "neighbor_ip": _NEIGHBOR,
    "neighbour_ip": _NEIGHBOR,
    "source_ip": value("source", _source),
    "min_rx": _interval("min_rx"),
    "min_tx": _interval("min_tx"),
    "idle_tx": _interval("idle_tx", 1000),
    "multiplier": _integer("multiplier", 1, 255, "multiplier", "[1-255]"),
    "passive": flag("passive"),
    "ttl": _TTL,
    "hoplimit": _TTL,
    "max_hops": _integer("max_hops", -1, 255, "max_hops", "[-1-255]"),
    "weight": weight(
        -253,
        253,
        "Configuration error: BFD instance {name} weight value {word} not valid "
        "(must be in range [-253-253]), ignoring",
        "Configuration error: BFD instance {name} unknown weight option {word}",
    ),
    "vrrp": Row(_only("vrrp")),
    "checker": Row(_only("checker")),
}
TOP: Table = {"bfd_instance": block(KEYWORDS, _open, _close)}


def finish(parser: Parser) -> dict[str, Any]:
    """The fields of Config that come from here."""
    return {"bfds": tuple(parser.top.values.get("bfds", {}).values())}
