"""The slow-path helper: what needs a process because XDP cannot wait.

It keeps neighbours resolved, tunnel sources and own addresses right as rules and routes
change, lets the memory decide on the defence against floods (drop_entry and friends), puts
right what a killed `up` left, and takes the data plane down in a namespace that nobody else
uses any more. Without it the tc companion resolves neighbours packet by packet. And it
answers the data plane's events, each kind by a handler of its own; without it they are
dropped and counted.
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
from xlvs.daemon.fragments import EarlyFragments
from xlvs.daemon.half_open import HalfOpen
from xlvs.daemon.handler import Handler
from xlvs.daemon.resets import Resets
from xlvs.daemon.splitter import Splitter
from xlvs.dataplane import layout_events
from xlvs.dataplane.events import Event, Events
from xlvs.dataplane.inject import Injector
from xlvs.dataplane.plane import Plane

_STEP = 0.5  # seconds between looks at the rules' version: one read of shared memory
_REFRESH = 10.0  # seconds between looks at routes and addresses
_DEFENCE = 1.0  # seconds between looks at the memory, as in the kernel (DEFENSE_TIMER_PERIOD)
_ORPHAN = 5.0  # seconds between looks for others in the namespace


class SlowPath:
    """The helper of one network namespace."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._stopped = False
        self._version = -1
        self._refresh_due = self._orphan_due = self._defence_due = time.monotonic()
        self._handlers: dict[int, Handler] = {}  # by the kind of events, layout_events.EVENT_*

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until the data plane is gone.

        Trouble is noted (supervise.note_trouble) and tried again: it ends nothing.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        if not self._plane.is_up:
            return
        events, injector = Events(self._plane.tables), Injector(self._plane.tables)
        self._handlers = handlers(self._plane, injector)
        try:
            while not self._stopped and self._plane.is_up:
                self._show_life()
                self._guarded(self._refresh)
                self._guarded(self._defend)
                self._guarded(self._leave_if_abandoned)
                self._answer(events)
        finally:
            self._plane.tables.settings.helper_seen = 0
            events.close()
            injector.close()

    def _show_life(self) -> None:
        """From now on, for a few seconds, the data plane sends us events."""
        settings = self._plane.tables.settings
        settings.helper_seen = settings.now or 1

    def _answer(self, events: Events) -> None:
        """Wait for events and have them handled; let every handler do what is due."""
        pause = min([_STEP, *(handler.pause for handler in self._handlers.values())])
        for event in events.poll(pause):
            self._guarded(self._handle, event)
        for handler in self._handlers.values():
            self._guarded(handler.step, time.monotonic())

    def _handle(self, event: Event) -> None:
        handler = self._handlers.get(event.kind)
        if handler:
            handler.handle(event, time.monotonic())

    def _guarded(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            step(*arguments)
        except Exception as error:  # a helper that dies of one bad answer helps nobody
            name = step.__qualname__.replace("SlowPath.", "").strip("_")
            supervise.note_trouble(f"{name}: {type(error).__name__}: {error}")

    def _refresh(self) -> None:
        now, version = time.monotonic(), self._plane.tables.settings.rules_version
        if version == self._version and now < self._refresh_due:
            return
        self._refresh_due = now + _REFRESH  # set first: after trouble, too, there is time to breathe
        self._version = version
        self._plane.refresh()
        supervise.forget_trouble()

    def _defend(self) -> None:
        now = time.monotonic()
        if now >= self._defence_due:
            self._defence_due = now + _DEFENCE
            self._plane.defend()

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


def handlers(plane: Plane, injector: Injector) -> dict[int, Handler]:
    """Who answers which kind of events."""
    early, splitter = EarlyFragments(plane.tables, injector), Splitter(injector)
    half_open = HalfOpen(plane.tables, injector)
    return {
        layout_events.EVENT_UNANSWERED: half_open,
        layout_events.EVENT_HELD: half_open,
        layout_events.EVENT_ANSWERED: half_open,
        layout_events.EVENT_EARLY: early,
        layout_events.EVENT_FIRST: early,
        layout_events.EVENT_SPLIT: splitter,
        layout_events.EVENT_EXPIRED: Resets(),
    }


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
