"""Keywords of the checkers that are not HTTP: SMTP, DNS, UDP, MISC, FILE, BFD, and our AGENT_CHECK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlvs.health.checks import Script
from xlvs.keepalived.checkers_common import CONNECTION, PLACES, TIMES, keep, opened, tell
from xlvs.keepalived.config import TrackFile
from xlvs.keepalived.octets import octets, pattern
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.scripts import command, quoted, runnable
from xlvs.keepalived.timing import ALPHA
from xlvs.keepalived.values import decimal, integer, number, text

# -- SMTP_CHECK ---------------------------------------------------------------------


def _helo(line: Line) -> str:
    if len(line.words) < 2:
        raise Refused("SMTP_CHECK helo name missing")
    return line.words[1]


def _close_host(_parser: Parser, draft: Draft) -> None:
    assert draft.parent is not None
    draft.parent.add("hosts", draft)


SMTP: Table = {
    **CONNECTION,
    "helo_name": value("helo_name", _helo),
    "host": block(PLACES, opened("host"), _close_host),
}


def close_smtp(parser: Parser, draft: Draft) -> None:
    """Each host block is a checker of its own; the checker itself one where it says whereto, or has none."""
    hosts: list[Draft] = draft.values.pop("hosts", [])
    own = {name for name in draft.values if name not in ("helo_name", *(TIMES_FIELDS))}
    if own or not hosts:
        keep(parser, draft)
    for host in hosts:
        shared = {name: each for name, each in draft.values.items() if name not in own}
        host.kind, host.parent = draft.kind, draft.parent
        host.values = {**shared, **host.values}
        host.origins = {**draft.origins, **host.origins}
        keep(parser, host)


TIMES_FIELDS = ("interval", "retry_delay", "warmup", "retries", "alpha", "log_all_failures")


# -- DNS_CHECK ----------------------------------------------------------------------

_TYPES = ("A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "RRSIG", "DNSKEY")


def _type(line: Line) -> str:
    if line.word().upper() not in _TYPES:
        raise Refused(f"Unknown DNS check type {line.word()} - ignoring")
    return line.word().upper()


def _name(line: Line) -> str:
    name = line.word()
    if "name" in line.draft.values:
        raise Refused("DNS_CHECK name already specified - ignoring")
    labels = name.removesuffix(".").split(".")
    if name not in ("", ".") and not all(labels):
        raise Refused(f"DNS_CHECK name '{name}' has empty label - ignoring")
    encoded = [label.encode(errors="surrogateescape") for label in labels]
    if max(map(len, encoded)) > 63 or sum(len(label) + 1 for label in encoded) > 254:
        raise Refused(f"DNS_CHECK name '{name}' is too long - ignoring")
    return name or "."


DNS: Table = {**CONNECTION, "type": value("type", _type), "name": value("name", _name)}

# -- UDP_CHECK ----------------------------------------------------------------------

_MOST_REPLY = 65535


def _payload(line: Line) -> bytes:
    if len(line.words) < 2:
        raise Refused("UDP_CHECK payload requires a payload")
    found = octets(line.words[1:])
    if found is None:
        raise Refused("Invalid hex string for UDP_CHECK payload")
    return found


def _reply(line: Line) -> tuple[tuple[int, int], ...]:
    line.draft.values["require_reply"] = True
    line.draft.origins["require_reply"] = line.origin
    if len(line.words) < 2:
        return ()
    found = pattern(line.words[1:])
    if found is None:
        raise Refused("Invalid hex string for UDP_CHECK reply")
    return found


def _length(which: str) -> Row:
    told = f"UDP_CHECK {which} length {{word}} not valid - must be between 0 & {_MOST_REPLY}"
    return value(f"{which}_reply", integer(0, _MOST_REPLY, told))


UDP: Table = {
    **CONNECTION,
    "payload": value("payload", _payload),
    "require_reply": value("reply", _reply),
    "min_reply_length": _length("min"),
    "max_reply_length": _length("max"),
}


def close_udp(parser: Parser, draft: Draft) -> None:
    """Lengths between which there is none are told."""
    low, high = draft.get("min_reply", 0), draft.get("max_reply", 255)
    if low > high:
        tell(parser, draft, f"UDP_CHECK min_reply length {low} > max_reply_length {high} - will always fail")
    keep(parser, draft)


# -- MISC_CHECK ---------------------------------------------------------------------

_LONGEST_SCRIPT = 4294  # seconds: microseconds in 32 bits


def _user(line: Line) -> None:
    if len(line.words) < 2:
        line.warn(f"No user specified for misc checker script {quoted(line.draft.get('script'))}")
        return
    line.draft.values["user"] = (line.words[1], line.words[2] if len(line.words) > 2 else None)
    line.draft.origins["user"] = line.origin


MISC: Table = {
    **TIMES,
    "misc_path": value("script", command),
    "misc_timeout": value("timeout", integer(0, _LONGEST_SCRIPT, "Invalid misc_timeout value '{word}'")),
    "misc_dynamic": flag("dynamic"),
    "user": Row(_user),
}


def close_misc(parser: Parser, draft: Draft) -> None:
    """A checker needs a script, its user has to exist; a script that cannot be run is none."""
    assert draft.parent is not None
    if draft.get("script") is None:
        tell(parser, draft, "No script path has been specified for MISC_CHECKER - skipping")
        return
    user, group = draft.get("user", (None, None))
    host = parser.host
    if (user is not None and not host.user(user)) or (group is not None and not host.group(group)):
        tell(
            parser,
            draft,
            f"Failed to set uid/gid for misc checker script {quoted(draft.get('script'))} - removing",
        )
    elif runnable(parser, misc_script(draft), draft):
        draft.parent.add("checks", draft)


def misc_script(draft: Draft) -> Script:
    """The script with the user of the checker's ``user``."""
    script: Script = draft.values["script"]
    return Script(script.arguments, *draft.get("user", (None, None)))


