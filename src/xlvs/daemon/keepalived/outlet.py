"""Where a child's messages to the world go: log, scripts, fifos and mail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from xlvs.daemon.keepalived import mail, pool, scripts
from xlvs.daemon.keepalived.fifo import NotifyFifo
from xlvs.daemon.tasks import Tasks
from xlvs.health.checks import Script
from xlvs.keepalived.config import Fifo, Global

_TURN = 2.0  # seconds that a script waits for the one before it

log = logging.getLogger(__name__)


class Outlet:
    """Carries out a pool's actions, in their order, without waiting for any.

    Scripts of one server run one after the other, that the last may have the last word (a VIP is added
    by quorum_up, deleted by quorum_down). One that takes its time is not waited for.
    """

    def __init__(self, settings: Global) -> None:
        self._settings = settings
        self._fifos: dict[Fifo, tuple[NotifyFifo, asyncio.Task[int] | None]] = {}
        self._tasks = Tasks()
        self._last: dict[str, asyncio.Task[int]] = {}  # the last script of each server, while it runs
        self.configure(settings)

    def configure(self, settings: Global) -> None:
        """After a reload: fifos that stay are left alone, with the scripts that read them."""
        self._settings = settings
        # The global fifo's script is the parent's, for vrrp writes there, too.
        wanted = [Fifo(settings.fifo.path)] if settings.fifo else []
        if settings.lvs_fifo and settings.lvs_fifo.path not in [each.path for each in wanted]:
            wanted.append(settings.lvs_fifo)
        for fifo in [each for each in self._fifos if each not in wanted]:
            self._close(fifo)
        for fifo in wanted:
            if fifo not in self._fifos:
                made = NotifyFifo(fifo.path)
                reader = self._tasks.start(self._run(fifo.script, fifo.path)) if fifo.script else None
                self._fifos[fifo] = (made, reader)

    def act(self, actions: Iterable[pool.Action]) -> None:
        """Say, run, tell and send."""
        for action in actions:
            match action:
                case pool.Say(text):
                    log.info("%s", text)
                case pool.Call(script, whose):
                    task = self._tasks.start(self._run_after(self._last.get(whose), script))
                    self._last[whose] = task
                    task.add_done_callback(partial(self._ran, whose))
                case pool.Tell(line):
                    for fifo, _ in self._fifos.values():
                        fifo.tell(line)
                case pool.Mail(subject, body):
                    settings = self._settings
                    self._tasks.start(mail.send(settings.mail, settings.router_id, subject, body))

    async def close(self, patience: float = 5.0) -> None:
        """Let scripts and mails that are under way come to their end, then close the fifos."""
        readers = {reader for _, reader in self._fifos.values() if reader}
        pending = self._tasks - readers
        if pending:
            await asyncio.wait(pending, timeout=patience)
        for fifo in list(self._fifos):
            self._close(fifo)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _close(self, fifo: Fifo) -> None:
        made, reader = self._fifos.pop(fifo)
        if reader:
            reader.cancel()
        made.close()

    def _ran(self, whose: str, task: asyncio.Task[int]) -> None:
        if self._last.get(whose) is task:
            del self._last[whose]

    async def _run_after(self, before: asyncio.Task[int] | None, script: Script) -> int:
        if before:
            await asyncio.wait((before,), timeout=_TURN)
        return await self._run(script)

    async def _run(self, script: Script, *arguments: str) -> int:
        return await scripts.run(script, *arguments, secure=self._settings.script_security)
