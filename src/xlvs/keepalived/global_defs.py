"""Keywords of global_defs, and those of the whole that stand beside it."""

from __future__ import annotations

from xlvs.keepalived.config import Global
from xlvs.keepalived.schema import Draft, Line, Parser, Row, Table, block, flag, value
from xlvs.keepalived.values import text


def _open(line: Line) -> Draft:
    """There may be many global_defs: all fill one draft."""
    draft: Draft = line.parser.top.values.setdefault("globals", Draft("global_defs"))
    return draft


def _close(_parser: Parser, _draft: Draft) -> None:
    """Turned into values by :func:`finish`, once everything is read."""


def finish(parser: Parser) -> dict[str, object]:
    """The fields of Config that come from here."""
    draft: Draft = parser.top.values.get("globals", Draft("global_defs"))
    return {"globals": Global(**draft.values, origins=draft.origins)}


KEYWORDS: dict[str, Row] = {
    "router_id": value("router_id", text),
    "enable_script_security": flag("script_security"),
}
TOP: Table = {"global_defs": block(KEYWORDS, _open, _close)}
