"""The slow-path helper: what needs a process because XDP cannot wait.

By now it keeps neighbours resolved, tunnel sources and own addresses right as rules
and routes change, and takes the data plane down in a namespace that nobody else uses
any more. Without it the tc companion resolves neighbours packet by packet.
"""

from __future__ import annotations

import glob
import os
import signal
import time
from types import FrameType

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

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until the data plane is gone."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        refresh_due = orphan_due = time.monotonic()
        while not self._stopped and self._plane.is_up:
            now = time.monotonic()
            version = self._plane.tables.settings.rules_version
            if version != self._version or now >= refresh_due:
                self._version, refresh_due = version, now + _REFRESH
                self._plane.refresh()
            if now >= orphan_due:
                orphan_due = now + _ORPHAN
                if namespace_abandoned():
                    self._plane.down()
                    return
            time.sleep(_STEP)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopped = True


def namespace_abandoned() -> bool:
    """Whether no name and no other process refers to this network namespace."""
    mine = os.stat("/proc/self/ns/net").st_ino
    for path in (*glob.glob("/run/netns/*"), *glob.glob("/proc/[0-9]*/ns/net")):
        if path == f"/proc/{os.getpid()}/ns/net":
            continue
        try:
            if os.stat(path).st_ino == mine:
                return False
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return True
