"""What stands beside the VRRP instances: static addresses, routes and rules, groups, link settings."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived import notify
from xlvs.keepalived.config import STATUS_LINK, GarpGroup, LinkDelay, Message
from xlvs.keepalived.routes import gather_routes, gather_rules
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, entries, flag, value
from xlvs.keepalived.tracking import TRACKED
from xlvs.keepalived.values import decimal
from xlvs.keepalived.vrrp_addresses import gather

LONGEST_INTERVAL = 4294.967295  # microseconds of 32 bits, the way keepalived keeps them
LONGEST_GROUP_INTERVAL = 2147.483647
LONGEST_DELAY = 255.0


# -- vrrp_sync_group and track_group ------------------------------------------------


def _open_group(kind: str, shown: str, table: str) -> Any:
    def open_(line: Line) -> Draft:
        draft = Draft(kind, line.names[0] if len(line.names) == 1 else "")
        if not draft.name:
            line.warn(f"{kind} must have a name - skipping")
            draft.skipped = True
        elif draft.name in line.parser.top.values.get(table, {}):
            line.warn(f"{shown} {draft.name} already defined")
            draft.skipped = True
        return draft

    return open_


def _members(line: Line) -> None:
    sync = line.draft.kind == "vrrp_sync_group"
    found: list[str] = []
    for entry in line.parser.entries(line):
        found += entry.words
    if line.draft.get("members"):
        raise Refused(f"Group list already specified for sync group {line.draft.name}")
    if not found:
        line.warn(f"Warning - {'sync' if sync else 'track'} group {line.draft.name} has empty group block")
    line.draft.values["members"] = found
    line.draft.origins["members"] = line.origin


def _close_sync(parser: Parser, draft: Draft) -> None:
    parser.top.values.setdefault("sync_groups", {})[draft.name] = draft


def _close_track(parser: Parser, draft: Draft) -> None:
    parser.top.values.setdefault("track_groups", {})[draft.name] = draft


def _global_tracking(line: Line) -> None:
    line.warn(
        f"({line.draft.name}) global_tracking is deprecated. "
        "Use track_interface/script/file on the sync group"
    )
    line.draft.values["global_tracking"] = line.draft.values["sync_group_tracking_weight"] = True


SYNC: Table = {
    "group": Row(_members),
    **TRACKED,
    **notify.GROUP,
    "global_tracking": Row(_global_tracking),
    "sync_group_tracking_weight": flag("sync_group_tracking_weight"),
}


# -- garp_group, linkbeat_interfaces, interface_up_down_delays ----------------------


def interval(line: Line) -> float:
    """Seconds between two announcements, to a microsecond."""
    if line.draft.kind == "garp_group":
        refusal = f"garp_group {line.keyword} '{{word}}' invalid"
        return decimal(line, line.word(), 0, LONGEST_GROUP_INTERVAL, refusal)
    return decimal(line, line.word(), 0.000001, LONGEST_INTERVAL, "{keyword} '{word}' is invalid")


def _garp_link(line: Line) -> None:
    _add_garp_link(line, line.word())


def _add_garp_link(line: Line, name: str) -> None:
    link = line.parser.host.link(name)
    if link is None:
        line.parser.missing_link(line, f"WARNING - interface {name} specified for garp_group doesn't exist")
    used = line.parser.top.values.setdefault("garp_links", set())
    if name in used:
        raise Refused(f"garp_group already specified for {name} - ignoring")
    used.add(name)
    line.draft.add("interfaces", name)


def _garp_links(line: Line) -> None:
    found = False
    for entry in line.parser.entries(line):
        for word in entry.words:
            found = True
            try:
                _add_garp_link(entry, word)
            except Refused as refusal:
                entry.warn(str(refusal))
    if not found:
        line.warn("Warning - empty garp_group interfaces block")


def _close_garp(parser: Parser, draft: Draft) -> None:
    values = draft.values
    groups: list[GarpGroup] = parser.top.values.setdefault("garp_groups", [])
    if "garp_interval" not in values and "na_interval" not in values:
        parser.warn(draft, f"garp group {len(groups)} does not have any delay set - removing")
        return
    groups.append(
        GarpGroup(
            tuple(values.get("interfaces", ())),
            values.get("garp_interval", 0.0),
            values.get("na_interval", 0.0),
        )
    )


GARP: Table = {
    "garp_interval": value("garp_interval", interval),
    "gna_interval": value("na_interval", interval),
    "interface": Row(_garp_link),
    "interfaces": Row(_garp_links),
}


def _linkbeat(line: Line) -> None:
    if line.parser.host.link(line.words[0]) is None:
        line.warn(f"unknown interface {line.words[0]} specified for linkbeat interface", status=STATUS_LINK)
        return
    kind = line.words[1] if len(line.words) > 1 else ""
    if kind not in ("", "MII", "ETHTOOL", "IOCTL") or len(line.words) > 2:
        line.warn(f"extra characters {kind} in linkbeat interface")
        kind = ""
    line.parser.top.add("linkbeat", (line.words[0], kind))


def _delays(line: Line) -> None:
    name, words = line.words[0], line.words[1:]
    if line.parser.host.link(name) is None:
        line.warn(f"unknown interface {name} specified for up/down delay", status=STATUS_LINK)
        return
    if not words:
        line.warn(f"No timeouts specified for {name} up/down delays", status=0)
        return
    if len(words) > 2:
        line.warn(f"Too many parameters for {name} up/down delays", status=0)
    try:
        down = decimal(line, words[0], 0, LONGEST_DELAY, f"Invalid down delay {words[0]} for {name}")
        up = (
            decimal(line, words[1], 0, LONGEST_DELAY, f"Invalid up delay {words[1]} for {name}")
            if len(words) > 1
            else down
        )
    except Refused as refusal:
        line.warn(str(refusal))
        return
    line.parser.top.add("link_delays", LinkDelay(name, down, up))


TOP: Table = {
    "static_ipaddress": Row(lambda line: gather(line, "static_addresses", static=True)),
    "static_routes": Row(lambda line: gather_routes(line, "static_routes", static=True)),
    "static_rules": Row(lambda line: gather_rules(line, "static_rules", static=True)),
    "track_group": block(
        {"group": Row(_members)}, _open_group("track_group", "track_group", "track_groups"), _close_track
    ),
    "vrrp_sync_group": block(
        SYNC, _open_group("vrrp_sync_group", "vrrp sync group", "sync_groups"), _close_sync
    ),
    "garp_group": block(GARP, lambda _line: Draft("garp_group"), _close_garp),
    "linkbeat_interfaces": entries(_linkbeat),
    "interface_up_down_delays": entries(_delays),
}


def finish(parser: Parser) -> dict[str, Any]:
    """The fields of Config that come from here, every track_group that is used being one."""
    values = parser.top.values
    groups: dict[str, tuple[str, ...]] = {}
    for draft in values.get("track_groups", {}).values():
        members = []
        for name in draft.get("members", ()):
            if name in values.get("instances", {}):
                members.append(name)
            else:
                text = f"vrrp instance {name} specified in track group {draft.name} doesn't exist - ignoring"
                parser.warn(draft, text, status=0)
        if members:
            groups[draft.name] = tuple(members)
        else:
            parser.warn(draft, f"Static track group {draft.name} has no VRRP instance(s)", status=0)
    for origin, name in values.get("track_group_uses", ()):
        if name not in values.get("track_groups", {}):
            parser.tell(Message(origin, name, f"track_group {name} not found"))
    return {
        "static_addresses": tuple(values.get("static_addresses", ())),
        "static_routes": tuple(values.get("static_routes", ())),
        "static_rules": tuple(values.get("static_rules", ())),
        "static_groups": groups,
        "garp_groups": tuple(values.get("garp_groups", ())),
        "link_delays": tuple(values.get("link_delays", ())),
        "linkbeat": tuple(values.get("linkbeat", ())),
    }
