"""Scripts of virtual servers and checkers: their words, and whether they can be run here."""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.health.checks import Script
from xlvs.keepalived.config import STATUS_REFUSED, STATUS_SECURITY, Message
from xlvs.keepalived.global_rows import globals_of
from xlvs.keepalived.host import Host
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row
from xlvs.keepalived.values import script

_ROOT = ("root", "0")
_DEFAULT_USER = "keepalived_script"  # keepalived.conf(5): whose name scripts run in where nobody says
NAMELESS = f"Unable to set default user {_DEFAULT_USER} for script"


def command(line: Line) -> Script | None:
    """The line's script without a user, None where there is none."""
    found = script(line) if len(line.words) > 1 and line.words[1].strip() else None
    return Script(found.arguments) if found else None


def runnable(parser: Parser, found: Script, draft: Draft) -> bool:
    """Whether a script can be run here; keepalived goes on without one that cannot, and only logs it."""
    host = parser.host
    status = 0
    if nameless(parser, found):
        told, status = NAMELESS, STATUS_REFUSED
    elif not known(host, found):
        told = f"Invalid user or group for script {quoted(found)} - disabling"
    elif not host.program(found.arguments[0]):
        told = f"Disabling script {quoted(found)} since not found/accessible"
    else:
        return True
    parser.tell(Message(draft.origin, draft.kind, told, status=status))
    return False


def nameless(parser: Parser, found: Script) -> bool:
    """Whether security is asked for and nobody is there in whose name the script may run."""
    settings = globals_of(parser)
    named = found.user or settings.get("script_user") or parser.host.user(_DEFAULT_USER)
    return bool(settings.get("script_security")) and not named


def known(host: Host, found: Script) -> bool:
    """Whether there are the user and the group that the script names."""
    return (found.user is None or host.user(found.user)) and (found.group is None or host.group(found.group))


def quoted(found: Script | None) -> str:
    """A script's words, each in quotes."""
    return " ".join(f"'{argument}'" for argument in found.arguments) if found else "(none)"


def notified(name: str) -> Row:
    """``notify_up SCRIPT [USER [GROUP]]`` and its like: the first one counts."""

    def handle(line: Line) -> None:
        word = line.word()
        if name in line.draft.values:
            raise Refused(f"({line.draft.name}) {name} script already specified - ignoring {word}")
        if not word.strip():
            line.warn(f"{name}: no script given - ignoring", status=0)
            return
        found = script(line)
        if runnable(line.parser, found, line.draft):
            line.draft.values[name] = found
            line.draft.origins[name] = line.origin

    return Row(handle)


def security(parser: Parser, scripts: Iterable[Script | None]) -> None:
    """Tell where scripts are run as root that nobody has said may be."""
    settings = globals_of(parser)
    users = {found.user or settings.get("script_user") for found in scripts if found is not None}
    if users & {None, *_ROOT} and not settings.get("script_security"):
        told = "SECURITY VIOLATION - check scripts are being executed but script_security not enabled."
        parser.tell(Message(None, "", told, status=STATUS_SECURITY))


def commands(found: Script | None) -> Script | None:
    """A script in which ";" ends commands, as in FULLNAT's files: each runs after the one before it."""
    if found is None or not any(";" in argument for argument in found.arguments):
        return found
    parts: list[list[str]] = [[]]
    for argument in found.arguments:
        pieces = argument.split(";")
        for at, piece in enumerate(pieces):
            if at:
                parts.append([])
            if piece:
                parts[-1].append(piece)
    whole: Script | None = None
    for part in reversed([part for part in parts if part]):
        whole = Script(tuple(part), found.user, found.group, then=whole)
    return whole
