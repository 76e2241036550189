"""Sync groups: who their members are, and what those may track."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived import notify
from xlvs.keepalived.config import Instance, SyncGroup, Tracked
from xlvs.keepalived.global_rows import globals_of
from xlvs.keepalived.schema import Draft, Parser

TRACKS = ("track_interfaces", "track_scripts", "track_files", "track_processes", "track_bfds")


def told(parser: Parser) -> dict[str, Any]:
    """What global_defs says about alerts."""
    values = globals_of(parser).values
    return {**values.get("mail", {}), **values}


def weight(parser: Parser, kind: str, entry: Tracked) -> int:
    """What something tracked counts: what is said where it is tracked, else where it is described."""
    own: int = parser.top.values[kind][entry.name].weight
    return own if entry.weight is None else entry.weight


def groups_of(
    parser: Parser, drafts: dict[str, Draft], instances: dict[str, Instance]
) -> tuple[SyncGroup, ...]:
    """The sync groups, each with the members that there are; no instance is in two."""
    taken: set[str] = set()
    found: list[SyncGroup] = []
    for draft in drafts.values():
        members: list[str] = []
        for name in draft.values.pop("members", ()):
            if name not in instances:
                text = f"Virtual router {name} specified in sync group {draft.name} doesn't exist - ignoring"
                parser.warn(draft, text)
            elif name in taken:
                text = f"Virtual router {name} cannot exist in more than one sync group"
                parser.warn(draft, f"{text}; ignoring {draft.name}")
            else:
                members.append(name)
                taken.add(name)
        if not members:
            parser.warn(draft, f"Sync group {draft.name} has no virtual router(s). removing")
            continue
        if len(members) == 1:
            parser.warn(
                draft,
                f"Sync group {draft.name} has only 1 virtual router(s) - this probably isn't what you want",
            )
        flags = ("sync_group_tracking_weight", "global_tracking")
        fields: dict[str, Any] = {name: draft.values[name] for name in flags if name in draft.values}
        fields |= {name: tuple(draft.values[name]) for name in TRACKS if name in draft.values}
        if not any(fields.get(name) for name in flags):
            for name in members:
                _weightless(parser, draft, instances[name])
        found.append(
            SyncGroup(
                draft.name,
                tuple(members),
                notify=notify.finished(draft.values, told(parser)),
                origins=draft.origins,
                **fields,
            )
        )
    return tuple(found)


def _weightless(parser: Parser, draft: Draft, member: Instance) -> None:
    """keepalived's words about weights of a group's members; it says none about processes."""

    def warn(text: str) -> None:
        parser.warn(draft, f"({member.name}) {text} due to SYNC group")

    for one in member.track_interfaces:
        if one.weight:
            warn(f"ignoring {one.name} tracked interface weight")
    for one in member.track_scripts:
        if weight(parser, "scripts", one):
            warn(f"ignoring tracked script {one.name} with weights")
    for one in member.track_files:
        if weight(parser, "files", one):
            text = f"({member.name}) ignoring weight from tracked file {one.name} due to SYNC group. "
            parser.warn(draft, f"{text}specify weight 0")
    for one in member.track_bfds:
        if weight(parser, "bfds", one):
            warn(f"ignoring tracked bfd {one.name} with weight {weight(parser, 'bfds', one)}")
