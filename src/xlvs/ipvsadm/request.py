"""What a command line asks for, once it is known to be legal."""

from __future__ import annotations

from dataclasses import dataclass

from xlvs.ipvsadm.options import BIT
from xlvs.model import Destination, Service, ServiceKey, SyncDaemon, Timeouts


@dataclass(slots=True)
class Request:
    """One command with its operands; those that the command does not have are None.

    ``options`` is the set of given options as bits of ``options.BIT``.
    """

    command: str
    options: int = 0
    key: ServiceKey | None = None
    service: Service | None = None
    destination: Destination | None = None
    timeouts: Timeouts | None = None
    daemon: SyncDaemon | None = None
    local_addresses: list[bytes] | None = None

    def has(self, column: str) -> bool:
        """Whether an option was given, by its name in the legality table."""
        return bool(self.options & BIT[column])


class Quit(Exception):
    """The command line ends here: nothing, or nothing more, is done.

    ``stdout`` and ``stderr`` are to be printed as they are. ``ends_restore`` is false
    for the few mistakes after which ``-R`` goes on with its next line.
    """

    def __init__(self, status: int, stdout: str = "", stderr: str = "", *, ends_restore: bool = True) -> None:
        super().__init__(stderr)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.ends_restore = ends_restore


def fail(message: str) -> Quit:
    """The real program's way to refuse a command line: one line, exit status 2."""
    return Quit(2, stderr=message + "\n")
