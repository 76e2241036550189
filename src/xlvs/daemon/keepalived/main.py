"""The parent of `xlvs keepalived`: configuration, signals, children, and operators' questions."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from xlvs import __version__
from xlvs.daemon.keepalived import pidfile, scripts, systemd
from xlvs.daemon.keepalived.child import CHILDREN, Event, wanted_children
from xlvs.daemon.keepalived.control import Control
from xlvs.daemon.keepalived.fifo import NotifyFifo
from xlvs.daemon.keepalived.kept import Kept
from xlvs.daemon.tasks import Tasks
from xlvs.errors import XlvsError
from xlvs.health.checks import Script
from xlvs.keepalived.config import Config, Message, Outcome

# Signals as keepalived has them (`keepalived --signum`); the last two are real-time ones there, too.
SIGNALS = {
    "STOP": signal.SIGTERM,
    "RELOAD": signal.SIGHUP,
    "DATA": signal.SIGUSR1,
    "STATS": signal.SIGUSR2,
    "STATS_CLEAR": signal.SIGRTMAX - 1,
    "JSON": signal.SIGRTMIN + 2,
}
# Where the dumps of each child go; the parent has one of its own.
DATA_FILES = {
    "": "/tmp/keepalived_parent.data",  # noqa: S108 - keepalived's own path; written safely
    "vrrp": "/tmp/keepalived.data",  # noqa: S108
    "checkers": "/tmp/keepalived_check.data",  # noqa: S108
    "bfd": "/tmp/keepalived_bfd.data",  # noqa: S108
}
STATS_FILES = {
    "vrrp": "/tmp/keepalived.stats",  # noqa: S108
    "checkers": "/tmp/keepalived_check.stats",  # noqa: S108
}
JSON_FILE = "/tmp/keepalived.json"  # noqa: S108
_ASKED = {
    "servers": "checkers",
    "drain": "checkers",
    "disable": "checkers",
    "enable": "checkers",
    "instances": "vrrp",
    "force": "vrrp",
    "sessions": "bfd",
}
_READY = 60.0  # seconds that a child may take to have a configuration at work before we go on

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Startup:
    """What the command line came to.

    ``read`` reads the configuration anew. ``command`` makes a child's command line from its name and
    the descriptor it is given. ``pid_paths`` are by child, "" is the parent's. ``children`` are those
    that may run, ``everything`` runs them even with nothing to do (--all).
    """

    read: Callable[[], Outcome]
    command: Callable[[str, int], Sequence[str]]
    pid_paths: Mapping[str, str]
    control_path: str
    children: frozenset[str] = field(default_factory=lambda: frozenset(CHILDREN))
    everything: bool = False
    respawn: bool = True
    explain: Callable[[Config], Sequence[str]] = lambda config: [repr(config)]


class Parent:
    """One run of the daemon."""

    def __init__(self, startup: Startup, config: Config, complaints: Sequence[Message] = ()) -> None:
        self._startup = startup
        self._config = config
        self._complaints = _objections(complaints)  # what is wrong with the running configuration
        self._kept: dict[str, Kept] = {}
        self._last: dict[tuple[str, object, object], Event] = {}  # what each child told last of each thing
        self._stopping = asyncio.Event()
        self._status = 0
        self._reloading = asyncio.Lock()
        self._again = False
        self._tasks = Tasks()
        self._fifo: NotifyFifo | None = None
        self._reader: asyncio.Task[int] | None = None

    async def run(self) -> int:
        """Work until told to stop; the exit status."""
        claimed = pidfile.claim(self._startup.pid_paths[""])
        log.info("Starting Keepalived xlvs v%s", __version__)
        control = Control(self._startup.control_path, self._asked)
        try:
            self._hear_signals()
            await self._run_script("startup", self._config.globals.startup_script)
            self._open_fifo()
            await self._start_children()
            await control.open()
            systemd.tell("READY=1", f"MAINPID={os.getpid()}")
            await self._stopping.wait()
        finally:
            log.info("Stopping")
            systemd.tell("STOPPING=1")
            control.close()
            await self._end()
            pidfile.remove(self._startup.pid_paths[""])
            for path in self._startup.pid_paths.values():
                pidfile.tidy(path)
            os.close(claimed)
            log.info("Stopped Keepalived xlvs v%s", __version__)
        return self._status

    def stop(self) -> None:
        """End :meth:`run`, in good order."""
        self._stopping.set()

    # -- children -----------------------------------------------------------------------

    def _wanted(self, config: Config) -> tuple[str, ...]:
        return wanted_children(config, self._startup.children, everything=self._startup.everything)

    async def _start_children(self) -> None:
        wanted = self._wanted(self._config)
        if not wanted:
            log.warning("Warning - keepalived has no configuration to run")
        for name in wanted:
            await self._start_child(name)
        await self._all_ready()
        log.info("Running")

    async def _start_child(self, name: str) -> None:
        kept = self._kept[name] = Kept(
            name,
            lambda descriptor: self._startup.command(name, descriptor),
            self._startup.pid_paths[name],
            self._heard,
            self._child_ended,
            respawn=self._startup.respawn,
            known=lambda: self._last.values(),
        )
        await kept.start(self._config)

    async def _all_ready(self) -> None:
        """Wait until every child is at work, or has died, or it is time to stop."""
        ready = asyncio.gather(*(kept.ready.wait() for kept in self._kept.values()))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((ready, stopping), timeout=_READY, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (ready, stopping):
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    def _heard(self, name: str, event: Event) -> None:
        self._last[name, event.get("event"), event.get("name")] = event
        for other, kept in self._kept.items():
            if other != name:
                kept.post(event)

    def _child_ended(self, name: str) -> None:
        del name
        self._status = 2
        self.stop()

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(kept.stop() for kept in self._kept.values()))
        self._close_fifo()
        if self._reader:
            await asyncio.wait((self._reader,))
        await self._run_script("shutdown", self._config.globals.shutdown_script)

    # -- signals ------------------------------------------------------------------------

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.start(self.reload()))
        loop.add_signal_handler(SIGNALS["DATA"], lambda: self._tasks.start(self._dump_data()))
        loop.add_signal_handler(SIGNALS["STATS"], lambda: self._tasks.start(self._dump_stats(clear=False)))
        loop.add_signal_handler(
            SIGNALS["STATS_CLEAR"], lambda: self._tasks.start(self._dump_stats(clear=True))
        )
        loop.add_signal_handler(SIGNALS["JSON"], lambda: self._tasks.start(self._dump_json()))

    async def reload(self) -> str:
        """Read the configuration again; what is wrong with it, or "". A wrong one changes nothing.

        Wrong is what cannot be run, and what ``-t`` objects to anew: keepalived would go on without the
        blocks that it did not understand. What it objected to in the running one it may say again.
        """
        if self._reloading.locked():
            if self._again:
                return ""
            log.info("Reload already in progress, request queued")
            self._again = True
        async with self._reloading:
            self._again = False
            log.info("Reloading ...")
            systemd.tell(*systemd.reloading())
            trouble = await self._reload()
            systemd.tell("READY=1")
        return trouble

    async def _reload(self) -> str:
        outcome = self._startup.read()
        for message in outcome.messages:
            log.warning("%s", message)
        objections = [
            message
            for message in outcome.messages
            if message.fatal or _objections([message]) - self._complaints
        ]
        if outcome.config is None or objections:
            log.error("The new configuration has errors: nothing has been changed")
            return "; ".join(map(str, objections)) or "the configuration has errors"
        self._config, self._complaints = outcome.config, _objections(outcome.messages)
        self._open_fifo()
        wanted = self._wanted(self._config)
        for name in [name for name in self._kept if name not in wanted]:
            await self._kept.pop(name).stop()
            self._last = {key: event for key, event in self._last.items() if key[0] != name}
        for name in wanted:
            if name in self._kept:
                self._kept[name].reload(self._config)
            else:
                await self._start_child(name)
        await self._all_ready()
        log.info("Running with the new configuration")
        return ""

    # -- dumps --------------------------------------------------------------------------

    async def _dump_data(self) -> None:
        log.info("Printing parent data for process(%d) on signal", os.getpid())
        _leave(DATA_FILES[""], "".join(f"{line}\n" for line in self._startup.explain(self._config)))
        await self._dump("data", DATA_FILES, {"command": "data"})

    async def _dump_stats(self, *, clear: bool) -> None:
        await self._dump("stats", STATS_FILES, {"command": "stats", "clear": clear})

    async def _dump(self, what: str, paths: Mapping[str, str], request: Mapping[str, object]) -> None:
        for name, kept in self._kept.items():
            if name not in paths:
                continue
            try:
                answer = await kept.ask(request)
                _leave(paths[name], str(answer.get("text", "")))
            except (XlvsError, OSError) as error:
                log.warning("%s of the %s process: %s", what, kept.title, error)

    async def _dump_json(self) -> None:
        """The VRRP instances, as the programs expect that read keepalived's file."""
        answer = await self._told("vrrp", "export") if "vrrp" in self._kept else {}
        with suppress(OSError):
            _leave(JSON_FILE, json.dumps(answer.get("instances", [])) + "\n")

    # -- operators ----------------------------------------------------------------------

    async def _asked(self, request: Mapping[str, object]) -> Mapping[str, object]:
        command = request.get("command")
        if command == "status":
            return await self._all_status()
        if command == "reload":
            if trouble := await self.reload():
                raise XlvsError(trouble)
            return {"reloaded": True}
        name = _ASKED.get(str(command))
        if name is None:
            raise XlvsError(f"no command '{command}'")
        if name not in self._kept:
            raise XlvsError(f"the configuration has nothing for '{command}'")
        return await self._kept[name].ask(request)

    async def _all_status(self) -> Mapping[str, object]:
        children = {}
        for name, kept in self._kept.items():
            children[name] = {"pid": kept.pid, **await self._told(name, "status")}
        return {"version": __version__, "pid": os.getpid(), "children": children}

    async def _told(self, name: str, command: str) -> Mapping[str, object]:
        try:
            return await self._kept[name].ask({"command": command})
        except XlvsError as error:
            return {"error": str(error)}

    # -- scripts ------------------------------------------------------------------------

    def _open_fifo(self) -> None:
        """The global fifo: vrrp and checkers write there, so its script is ours to run."""
        wanted = self._config.globals.fifo
        if self._fifo and (wanted is None or self._fifo.path != wanted.path):
            self._close_fifo()
        if wanted and not self._fifo:
            self._fifo = NotifyFifo(wanted.path)
            if wanted.script:
                work = scripts.run(wanted.script, wanted.path, secure=self._config.globals.script_security)
                self._reader = asyncio.create_task(work)

    def _close_fifo(self) -> None:
        if self._reader:
            self._reader.cancel()
        if self._fifo:
            self._fifo.close()
            self._fifo = None

    async def _run_script(self, what: str, script: Script | None) -> None:
        if script is None:
            return
        settings = self._config.globals
        timeout = settings.startup_script_timeout if what == "startup" else settings.shutdown_script_timeout
        log.info("Running %s script %s", what, script.arguments[0])
        status = await scripts.run(script, timeout=timeout or None, secure=settings.script_security)
        if status:
            log.warning("Call of %s script %s failed", what, script.arguments[0])


def _leave(path: str, text: str) -> None:
    """Write a file where anybody may have put another: never through what is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _objections(messages: Sequence[Message]) -> frozenset[tuple[str, str]]:
    """What ``-t`` objects to, wherever in the file it stands."""
    return frozenset((message.word, message.text) for message in messages if message.status)
