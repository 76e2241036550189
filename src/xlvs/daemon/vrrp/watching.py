"""What instances track besides interfaces: scripts, files and processes, each watched by its own task."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from xlvs.daemon.keepalived import scripts
from xlvs.keepalived.config import Config, Instance, SyncGroup, TrackFile, TrackProcess, TrackScript
from xlvs.vrrp.settings import TrackKind

_FILES = 0.1  # seconds between two looks at a file; a look is one system call
_PROCESSES = 0.5
_CANCEL = 1.0  # seconds until a watcher is cancelled again
_LONGEST = 128  # bytes of a file that are read: a number has fewer
_NUMBER = re.compile(rb"\s*([+-]?\d+)")
_LARGEST = 1 << 31

log = logging.getLogger(__name__)

# What is told: kind, name, and whether it is up (1) or down (0); of a file its number.
_Watched = TrackScript | TrackFile | TrackProcess
Tell = Callable[[TrackKind, str, int], None]


class Watching:
    """Watches what the configuration tracks, and tells each first result and every change."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._tasks: dict[tuple[str, _Watched], asyncio.Task[None]] = {}
        self._secure = False

    def load(self, config: Config) -> None:
        """Watch what this configuration tracks; what is the same as before goes on undisturbed."""
        used = _used(config)
        self._secure = config.globals.script_security
        wanted: dict[tuple[str, _Watched], Callable[[], Coroutine[object, object, None]]] = {
            **{("script", one): partial(self._script, one) for one in config.scripts},
            **{("file", one): partial(self._file, one) for one in config.files},
            **{("process", one): partial(self._process, one) for one in config.processes},
        }
        wanted = {key: watch for key, watch in wanted.items() if (key[0], key[1].name) in used}
        for key in set(self._tasks) - set(wanted):
            self._tasks.pop(key).cancel()
        for key, begin in wanted.items():
            if key not in self._tasks:
                task = asyncio.get_running_loop().create_task(begin())
                task.add_done_callback(_ended)
                self._tasks[key] = task

    async def close(self) -> None:
        """Watch no more."""
        ending = set(self._tasks.values())
        self._tasks.clear()
        while ending:
            for task in ending:
                task.cancel()
            # Until 3.12 wait_for may lose a cancellation: what is not asked for any more ends itself, too.
            _, ending = await asyncio.wait(ending, timeout=_CANCEL)

    def _asked(self, kind: str, one: _Watched) -> bool:
        return (kind, one) in self._tasks

    # -- scripts ------------------------------------------------------------------------

    async def _script(self, one: TrackScript) -> None:
        """Runs it every interval; ``fall`` failures in a row put it down, ``rise`` successes up.

        The first run decides alone, as in keepalived 2.2.7; with ``init_fail``, too.
        """
        loop = asyncio.get_running_loop()
        up: bool | None = None
        count = 0
        last = 0
        while self._asked("script", one):
            began = loop.time()
            status = await scripts.run(one.script, timeout=one.timeout or one.interval, secure=self._secure)
            if not self._asked("script", one):
                return
            if status >= 0 and status != last:
                log.info("Script `%s` now returning %d", one.name, status)
                last = status
            good = status == 0
            count = count + 1 if good != up else 0
            if up is None or (good != up and count >= (one.rise if good else one.fall)):
                how = "succeeded" if good else f"failed ({_how_ended(status)})"
                log.info("VRRP_Script(%s) %s", one.name, how)
                up, count = good, 0
                self._tell(TrackKind.SCRIPT, one.name, good)
            await asyncio.sleep(max(0.0, began + one.interval - loop.time()))

    # -- files --------------------------------------------------------------------------

    async def _file(self, one: TrackFile) -> None:
        path = Path(one.file)
        if one.init is not None and (one.init_overwrite or not path.exists()):
            try:
                path.write_text(f"{one.init}\n")
            except OSError as error:
                log.error("track file %s: %s", one.name, error)
        last: tuple[int, int, int] | None = None
        number: int | None = None
        while self._asked("file", one):
            try:
                found = os.stat(path)
                now = (found.st_ino, found.st_size, found.st_mtime_ns)
            except OSError:
                now = (0, 0, 0)
            if now != last:
                last = now
                value = _number_in(path)
                if value != number:
                    number = value
                    self._tell(TrackKind.FILE, one.name, value)
            await asyncio.sleep(_FILES)

    # -- processes ----------------------------------------------------------------------

    async def _process(self, one: TrackProcess) -> None:
        loop = asyncio.get_running_loop()
        up: bool | None = None
        turned: float | None = None  # since when it is otherwise than told
        while self._asked("process", one):
            count = await asyncio.to_thread(_count, one)
            good = count >= one.quorum and (one.quorum_max is None or count <= one.quorum_max)
            if good == up:
                turned = None
            else:
                turned = loop.time() if turned is None else turned
                delay = one.fork_delay if good else one.terminate_delay
                if up is None or loop.time() >= turned + delay:
                    log.info("Quorum %s for tracked process %s", "gained" if good else "lost", one.name)
                    up, turned = good, None
                    self._tell(TrackKind.PROCESS, one.name, good)
            await asyncio.sleep(_PROCESSES)


def _how_ended(status: int) -> str:
    return f"exited with status {status}" if status >= 0 else f"due to signal {-status}"


def _ended(task: asyncio.Task[None]) -> None:
    """A watcher that ends of itself is a fault of ours, and must not go unnoticed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a watcher has ended", exc_info=error)


def _used(config: Config) -> set[tuple[str, str]]:
    """What anybody tracks: the rest is not watched."""
    trackers: tuple[Instance | SyncGroup, ...] = (*config.instances, *config.groups)
    return {
        (kind, one.name)
        for tracker in trackers
        for kind, tracked in (
            ("script", tracker.track_scripts),
            ("file", tracker.track_files),
            ("process", tracker.track_processes),
        )
        for one in tracked
    }


def _number_in(path: Path) -> int:
    """The number that a file begins with; 0 where there is none, as keepalived has it."""
    data = b""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    found = _NUMBER.match(data)
    number = int(found.group(1)) if found else 0
    return max(-_LARGEST, min(number, _LARGEST - 1))


def _count(one: TrackProcess) -> int:
    """How many processes run that it names; zombies do not."""
    return sum(_matches(one, folder) for folder in _processes())


def _processes() -> Iterator[str]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield entry.path


_COMM = 15  # bytes of a process's name that the kernel keeps


def _matches(one: TrackProcess, folder: str) -> bool:
    name = one.process[0]
    try:
        if len(one.process) == 1 and one.param_match is None and not one.full_command:
            if Path(folder, "comm").read_bytes().rstrip(b"\n") != os.fsencode(os.path.basename(name))[:_COMM]:
                return False
            return b") Z " not in Path(folder, "stat").read_bytes()
        words = Path(folder, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return False  # it has just ended
    if not words or words == [b""]:
        return False
    wanted = [os.fsencode(word) for word in one.process]
    if words[0] != wanted[0] and (one.full_command or os.path.basename(words[0]) != wanted[0]):
        return False
    return _parameters_match(one.param_match, wanted[1:], words[1:])


def _parameters_match(how: str | None, wanted: list[bytes], given: list[bytes]) -> bool:
    if how == "partial":
        return given[: len(wanted)] == wanted and bool(wanted or not given)
    if how == "initial" and wanted:
        start = len(wanted) - 1
        return given[:start] == wanted[:start] and b"\0".join(given[start:]).startswith(wanted[start])
    return given == wanted
