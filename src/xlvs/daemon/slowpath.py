"""The slow-path helper: what needs a process because XDP cannot wait.

By now it keeps neighbours resolved, tunnel sources and own addresses right as rules
and routes change, puts right what a killed `up` left, and takes the data plane down in
a namespace that nobody else uses any more. Without it the tc companion resolves
neighbours packet by packet.
"""

from __future__ import annotations

import glob
import os
import re
import signal
import time
from collections.abc import Callable
from types import FrameType

from xlvs.daemon import supervise
from xlvs.dataplane.plane import Plane

_STEP = 0.5  # seconds between looks at the rules' version: one read of shared memory
_REFRESH = 10.0  # seconds between looks at routes and addresses
_ORPHAN = 5.0  # seconds between looks for others in the namespace


class SlowPath:
    """The helper of one network namespace."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._stopped = False
        self._version = -1
        self._refresh_due = self._orphan_due = time.monotonic()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until the data plane is gone.

        Trouble is noted (supervise.note_trouble) and tried again: it ends nothing.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self._stopped and self._plane.is_up:
            self._guarded(self._refresh)
            self._guarded(self._leave_if_abandoned)
            time.sleep(_STEP)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a helper that dies of one bad answer helps nobody
            supervise.note_trouble(f"{step.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _refresh(self) -> None:
        now, version = time.monotonic(), self._plane.tables.settings.rules_version
        if version == self._version and now < self._refresh_due:
            return
        self._refresh_due = now + _REFRESH  # set first: after trouble, too, there is time to breathe
        self._version = version
        self._plane.refresh()
        supervise.forget_trouble()

    def _leave_if_abandoned(self) -> None:
        now = time.monotonic()
        if now < self._orphan_due:
            return
        self._orphan_due = now + _ORPHAN
        if namespace_abandoned():
            self._stopped = True
            self._plane.down()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopped = True


def namespace_abandoned() -> bool:
    """Whether no name, no mount and no other process refers to this network namespace."""
    mine = os.stat("/proc/self/ns/net").st_ino
    for path in ("/proc/self/mountinfo", "/proc/1/mountinfo"):
        try:
            with open(path) as mounts:
                if re.search(rf"\bnet:\[{mine}\]", mounts.read()):
                    return False
        except OSError:
            continue
    for path in glob.glob("/proc/[0-9]*/ns/net"):
        if path == f"/proc/{os.getpid()}/ns/net":
            continue
        try:
            if os.stat(path).st_ino == mine:
                return False
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return True
