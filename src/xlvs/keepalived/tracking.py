"""vrrp_script, track_file, track_process, and the lists in which instances and groups name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlvs.health.checks import Script
from xlvs.keepalived.config import Tracked, TrackFile, TrackProcess, TrackScript
from xlvs.keepalived.schema import Draft, Handler, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.scripts import NAMELESS, nameless
from xlvs.keepalived.values import decimal, escaped, number, script

INTEGERS = (-(2**31), 2**31 - 1)


# -- the lists ----------------------------------------------------------------------

# What is tracked: field, word of messages, least and most weight, message about the weight.
_KINDS = {
    "track_interface": ("track_interfaces", 253),
    "track_script": ("track_scripts", 253),
    "track_file": ("track_files", 254),
    "track_process": ("track_processes", 254),
    "track_bfd": ("track_bfds", 253),
}


def tracked(kind: str) -> Row:
    """``track_*  { NAME [weight N [reverse|noreverse]] ... }`` of an instance or a group."""
    name, limit = _KINDS[kind]

    def handle(line: Line) -> None:
        line.draft.values.setdefault(name, [])
        line.draft.origins[name] = line.origin
        for entry in line.parser.entries(line):
            found = _tracked(entry, kind, limit)
            if found is None:
                continue
            if any(other.name == found.name for other in line.draft.values[name]):
                entry.warn(f"({line.draft.name}) duplicate {kind} {found.name} - ignoring")
            else:
                line.draft.add(name, found)
                line.draft.add("named", (kind, found.name, entry.origin))

    return Row(handle)


def _tracked(entry: Line, kind: str, limit: int) -> Tracked | None:
    """The entry; one with an unknown option, or a weight of nothing, is not tracked at all."""
    name, words = entry.words[0], entry.words[1:]
    where = f"({entry.draft.name})"
    shown = kind if kind == "track_interface" else kind.replace("_", " ")
    if not words:
        return Tracked(name)
    if words[0] != "weight":
        entry.warn(f"{where} unknown {shown} {name} option {words[0]} - ignoring")
        return None
    if len(words) < 2:
        entry.warn(f"{where} weight without value specified for {shown} {name} - ignoring")
        return None
    weight = number(entry, words[1], -254, 254)
    if weight is None or (kind == "track_bfd" and abs(weight) > limit):
        entry.warn(
            f"{where} weight {words[1]} for {name} must be between [-{limit}..{limit}] inclusive. Ignoring..."
        )
        return Tracked(name)
    if abs(weight) > limit:
        entry.warn(f"{where} weight for {name} cannot be +/-254. Setting to +/-253")
        weight = 253 if weight > 0 else -253
    if len(words) < 3:
        return Tracked(name, weight)
    if words[2] in ("reverse", "noreverse"):
        return Tracked(name, weight, words[2] == "reverse")
    entry.warn(f"{where} unknown {shown} {name} weight option {words[2]} - ignoring")
    return None if kind in ("track_file", "track_bfd") else Tracked(name, weight)


TRACKED: dict[str, Row] = {kind: tracked(kind) for kind in _KINDS}


# -- weights ------------------------------------------------------------------------


def weight(low: int, high: int, refusal: str, unknown: str, missing: str = "") -> Row:
    """``weight N [reverse]``: fields ``weight`` and ``reverse``; the texts are formats of name and word.

    Without ``missing`` a weight without its number refuses the configuration.
    """

    def handle(line: Line) -> None:
        if len(line.words) < 2 and missing:
            raise Refused(missing.format(name=line.draft.name))
        if missing and "weight" in line.draft.values:
            what = line.draft.kind.removeprefix("vrrp_").replace("_", " ")
            raise Refused(f"Weight already set for {what} {line.draft.name} - ignoring {line.words[1]}")
        found = number(line, line.word(), low, high)
        if found is None:
            line.warn(refusal.format(name=line.draft.name, word=line.word()))
        else:
            line.draft.values["weight"] = found
            line.draft.origins["weight"] = line.origin
        if len(line.words) > 2:
            if line.words[2] == "reverse":
                line.draft.values["reverse"] = True
            elif found is not None or missing or line.draft.kind == "bfd_instance":
                line.warn(unknown.format(name=line.draft.name, word=line.words[2]))

    return Row(handle)


def _named(kind: str) -> Callable[[Line], Draft]:
    """Opens the draft of a named block; of two with one name the first counts."""

    def open_(line: Line) -> Draft:
        return Draft(kind, line.word())

    return open_


# -- vrrp_script --------------------------------------------------------------------


def _counted(field: str, low: int, high: int, refusal: str) -> Row:
    def kind(line: Line) -> float:
        found = number(line, line.word(), low, high)
        if found is None:
            raise Refused(refusal.format(name=line.draft.name, word=line.word()))
        if found == 0 and field in ("interval", "timeout"):
            line.warn(f"({line.draft.name}): vrrp script {field} must be greater than 0, setting to 1")
            return 1
        return found

    return value(field, kind)


def _script(line: Line) -> None:
    if len(line.words) > 1:
        line.draft.values["script"] = Script(script(line).arguments)
        line.draft.origins["script"] = line.origin


def _script_user(line: Line) -> None:
    user, group = line.word(), line.words[2] if len(line.words) > 2 else None
    host = line.parser.host
    if not host.user(user) or (group is not None and not host.group(group)):
        arguments = line.draft.get("script")
        line.draft.dropped = True
        raise Refused(
            f"Unable to set uid/gid for script '{' '.join(arguments.arguments) if arguments else ''}'"
        )
    line.draft.values["user"] = (user, group)


def _close_script(parser: Parser, draft: Draft) -> None:
    found: Script | None = draft.values.pop("script", None)
    user, group = draft.values.pop("user", (None, None))
    if found is None:
        parser.warn(draft, f"No script set for vrrp_script {draft.name} - removing")
        return
    found = Script(found.arguments, user or found.user, group or found.group)
    if nameless(parser, found):
        parser.warn(draft, NAMELESS)
        parser.warn(draft, f"Unable to set default user for vrrp script {draft.name} - removing")
        return
    entry = TrackScript(draft.name, found, origins=draft.origins, **draft.values)
    parser.top.values.setdefault("scripts", {}).setdefault(draft.name, entry)


_MOST_SECONDS = 4294  # microseconds of 32 bits, the way keepalived keeps them

SCRIPT: Table = {
    "script": Row(_script),
    "interval": _counted(
        "interval",
        0,
        _MOST_SECONDS,
        f"({{name}}): vrrp script interval '{{word}}' must be between 1 and {_MOST_SECONDS} - ignoring",
    ),
    "timeout": _counted(
        "timeout", 0, _MOST_SECONDS, "({name}): vrrp script timeout '{word}' invalid - ignoring"
    ),
    "weight": weight(
        -253,
        253,
        "vrrp_script {name} weight {word} must be in [-253, 253]",
        "vrrp_script {name} unknown weight option {word}",
    ),
    "rise": _counted(
        "rise", 1, INTEGERS[1], "({name}): vrrp script rise value '{word}' invalid, defaulting to 1"
    ),
    "fall": _counted(
        "fall", 1, INTEGERS[1], "({name}): vrrp script fall value '{word}' invalid, defaulting to 1"
    ),
    "user": Row(_script_user),
    "init_fail": flag("init_fail"),
}


# -- track_file ---------------------------------------------------------------------


def _file(line: Line) -> str:
    if len(line.words) < 2:
        raise Refused("track file file name missing")
    if "file" in line.draft.values:
        raise Refused(f"File already set for track file {line.draft.name} - ignoring {line.word()}")
    return escaped(line)


def _init_file(line: Line) -> None:
    line.draft.values["init"] = 0
    for word in line.words[1:]:
        if word == "overwrite":
            line.draft.values["init_overwrite"] = True
        elif word[0] in "+-.0123456789":
            found = number(line, word, *INTEGERS)
            if found is None:
                line.warn(f"Track file {line.draft.name} init value {word} is invalid")
                continue
            line.draft.values["init"] = found
            if abs(found) > 254:
                line.warn(
                    f"Track file {line.draft.name} init value {found} is outside sensible range [-254, 254]"
                )
        else:
            line.warn(f"Unknown track file init option {word}")


def _close_file(parser: Parser, draft: Draft) -> None:
    if not draft.get("file"):
        parser.warn(draft, f"No file set for track_file {draft.name} - ignoring")
        return
    entry = TrackFile(draft.name, origins=draft.origins, **draft.values)
    parser.top.values.setdefault("files", {}).setdefault(draft.name, entry)


FILE: Table = {
    "file": value("file", _file),
    "weight": weight(
        -254,
        254,
        "Weight ({word}) for track_file {name} must be between [-254..254] inclusive. Ignoring...",
        "track_file {name} unknown weight option {word}",
        "No weight specified for track file {name} - ignoring",
    ),
    "init_file": Row(_init_file),
}


# -- track_process ------------------------------------------------------------------


def _process(line: Line) -> tuple[str, ...]:
    if "process" in line.draft.values:
        raise Refused(f"Process already set for track process {line.draft.name} - ignoring {line.word()}")
    line.word()
    return tuple(line.words[1:])


def _match(line: Line) -> str:
    found = line.words[1] if len(line.words) > 1 else ""
    if found not in ("", "initial", "partial"):
        raise Refused(f"Invalid param_match type {found} - ignoring")
    return found


def _quorum(field: str, low: int, refusal: str) -> Row:
    def kind(line: Line) -> int:
        found = number(line, line.word(), low, 65535)
        if found is None:
            raise Refused(refusal.format(name=line.draft.name, word=line.word()))
        quorum = found if field == "quorum" else line.draft.get("quorum", 1)
        most = found if field == "quorum_max" else line.draft.get("quorum_max")
        if most is not None and quorum > most and "quorum" in line.draft.values | {field: 0}:
            if field == "quorum":
                raise Refused("Quorum is greater than quorum_max - ignoring")
            if "quorum" in line.draft.values:
                raise Refused("quorum_max is less than quorum - ignoring")
        return found

    return value(field, kind)


def _delay(fields: tuple[str, ...]) -> Handler:
    def handle(line: Line) -> None:
        prefix = "" if len(fields) > 1 else fields[0].removesuffix("delay")
        found = decimal(
            line,
            line.word(),
            0.000001,
            3600,
            f"{prefix}delay ({{word}}) for vrrp_track_process {{block}} "
            "must be between [0.000001..3600] inclusive. Ignoring...",
        )
        line.draft.values.update(dict.fromkeys(fields, found))

    return handle


def _close_process(parser: Parser, draft: Draft) -> None:
    if not draft.get("process"):
        parser.warn(draft, f"track process '{draft.name}' process name not specified")
        return
    if draft.get("quorum_max") == 0:
        draft.values.setdefault("quorum", 0)
    entry = TrackProcess(draft.name, origins=draft.origins, **draft.values)
    parser.top.values.setdefault("processes", {}).setdefault(draft.name, entry)


PROCESS: Table = {
    "process": value("process", _process),
    "param_match": value("param_match", _match),
    "weight": weight(
        -254,
        254,
        "Weight ({word}) for vrrp_track_process {name} must be between [-254..254] inclusive. Ignoring...",
        "vrrp_track_process {name} unknown weight option {word}",
        "No weight specified for track process {name} - ignoring",
    ),
    "quorum": _quorum(
        "quorum",
        1,
        "Quorum ({word}) for vrrp_track_process {name} must be between [1..65535] inclusive. Ignoring...",
    ),
    "quorum_max": _quorum(
        "quorum_max",
        0,
        "quorum_max ({word}) for vrrp_track_process {name} must be between [0..65535] inclusive. Ignoring...",
    ),
    "delay": Row(_delay(("fork_delay", "terminate_delay"))),
    "fork_delay": Row(_delay(("fork_delay",))),
    "terminate_delay": Row(_delay(("terminate_delay",))),
    "full_command": flag("full_command"),
}

_FILE_BLOCK = block(FILE, _named("track_file"), _close_file)


TOP: Table = {
    "vrrp_script": block(SCRIPT, _named("vrrp_script"), _close_script),
    "track_file": _FILE_BLOCK,
    "vrrp_track_file": _FILE_BLOCK,
    "vrrp_track_process": block(PROCESS, _named("vrrp_track_process"), _close_process),
}


def finish(parser: Parser) -> dict[str, Any]:
    """The fields of Config that come from here."""
    return {
        name: tuple(parser.top.values.get(name, {}).values()) for name in ("scripts", "files", "processes")
    }
