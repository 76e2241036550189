"""Where messages go: the console, syslog or a file, each process under its own name."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from dataclasses import dataclass

from xlvs.errors import XlvsError

# What keepalived's processes are called in syslog; "" is the parent.
IDENTS = {
    "": "Keepalived",
    "vrrp": "Keepalived_vrrp",
    "checkers": "Keepalived_healthcheckers",
    "bfd": "Keepalived_bfd",
}
# What they add to the name of a log file.
_SUFFIXES = {"": "", "vrrp": "_vrrp", "checkers": "_healthcheckers", "bfd": "_bfd"}
_FACILITIES = {
    "daemon": logging.handlers.SysLogHandler.LOG_DAEMON,
    "user": logging.handlers.SysLogHandler.LOG_USER,
    **{f"local{number}": logging.handlers.SysLogHandler.LOG_LOCAL0 + number for number in range(8)},
}
_SYSLOG = "/dev/log"


@dataclass(frozen=True, slots=True)
class Logs:
    """What the command line says of messages."""

    console: bool = False
    detail: bool = False
    facility: str = "daemon"
    file: str | None = None
    no_syslog: bool = False


class _Dated(logging.Formatter):
    """ "Fri Nov 20 16:38:06 2026: text", as on keepalived's console."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(record.created))
        text = f"{when}: {super().format(record)}"
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def facility(name: str) -> str:
    """A facility's name from -S: 0 to 7, local0 to local7, user or daemon."""
    text = f"local{name}" if name.isdecimal() else name
    if text not in _FACILITIES:
        raise XlvsError(f"Invalid log facility '{name}'")
    return text


def set_up(logs: Logs, process: str = "") -> None:
    """Let this process's messages go where they are wanted."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)  # what libraries say of their insides is not for operators
    logging.getLogger("xlvs").setLevel(logging.DEBUG if logs.detail else logging.INFO)
    dated = _Dated()
    if logs.console:
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(dated)
        root.addHandler(console)
    if logs.file:
        name, dot, suffix = logs.file.rpartition(".")
        own = f"{name}{_SUFFIXES[process]}{dot}{suffix}" if name else f"{logs.file}{_SUFFIXES[process]}"
        file = logging.FileHandler(own, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(dated)
        root.addHandler(file)
    if not (logs.console or logs.no_syslog) and os.path.exists(_SYSLOG):
        syslog = logging.handlers.SysLogHandler(_SYSLOG, facility=_FACILITIES[logs.facility])
        syslog.ident = f"{IDENTS[process]}[{os.getpid()}]: "
        root.addHandler(syslog)
    if not root.handlers:
        root.addHandler(logging.NullHandler())
