"""The same paths through xlvs's programs, by BPF_PROG_TEST_RUN."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.packet.director import Director, Server
from tests.packet.sctp import SCTP, Association, chunk
from xlvs.dataplane import layout
from xlvs.model import Forward

VIP, CLIENT, RIP = "10.80.0.1", "198.18.0.1", "10.19.0.11"
_METHODS = {"nat": Forward.MASQ, "dr": Forward.ROUTE}


@dataclass(frozen=True)
class Outcome:
    """A connection after a path, and what its destination counts."""

    state: str
    seconds: int
    active: int
    inactive: int


class Programs:
    """A director of its own, for as long as the block lasts."""

    def __enter__(self) -> Programs:
        self._director = Director()
        return self

    def __exit__(self, *_: object) -> None:
        self._director.close()

    def state_after(self, method: str, path: Iterable[str]) -> str:
        return self.outcome(method, path).state

    def outcome(self, method: str, path: Iterable[str]) -> Outcome:
        """Play a path from the very beginning."""
        director = self._director
        director.reset()
        settings = director.tables.settings
        settings.sysctl.sloppy_sctp = 1
        director.service(VIP, SCTP, [Server(RIP, method=_METHODS[method])])
        for step in path:
            side, name = step.split()
            ends = (CLIENT, VIP, 40000, 80) if side == "in" else (RIP, CLIENT, 80, 40000)
            director.exchange(Association(*ends, chunks=chunk(name)).frame())
        (conn,) = director.connections()
        seconds = conn.timeout // settings.hz
        return Outcome(layout.SCTP_STATES[conn.state & 15], seconds, *director.loads(RIP))