# -- FILE_CHECK and BFD_CHECK -------------------------------------------------------

_MOST_WEIGHT = 2**31 - 1


def _named(parser: Parser, room: str) -> Mapping[str, Any]:
    """The named blocks of a kind that have been read already: keepalived knows of no others."""
    found: Mapping[str, Any] = parser.top.get(room, {})
    return found


def _track_file(line: Line) -> str:
    if line.word() not in _named(line.parser, "files"):
        raise Refused(f"track_file {line.word()} not found")
    return line.word()


def _file_weight(line: Line) -> int:
    if len(line.words) < 2:
        raise Refused("track file weight missing")
    weight = number(line, line.words[1], -_MOST_WEIGHT, _MOST_WEIGHT)
    if weight is None:
        told = f"weight for track file must be in [-{_MOST_WEIGHT}..{_MOST_WEIGHT}] inclusive. Ignoring..."
        raise Refused(told)
    if len(line.words) > 2 and line.words[2] not in ("reverse", "noreverse"):
        raise Refused(f"unknown track file weight option {line.words[2]} - ignoring")
    return -weight if line.words[2:3] == ["reverse"] else weight


FILE: Table = {
    "track_file": value("track_file", _track_file),
    "weight": value("weight", _file_weight),
    "dynamic": flag("dynamic"),
}


def close_file(parser: Parser, draft: Draft) -> None:
    """A checker needs a file; without a weight of its own it has the file's."""
    assert draft.parent is not None
    name = draft.get("track_file")
    if name is None:
        tell(parser, draft, "FILE_CHECK has no track_file specified - ignoring")
        return
    if "weight" not in draft.values:
        tracked: TrackFile = _named(parser, "files")[name]
        draft.values["weight"] = -tracked.weight if tracked.reverse else tracked.weight
    draft.parent.add("checks", draft)


def _bfd_name(line: Line) -> str:
    server = _server_name(line.draft)
    if len(line.words) != 2:
        raise Refused(f"({server}) BFD_CHECK - No or too many names specified - skipping checker")
    name = line.words[1]
    if "name" in line.draft.values:
        line.draft.dropped = True
        raise Refused(f"({server}) BFD_CHECK - BFD {name} already specified as {line.draft.values['name']}")
    bfd = _named(line.parser, "bfds").get(name)
    if bfd is None or not bfd.checker:  # one for vrrp only is as good as none, as in keepalived
        raise Refused(f"({server}) BFD_CHECK - BFD {name} not configured")
    assert line.draft.parent is not None
    if any(
        each.kind == "BFD_CHECK" and each.get("name") == name for each in line.draft.parent.get("checks", [])
    ):
        raise Refused(f"({server}) BFD_CHECK - RS already monitoring {name}")
    return name


def _server_name(draft: Draft) -> str:
    return draft.parent.name if draft.parent is not None else ""


BFD: Table = {"name": value("name", _bfd_name), "alpha": ALPHA}


def close_bfd(parser: Parser, draft: Draft) -> None:
    """A checker needs a session."""
    assert draft.parent is not None
    if "name" in draft.values:
        draft.parent.add("checks", draft)
    else:
        told = f"({_server_name(draft)}) No name has been specified for BFD_CHECKER - skipping"
        tell(parser, draft, told)


# -- AGENT_CHECK --------------------------------------------------------------------


def _damping(line: Line) -> float:
    return decimal(
        line, line.word(), 0.000001, 1, "damping '{word}' must be more than 0 and at most 1 - ignoring"
    )


AGENT: Table = {**CONNECTION, "send": value("send", text), "damping": value("damping", _damping)}


def close_agent(parser: Parser, draft: Draft) -> None:
    """An agent has a port of its own: the service's would be asked in vain."""
    if "port" in draft.values:
        keep(parser, draft)
    else:
        tell(parser, draft, "AGENT_CHECK has no connect_port - ignoring")
