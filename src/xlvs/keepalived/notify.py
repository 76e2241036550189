"""Scripts and alerts of instances and groups."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.config import Notify
from xlvs.keepalived.schema import Line, Refused, Row
from xlvs.keepalived.scripts import NAMELESS, known, nameless, quoted
from xlvs.keepalived.values import FALSE, TRUE, script

_FIELDS = {
    "notify_master": "master",
    "notify_backup": "backup",
    "notify_fault": "fault",
    "notify_stop": "stop",
    "notify": "any",
    "notify_master_rx_lower_pri": "master_rx_lower_pri",
}


def _notify(keyword: str, group: bool) -> Row:
    field = _FIELDS[keyword]

    def handle(line: Line) -> None:
        found = line.draft.values.setdefault("notify", {})
        if field in found:
            where = f"vrrp group {line.draft.name}:" if group else f"({line.draft.name})"
            raise Refused(f"{where} {keyword} script already specified - ignoring {line.word()}")
        named = script(line)
        if not known(line.parser.host, named):
            line.warn(f"Invalid user or group for script {quoted(named)} - disabling", status=0)
            return
        if nameless(line.parser, named):
            raise Refused(NAMELESS)
        found[field] = named
        line.draft.origins[f"notify.{field}"] = line.origin

    return Row(handle)


def _deleted(line: Line) -> None:
    found = line.draft.values.setdefault("notify", {})
    if found.get("deleted_state"):
        word = line.words[1] if len(line.words) > 1 else ""
        raise Refused(f"({line.draft.name}) notify_deleted already specified - ignoring {word}")
    found["deleted_state"] = True
    if len(line.words) > 1 and known(line.parser.host, named := script(line)):
        found["deleted"] = named


def switch(field: str, refusal: str) -> Row:
    """``keyword [BOOL]`` of the notify part; the text is a format of name and word."""

    def handle(line: Line) -> None:
        word = line.words[1] if len(line.words) > 1 else "true"
        if word not in (*TRUE, *FALSE):
            raise Refused(refusal.format(name=line.draft.name, word=word))
        line.draft.values.setdefault("notify", {})[field] = word in TRUE
        line.draft.origins[f"notify.{field}"] = line.origin

    return Row(handle)


INSTANCE: dict[str, Row] = {
    **{keyword: _notify(keyword, group=False) for keyword in _FIELDS},
    "notify_deleted": Row(_deleted),
    "notify_priority_changes": switch(
        "priority_changes", "({name}) Invalid value '{word}' for notify_priority_changes specified"
    ),
    "smtp_alert": switch("smtp_alert", "Invalid vrrp_instance smtp_alert parameter {word}"),
}
GROUP: dict[str, Row] = {
    **{
        keyword: _notify(keyword, group=True)
        for keyword in _FIELDS
        if keyword != "notify_master_rx_lower_pri"
    },
    "notify_priority_changes": switch(
        "priority_changes", "({name}) Invalid value '{word}' for sync group notify_priority_changes specified"
    ),
    "smtp_alert": switch("smtp_alert", "Invalid vrrp_group smtp_alert parameter {word}"),
}


def finished(values: dict[str, Any], defaults: dict[str, Any]) -> Notify:
    """The Notify of a draft; global_defs gives what it leaves open."""
    alerts = defaults.get("alert_vrrp")
    given = {
        "smtp_alert": bool(defaults.get("alert") if alerts is None else alerts),
        "priority_changes": bool(defaults.get("notify_priority_changes")),
    }
    return Notify(**{**given, **values.get("notify", {})})
