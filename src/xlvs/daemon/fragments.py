"""Fragments that came before the first of their datagram wait here, within bounds.

The data plane cannot know where such a fragment belongs, nor keep it. When the first one
came (its entry is in the map `datagrams`), those that wait are put back into the stream.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from xlvs.daemon import frames
from xlvs.dataplane import datagrams, layout_events, libbpf
from xlvs.dataplane.events import Event
from xlvs.dataplane.inject import Injector
from xlvs.dataplane.tables import Tables

MOST_BYTES = 4 << 20  # of all that wait: net.ipv4.ipfrag_high_thresh
MOST_OF_SOURCE = MOST_BYTES // 8
MOST_OF_DATAGRAM = 64  # fragments: 65,535 bytes in packets of 1280 and more
_OVERHEAD = 256  # what Python needs for a frame besides its bytes, so that small ones count, too
_STEP = 0.5  # seconds between looks at what waited too long


@dataclass
class _Waiting:
    source: bytes
    until: float
    held: list[tuple[int, bytes]] = field(default_factory=list)  # ifindex and frame

    @property
    def bytes(self) -> int:
        return sum(len(frame) + _OVERHEAD for _, frame in self.held)


class EarlyFragments:
    """Answers EVENT_EARLY and EVENT_FIRST."""

    def __init__(self, tables: Tables, injector: Injector) -> None:
        self._tables = tables
        self._injector = injector
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()  # oldest first
        self._bytes = 0
        self._by_source: dict[bytes, int] = {}

    @property
    def pause(self) -> float:
        """See Handler."""
        return _STEP

    def handle(self, event: Event, now: float) -> None:
        """See Handler."""
        if event.kind == layout_events.EVENT_FIRST:
            self._release(event.frame)
            return
        key = frames.datagram_key(event.frame)
        if key is None:
            self._drop(1)
        elif datagrams.first_came(self._tables, key):
            self._inject([(event.ifindex, event.frame)])
        else:
            self._hold(key, event, now)

    def step(self, now: float) -> None:
        """See Handler."""
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            if oldest.until > now:
                break
            self._drop(len(self._take(key).held))

    def _hold(self, key: bytes, event: Event, now: float) -> None:
        waiting = self._waiting.get(key)
        source, size = key[:16], len(event.frame) + _OVERHEAD
        if (waiting and len(waiting.held) >= MOST_OF_DATAGRAM) or (
            self._by_source.get(source, 0) + size > MOST_OF_SOURCE
        ):
            self._drop(1)
            return
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(source, now + datagrams.LIFE)
        waiting.held.append((event.ifindex, event.frame))
        self._bytes += size
        self._by_source[source] = self._by_source.get(source, 0) + size
        while self._bytes > MOST_BYTES:  # those that waited longest make room
            self._drop(len(self._take(next(iter(self._waiting))).held))

    def _take(self, key: bytes) -> _Waiting:
        waiting = self._waiting.pop(key)
        self._bytes -= waiting.bytes
        left = self._by_source[waiting.source] - waiting.bytes
        if left:
            self._by_source[waiting.source] = left
        else:
            del self._by_source[waiting.source]
        return waiting

    def _release(self, key: bytes) -> None:
        if key in self._waiting:
            self._inject(self._take(key).held)

    def _inject(self, held: list[tuple[int, bytes]]) -> None:
        for ifindex, frame in held:
            try:
                self._injector.inject(frame, ifindex)
            except libbpf.BpfError:  # the device is gone, and with it the rest of the datagram
                self._drop(1)

    def _drop(self, count: int) -> None:
        datagrams.count_given_up(self._tables, count)
