"""A child as its parent sees it: started, asked, started again when it died, stopped."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from xlvs.daemon.keepalived import channel, pidfile, process
from xlvs.daemon.keepalived.channel import Kind
from xlvs.daemon.keepalived.child import Event
from xlvs.daemon.tasks import Tasks
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config

# keepalived's names of its processes, in its messages.
TITLES = {"vrrp": "VRRP", "checkers": "Healthcheck", "bfd": "BFD"}
_SETTLED = 5.0  # seconds that a child must have lived to be started again at once
_LONGEST = 30.0  # seconds between two attempts to start one that dies again and again
_PATIENCE = 20.0  # seconds for an answer, and for an end

log = logging.getLogger(__name__)


class Kept:
    """The process of one child.

    ``command`` makes its command line from the number of the descriptor that it is given.
    ``heard`` is called with its events, ``ended`` when it died and is not started again: without
    ``respawn``, or because it cannot begin at all. ``known`` is what siblings told before it began.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        pid_path: str,
        heard: Callable[[str, Event], None],
        ended: Callable[[str], None],
        *,
        respawn: bool = True,
        known: Callable[[], Iterable[Event]] = tuple,
    ) -> None:
        self.name = name
        self._command = command
        self._pid_path = pid_path
        self._heard = heard
        self._ended = ended
        self._respawn = respawn
        self._known = known
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._config = Config()
        self._stopping = False
        self._begun = 0.0
        self._delay = 0.0
        self._ever_ready = False
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[dict[str, object]]] = {}
        self.ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._again: asyncio.TimerHandle | None = None
        self._tasks = Tasks()

    @property
    def title(self) -> str:
        """keepalived's name of it."""
        return TITLES[self.name]

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._process.pid if self._process else None

    async def start(self, config: Config) -> None:
        """Start the process and give it its configuration."""
        self._config = config
        self._gone.clear()
        self.ready.clear()
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    self._command(number), pass_fds=(number,), stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        self._begun = time.monotonic()
        log.info("Starting %s child process, pid=%d", self.title, self._process.pid)
        try:
            pidfile.write(self._pid_path, self._process.pid)
        except OSError as error:
            log.error("%s: %s: it does not say which process runs", self._pid_path, error.strerror)
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(self._process.pid)
        loop.add_reader(descriptor, self._died, descriptor)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        for event in list(self._known()):  # first: it begins with the configuration
            self.post(event)
        self._writer.write(channel.config_frame(config))
        self._tasks.start(self._listen(reader))

    def reload(self, config: Config) -> None:
        """Give it another configuration; ``ready`` says when that is at work."""
        self._config = config
        self.ready.clear()
        if self._writer:
            self._writer.write(channel.config_frame(config))

    def post(self, event: Event) -> None:
        """Tell it what a sibling told."""
        if self._writer and self._process:
            self._writer.write(channel.json_frame(Kind.EVENT, event))

    async def ask(self, request: Mapping[str, object]) -> dict[str, object]:
        """Its answer to a request; raises :class:`XlvsError` where there is none."""
        if self._writer is None or self._process is None:
            raise XlvsError(f"the {self.title} process does not run")
        number = next(self._numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self._writer.write(channel.json_frame(Kind.ASK, {"id": number, "request": dict(request)}))
        try:
            return await asyncio.wait_for(answer, _PATIENCE)
        except TimeoutError:
            raise XlvsError(f"the {self.title} process does not answer") from None
        finally:
            self._questions.pop(number, None)

    async def stop(self) -> None:
        """Let it clean up, and wait for its end; after a while without."""
        self._stopping = True
        if self._again:
            self._again.cancel()
        if self._process and self._writer:
            with suppress(ConnectionError):
                self._writer.write(channel.frame(Kind.STOP))
            try:
                await asyncio.wait_for(self._gone.wait(), _PATIENCE)
            except TimeoutError:
                log.warning("%s child process(%d) does not end: killing it", self.title, self._process.pid)
                self._process.kill()
                await self._gone.wait()
        pidfile.remove(self._pid_path)
        for task in list(self._tasks):
            task.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (received := await channel.receive(reader)) is not None:
            kind, body = received
            if kind == Kind.READY:
                self._ever_ready = True
                self.ready.set()
            elif kind == Kind.EVENT:
                self._heard(self.name, channel.json_of(body))
            elif kind == Kind.ANSWER:
                self._answered(channel.json_of(body))

    def _answered(self, content: dict[str, object]) -> None:
        number = content.get("id")
        question = self._questions.get(number) if isinstance(number, int) else None
        if question is None or question.done():
            return
        answer = content.get("answer")
        if isinstance(answer, dict):
            question.set_result(answer)
        else:
            question.set_exception(XlvsError(str(content.get("error"))))

    def _died(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        assert self._process is not None
        pid, status = self._process.pid, self._process.wait()
        self._process = None
        if self._writer:
            self._writer.close()
            self._writer = None
        for question in self._questions.values():
            if not question.done():
                question.set_exception(XlvsError(f"the {self.title} process died"))
        self._gone.set()
        if self._stopping:
            return
        self._say_why(pid, status)
        if not self._respawn or (status == process.CANNOT and not self._ever_ready):
            log.error("%s child process(%d) died: Exiting", self.title, pid)
            self._ended(self.name)
            return
        log.error("%s child process(%d) died: Respawning", self.title, pid)
        settled = time.monotonic() - self._begun >= _SETTLED
        wait = 0.0 if settled else self._delay
        self._delay = 0.0 if settled else _longer(self._delay)
        self._start_after(wait)

    def _start_after(self, wait: float) -> None:
        loop = asyncio.get_running_loop()
        self._again = loop.call_later(wait, lambda: self._tasks.start(self._start_again()))

    async def _start_again(self) -> None:
        try:
            await self.start(self._config)
        except OSError as error:  # no process, memory or descriptor to be had now
            log.error("Cannot start the %s child process: %s", self.title, error)
            self._delay = _longer(self._delay)
            self._start_after(self._delay)

    def _say_why(self, pid: int, status: int) -> None:
        if status < 0:
            name = signal.strsignal(-status) or "unknown"
            log.error("pid %d exited due to signal %d (%s)", pid, -status, name)
        else:
            log.error("pid %d exited with status %d", pid, status)


def _longer(delay: float) -> float:
    """Seconds to wait where these were not enough."""
    return min(max(2 * delay, 1.0), _LONGEST)
