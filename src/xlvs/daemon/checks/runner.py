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

import logging
import math
import random
import ssl
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass

from xlvs.daemon.checks import messages
from xlvs.daemon.checks.attempts import Attempt, begin
from xlvs.daemon.checks.events import Events, Timer
from xlvs.daemon.checks.files import Watcher
from xlvs.daemon.checks.sockets import allow_many
from xlvs.daemon.checks.tls import Credentials, context
from xlvs.health import files as file_check
from xlvs.health.agent import Agent
from xlvs.health.answers import Answer
from xlvs.health.checker import Checker, fraction
from xlvs.health.checks import AgentCheck, AnyCheck, BfdCheck, FileCheck, HttpCheck
from xlvs.health.verdict import Verdict

Report = Callable[[Hashable, Verdict], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """One check as it stands. Times are of the loop's clock, in seconds."""

    verdict: Verdict
    ran: bool  # it has been asked, and has answered or failed, at least once
    attempts: int
    failures: int
    tries: int  # failures in a row that have not taken the server out (yet)
    changed: float  # when the verdict changed last
    due: float  # when it is asked next; infinity for what is not asked (files, BFD) or rests
    paused: bool
    last: str  # what the last attempt came to


@dataclass(slots=True)
class Lateness:
    """How much later than due checks were asked: the director's own load."""

    asked: int = 0
    total: float = 0.0
    worst: float = 0.0

    def add(self, late: float) -> None:
        """One check was asked this many seconds after its time."""
        self.asked += 1
        self.total += late
        if late > self.worst:
            self.worst = late


class _Entry:
    """A check with all that belongs to it."""

    __slots__ = ("agent", "attempt", "changed", "check", "checker", "key", "paused", "place", "timer")

    def __init__(self, key: Hashable, check: AnyCheck, place: float, now: float) -> None:
        self.key, self.check, self.place = key, check, place
        steps, fast = (len(check.urls), check.fast_recovery) if isinstance(check, HttpCheck) else (0, False)
        self.checker = Checker(check, now, place, steps=steps, fast=fast)
        self.agent = Agent(check.damping) if isinstance(check, AgentCheck) else None
        self.attempt: Attempt | None = None
        self.timer: Timer | None = None
        self.paused = False
        self.changed = now

    @property
    def told(self) -> bool:
        """Others tell what it says: it is never asked."""
        return isinstance(self.check, FileCheck | BfdCheck)

    def rest(self) -> None:
        """Ask nothing, and wait for nothing."""
        if self.attempt is not None:
            self.attempt.close()
        if self.timer is not None:
            self.timer.cancel()
        self.attempt = self.timer = None


class Runner:
    """Asks every check when it is due, and reports verdicts that differ from the one before.

    A check begins as up, or with ``alpha`` as down: read that with ``status(key).verdict`` after
    :meth:`set`. The first answer is reported whatever it is (keepalived's first notify), later
    ones only where ``up`` or the weighting changes. Reports come from the loop, never from inside
    :meth:`set`. ``label`` names a key in messages, as "[192.168.22.18]:tcp:80". ``secure`` is
    script_security; ``log_all`` checker_log_all_failures. All three, and ``credentials``, may be
    set again at a reload.
    """

    def __init__(
        self,
        report: Report,
        *,
        label: Callable[[Hashable], str] = str,
        credentials: Credentials | None = None,
        secure: bool = False,
        log_all: bool = False,
    ) -> None:
        self._report = report
        self.label, self.secure, self.log_all = label, secure, log_all
        self.lateness = Lateness()
        self._credentials = credentials or Credentials()
        self._tls: ssl.SSLContext | None = None
        self._events = Events()
        self._files = Watcher(self._events, self._file_changed)
        self._entries: dict[Hashable, _Entry] = {}
        self._numbers: dict[float, int] = defaultdict(int)  # of checks that began, by interval
        self._start = random.random()  # two directors do not ask in step
        self._sessions: dict[str, bool] = {}  # BFD

    # -- what the child calls -----------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """The SSL block. Setting it reads its files again, though their names may be the same.

        Raises XlvsError, and changes nothing, where one is no good.
        """
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        made = context(credentials) if credentials != Credentials() else None
        self._credentials, self._tls = credentials, made

    def set(self, checks: Mapping[Hashable, AnyCheck], files: Mapping[str, str] | None = None) -> None:
        """From now on these checks: the difference is worked out.

        An unchanged check keeps its verdict, tries and timers, undisturbed. A changed one is begun
        anew but keeps its verdict (and is asked within its warmup). A new one begins; one no longer
        there ends, whatever it is waiting for. ``files`` are paths of track files by name.
        """
        allow_many(2 * len(checks))
        read = self._files.set(files or {})
        for key in [key for key in self._entries if key not in checks]:
            self._entries.pop(key).rest()
        for key, check in checks.items():
            before = self._entries.get(key)
            if before is None or before.check != check:
                self._entries[key] = self._began(key, check, before)
            elif isinstance(check, FileCheck) and check.track_file in read:
                self._schedule(before)  # its file is another one now

    def pause(self, keys: Collection[Hashable]) -> None:
        """Exactly these rest: they keep their verdict and ask nothing. Those that wake begin anew."""
        for key, entry in self._entries.items():
            if key in keys:
                entry.paused = True
                entry.rest()
            elif entry.paused:
                entry.paused = False
                entry.checker.begin(self._events.now(), entry.place)
                self._schedule(entry)

    def bfd(self, name: str, up: bool) -> None:
        """A BFD session went up or down: its checks say so."""
        self._sessions[name] = up
        for entry in [*self._entries.values()]:
            if isinstance(entry.check, BfdCheck) and entry.check.name == name:
                self._tell(entry)

    def status(self, key: Hashable) -> Status:
        """How a check stands. Raises KeyError where there is none."""
        entry = self._entries[key]
        checker = entry.checker
        due = math.inf if entry.told or entry.paused else checker.due
        counts = (checker.attempts, checker.failures, checker.tries)
        return Status(checker.verdict, checker.ran, *counts, entry.changed, due, entry.paused, checker.text)

    def stop(self) -> None:
        """End everything: sockets, timers, scripts. Nothing is reported afterwards."""
        for entry in self._entries.values():
            entry.rest()
        self._entries.clear()
        self._events.close()

    # -- what happens between -----------------------------------------------------------

    def _began(self, key: Hashable, check: AnyCheck, before: _Entry | None) -> _Entry:
        now = self._events.now()
        if before is not None:
            before.rest()
        number = self._numbers[check.interval]
        self._numbers[check.interval] += 1
        entry = _Entry(key, check, fraction(number, self._start), now)
        if before is not None:
            entry.changed, entry.paused = before.changed, before.paused
            entry.checker.inherit(before.checker, alike=type(before.check) is type(check))
            if alike_agents(before.agent, entry.agent):
                entry.agent = before.agent
        if not entry.paused:
            self._schedule(entry)
        return entry

    def _schedule(self, entry: _Entry) -> None:
        """Ask it when it is due; what is told, at once."""
        if entry.told:
            entry.timer = self._events.at(self._events.now(), lambda: self._tell(entry))
        else:
            entry.timer = self._events.at(entry.checker.due, lambda: self._ask(entry))

    def _ask(self, entry: _Entry) -> None:
        now = self._events.now()
        self.lateness.add(now - entry.checker.due)
        try:
            entry.attempt = begin(
                self._events,
                entry.check,
                lambda answer: self._answered(entry, answer),
                step=entry.checker.step,
                before=entry.checker.verdict.weighting,
                agent=entry.agent,
                tls=self._context,
                secure=self.secure,
            )
        except Exception as error:
            # No room in the kernel, no good name: whatever it is, the check must be asked again.
            self._answered(entry, Answer(False, f"cannot ask: {error}", asked=False))

    def _answered(self, entry: _Entry, answer: Answer) -> None:
        entry.attempt = None
        checker, check = entry.checker, entry.check
        first = not checker.ran
        was_up, tries, before = checker.verdict.up, checker.tries, checker.text
        fresh = checker.answered(answer, self._events.now())
        self._schedule(entry)
        if not answer.asked and answer.text != before:
            log.warning("%s: %s. Rescheduling.", self.label(entry.key), answer.text)
        elif answer.asked and not answer.ok and was_up and (self.log_all or check.log_all_failures):
            text = messages.failed(check, self.label(entry.key), answer.text, tries, fresh)
            if text:
                log.info("%s", text)
        if fresh:
            self._turned(entry, first)

    def _turned(self, entry: _Entry, first: bool) -> None:
        verdict = entry.checker.verdict
        entry.changed = self._events.now()
        where = self.label(entry.key)
        log.info("%s", messages.turned(entry.check, where, verdict.up, verdict.text, first=first))
        self._report(entry.key, verdict)

    def _tell(self, entry: _Entry) -> None:
        """Let a check that is told hear what its file or session says now, if anything yet."""
        check = entry.check
        if isinstance(check, FileCheck) and check.track_file in self._files.values:
            answer = file_check.answer(check, self._files.values[check.track_file])
        elif isinstance(check, BfdCheck) and check.name in self._sessions:
            up = self._sessions[check.name]
            answer = Answer(up, f"BFD session {check.name} is {'up' if up else 'down'}")
        else:
            return
        first = not entry.checker.ran
        if not entry.paused and entry.checker.told(answer):
            self._turned(entry, first)

    def _file_changed(self, name: str) -> None:
        for entry in [*self._entries.values()]:
            if isinstance(entry.check, FileCheck) and entry.check.track_file == name:
                self._tell(entry)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = context(self._credentials)
        return self._tls


def alike_agents(before: Agent | None, now: Agent | None) -> bool:
    """Whether what an agent has said goes on counting after its check was changed."""
    return before is not None and now is not None and before.damping == now.damping
