"""The kernel's connection synchronisation: lvs_sync_daemon, and the older word of an instance."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.config import SyncDaemons
from xlvs.keepalived.schema import Line, Parser, Refused
from xlvs.keepalived.values import number, parse_address

_RANGES = {"id": (0, 255), "maxlen": (1, 65507), "port": (1, 65535), "ttl": (1, 255)}
_OPTIONS = (*_RANGES, "group")


def sync_daemon(line: Line) -> SyncDaemons:
    """``lvs_sync_daemon INTERFACE [[inst] NAME] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]``."""
    known = line.draft.get("lvs_sync_daemon")
    if known:
        names = f"{known.interface} {known.instance}"
        raise Refused(f"lvs_sync_daemon has already been specified as {names} - ignoring")
    if len(line.words) < 2:
        raise Refused("lvs_sync_daemon requires interface")
    fields: dict[str, Any] = {"interface": line.words[1]}
    words = line.words[2:]
    if words and words[0] not in (*_OPTIONS, "inst"):
        fields["instance"] = words.pop(0)
        if words and words[0].isdecimal():
            line.warn('Please use keyword "id" before lvs_sync_daemon SYNCID')
            words.insert(0, "id")
    while words:
        word = words.pop(0)
        if word not in (*_OPTIONS, "inst"):
            line.warn(f"Unknown option {word} specified for lvs_sync_daemon")
        elif not words:
            line.warn(f"No value specified for lvs_sync_daemon {word} - ignoring")
        else:
            _option(line, fields, word, words.pop(0))
    return SyncDaemons(**fields)


def _option(line: Line, fields: dict[str, Any], word: str, text: str) -> None:
    if word == "inst":
        known = fields.setdefault("instance", text)
        if known is not text:
            line.warn(f"lvs_sync_daemon vrrp instance has already been specified as {known} - ignoring")
    elif word == "group":
        address = parse_address(text)
        if address is None:
            line.warn(f"Invalid lvs_sync_daemon group ({text}) - ignoring")
        elif not address.is_multicast:
            line.warn(f"lvs_sync_daemon group address {text} is not multicast - ignoring")
        else:
            fields["group"] = address
    elif (value := number(line, text, *_RANGES[word])) is not None:
        fields[word] = value
    elif word == "id":
        line.warn(f"Invalid syncid ({text}) - defaulting to vrid")
    else:
        line.warn(f"Invalid lvs_sync_daemon {word} ({text}) - ignoring")


def of_instance(line: Line) -> None:
    """``lvs_sync_daemon_interface INTERFACE`` of an instance: the first counts, and global_defs more."""
    name = line.draft.name
    line.warn(f"({name}) Specifying lvs_sync_daemon_interface against a vrrp is deprecated.")
    line.warn("        Please use global lvs_sync_daemon")
    interface, values = line.word(), line.parser.top.values
    if "sync_daemon" in values:
        known = values["sync_daemon"].interface
        line.warn(f"({name}) lvs_sync_daemon_interface has already been specified as {known} - ignoring")
    else:
        # Its messages have no id of the instance's (seen).
        values["sync_daemon"] = SyncDaemons(interface, name, id=0)


def chosen(parser: Parser, values: dict[str, Any]) -> SyncDaemons | None:
    """What there is of both, from the values of global_defs."""
    found: SyncDaemons | None = values.get("lvs_sync_daemon") or parser.top.values.get("sync_daemon")
    return found
