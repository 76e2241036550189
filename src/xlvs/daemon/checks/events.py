"""Sockets and deadlines of thousands of attempts, behind two callbacks of the asyncio loop.

asyncio makes an object a socket and a timer a wait; an epoll of our own and one heap cost a tenth
of that. The loop watches the epoll, and has one timer for the earliest deadline.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import select
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_TICK = 0.004  # seconds: deadlines this close together are met at once
_AT_ONCE = 64  # deadlines met before sockets have their turn again

log = logging.getLogger(__name__)


class Timer:
    """A deadline, to be cancelled by whoever set it."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Events:
    """Watches sockets and meets deadlines, on the running loop. Times are of ``now``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self.now = self._loop.time
        self._loop.add_reader(self._epoll.fileno(), self._poll)

    def close(self) -> None:
        """Watch nothing, meet nothing: what is still there is forgotten."""
        if self._armed is not None:
            self._armed.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._watched.clear()
        self._heap.clear()

    def watch(self, socket: int, events: int, call: Callable[[], None]) -> None:
        """Call whenever the socket (its number) is ready, or broken."""
        self._epoll.register(socket, events)
        self._watched[socket] = call

    def change(self, socket: int, events: int) -> None:
        """Wait for something else."""
        self._epoll.modify(socket, events)

    def forget(self, socket: int) -> None:
        """Before the socket is closed: a child just forked may hold its number open a moment longer."""
        if self._watched.pop(socket, None) is not None:
            self._epoll.unregister(socket)

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call at that time, or soon after."""
        timer = Timer(call)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, timer))
        if when < self._armed_for:
            self._arm(when)
        return timer

    def _arm(self, when: float) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_for = max(when, self.now() + _TICK)
        self._armed = self._loop.call_at(self._armed_for, self._meet)

    def _meet(self) -> None:
        self._armed, self._armed_for = None, -math.inf  # what is set meanwhile arms nothing
        now, heap, met = self.now(), self._heap, 0
        while heap and (heap[0][2].call is None or (heap[0][0] <= now and met < _AT_ONCE)):
            call = heapq.heappop(heap)[2].call
            if call is not None:
                met += 1
                _guarded(call)
        self._armed_for = math.inf
        if heap and heap[0][0] <= now:
            self._armed_for = now
            self._armed = self._loop.call_later(0, self._meet)
        elif heap:
            self._arm(heap[0][0])

    def _poll(self) -> None:
        watched = self._watched
        for socket, _ in self._epoll.poll(0, 256):
            call = watched.get(socket)
            if call is not None:
                _guarded(call)


def _guarded(call: Callable[[], None]) -> None:
    """One check's trouble is its own: the others go on."""
    try:
        call()
    except Exception:
        log.exception("a health check's own trouble")
