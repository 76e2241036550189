"""All health checks of one process, on one asyncio loop.

How the ``checkers`` child uses it::

    runner = Runner(report, label=...)      # in a running loop
    runner.set({key: check, ...}, files={"load": "/run/load"})   # at start and at each reload
    runner.pause(keys)                      # ha_suspend: all that are to rest, each time anew
    runner.bfd("name", up=True)             # what the bfd child says
    runner.status(key)                      # for `xlvs keepalived servers`
    runner.stop()

``key`` is anything hashable that names one check of one real server, the same after a reload as
before: (virtual server, address, port, number of the check), say. What all checks of a server come to
is :func:`xlvs.health.verdict.health`; quorum is :class:`xlvs.health.quorum.Quorum`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass

from xlvs.health.checks import AnyCheck
from xlvs.health.verdict import Verdict

Report = Callable[[Hashable, Verdict], None]


@dataclass(frozen=True, slots=True)
class Status:
    """One check as it stands. Times are of the loop's clock, in seconds."""

    verdict: Verdict
    ran: bool  # it has been asked, and has answered or failed, at least once
    attempts: int
    failures: int
    tries: int  # failures in a row that have not taken the server out (yet)
    changed: float  # when the verdict changed last
    due: float  # when it is asked next
    paused: bool
    last: str  # what the last attempt came to


class Runner:
    """Asks every check when it is due, and reports verdicts that differ from the one before.

    A check begins as up, or with ``alpha`` as down: read that with ``status(key).verdict`` after
    :meth:`set`. The first answer is reported whatever it is (keepalived's first notify), later
    ones only where ``up`` or the weighting changes. Reports come from the loop, never from inside
    :meth:`set`. ``label`` names a key in messages, as "[192.168.22.18]:tcp:80".
    """

    def __init__(self, report: Report, *, label: Callable[[Hashable], str] = str) -> None:
        raise NotImplementedError

    def set(self, checks: Mapping[Hashable, AnyCheck], files: Mapping[str, str] | None = None) -> None:
        """From now on these checks: the difference is worked out.

        An unchanged check keeps its verdict, tries and timers, undisturbed. A changed one is begun
        anew but keeps its verdict (and is asked within its warmup). A new one begins; one no longer
        there ends, whatever it is waiting for. ``files`` are paths of track files by name.
        """
        raise NotImplementedError

    def pause(self, keys: Collection[Hashable]) -> None:
        """Exactly these rest: they keep their verdict and ask nothing. Those that wake begin anew."""
        raise NotImplementedError

    def bfd(self, name: str, up: bool) -> None:
        """A BFD session went up or down: its checks say so."""
        raise NotImplementedError

    def status(self, key: Hashable) -> Status:
        """How a check stands. Raises KeyError where there is none."""
        raise NotImplementedError

    def stop(self) -> None:
        """End everything: sockets, timers, scripts. Nothing is reported afterwards."""
        raise NotImplementedError
