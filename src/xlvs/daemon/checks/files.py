"""Tracked files: their numbers, looked at again when their time or size changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from xlvs.daemon.checks.events import Events, Timer
from xlvs.health.files import number

_PERIOD = 0.25  # seconds between two looks: a stat of each file is all that one costs
_TICK = 50_000_000  # ns within which a file may change again without another time: the kernel's are coarse
_UNSURE = (0, 0, 0)  # no file's signature: it is read again
_LONGEST = 64  # bytes read of a file: more than a number needs


def read(path: str) -> int | None:
    """The number in this file, None where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a fifo
        try:
            return number(os.read(descriptor, _LONGEST).decode("ascii", "replace"))
        finally:
            os.close(descriptor)
    except OSError:
        return None


class Watcher:
    """Knows each file's number (``values``), and calls ``told(name)`` when one changes."""

    def __init__(self, events: Events, told: Callable[[str], None]) -> None:
        self._events, self._told = events, told
        self._files: dict[str, str] = {}
        self._seen: dict[str, tuple[int, int, int] | None] = {}
        self.values: dict[str, int] = {}
        self._timer: Timer | None = None

    def set(self, files: Mapping[str, str]) -> list[str]:
        """These paths, by name: those that were there keep what is known of them. The others' names."""
        for name in [name for name, path in self._files.items() if files.get(name) != path]:
            del self._seen[name], self.values[name]
        self._files = dict(files)
        new = [name for name in self._files if name not in self._seen]
        for name in new:
            self._look(name)
        if self._files and self._timer is None:
            self._again()
        return new

    def _again(self) -> None:
        self._timer = self._events.at(self._events.now() + _PERIOD, self._look_at_all)

    def _look_at_all(self) -> None:
        self._timer = None
        for name in self._files:
            before = self.values[name]
            if self._look(name) and self.values[name] != before:
                self._told(name)
        if self._files:
            self._again()

    def _look(self, name: str) -> bool:
        """Read a file that changed; a missing one is 0. True where that was done."""
        path = self._files[name]
        try:
            status = os.stat(path)
            signature = (status.st_ctime_ns, status.st_size, status.st_ino)
        except OSError:
            signature = None
        if name in self._seen and self._seen[name] == signature:
            return False
        value = read(path) if signature else 0
        if value is None or (signature and abs(time.time_ns() - signature[0]) < _TICK):
            signature = _UNSURE
        self._seen[name] = signature
        # What is there but cannot be read (no descriptors are left, say) is what it was.
        self.values[name] = self.values.get(name, 0) if value is None else value
        return True
