"""Connections of SYNPROXY that wait for their real server's SYN-ACK.

XDP repeats the SYN, and in the end resets the client, only when a packet comes: here the
client's ACK is written once more when it is time for that. Payload that came too early (sysctl
synproxy_defer) waits here, within bounds, until the real server has answered.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from xlvs.daemon import frames
from xlvs.dataplane import layout, layout_events, libbpf
from xlvs.dataplane.datagrams import count_given_up
from xlvs.dataplane.events import Event
from xlvs.dataplane.inject import Injector
from xlvs.dataplane.tables import Tables

MOST_BYTES = 4 << 20  # of all payload that waits
MOST_OF_CONNECTION = 64 << 10  # more than the window that deferred clients are told of
_LIFE = 30.0  # seconds that payload waits: no client is patient for longer
_OVERHEAD = 256  # what Python needs for a frame besides its bytes
_STEP = 0.5  # seconds between looks at what waited too long


@dataclass
class _Held:
    until: float
    payload: list[tuple[int, bytes]] = field(default_factory=list)  # ifindex and frame

    @property
    def bytes(self) -> int:
        return sum(len(frame) + _OVERHEAD for _, frame in self.payload)


class HalfOpen:
    """Answers EVENT_UNANSWERED, EVENT_HELD and EVENT_ANSWERED."""

    def __init__(self, tables: Tables, injector: Injector) -> None:
        self._tables = tables
        self._injector = injector
        self._held: OrderedDict[tuple[int, int], _Held] = OrderedDict()  # by slot and phase, oldest first
        self._bytes = 0

    @property
    def pause(self) -> float:
        """See Handler."""
        return _STEP

    def handle(self, event: Event, now: float) -> None:
        """See Handler."""
        if event.kind == layout_events.EVENT_UNANSWERED:
            self._ask_again(event)
        elif event.kind == layout_events.EVENT_ANSWERED:
            self._release((event.slot, event.phase))
        elif self._waits(event.slot, event.phase):
            self._hold(event, now)
        else:  # the answer overtook it
            self._inject([(event.ifindex, event.frame)])

    def step(self, now: float) -> None:
        """See Handler."""
        while self._held:
            key, oldest = next(iter(self._held.items()))
            if oldest.until > now:
                break
            self._drop(len(self._take(key).payload))

    def _connection(self, slot: int) -> layout.ConnRow:
        return self._tables.row("conns", layout.ConnRow, slot)

    def _waits(self, slot: int, phase: int) -> bool:
        """Whether that connection is there, and half open."""
        conn = self._connection(slot)
        return bool(conn.phase == phase and conn.state & 0xF == layout.TCP_STATES.index("SYN_SENT"))

    def _ask_again(self, event: Event) -> None:
        if self._waits(event.slot, event.phase):
            self._injector.inject_anywhere(frames.client_ack(self._connection(event.slot)))

    def _hold(self, event: Event, now: float) -> None:
        held = self._held.get((event.slot, event.phase))
        size = len(event.frame) + _OVERHEAD
        if held and held.bytes + size > MOST_OF_CONNECTION:
            self._drop(1)
            return
        if held is None:
            held = self._held[event.slot, event.phase] = _Held(now + _LIFE)
        held.payload.append((event.ifindex, event.frame))
        self._bytes += size
        while self._bytes > MOST_BYTES:  # those that waited longest make room
            self._drop(len(self._take(next(iter(self._held))).payload))

    def _take(self, key: tuple[int, int]) -> _Held:
        held = self._held.pop(key)
        self._bytes -= held.bytes
        return held

    def _release(self, key: tuple[int, int]) -> None:
        if key in self._held:
            self._inject(self._take(key).payload)

    def _inject(self, payload: list[tuple[int, bytes]]) -> None:
        for ifindex, frame in payload:
            try:
                self._injector.inject(frame, ifindex)
            except libbpf.BpfError:  # the device is gone
                self._drop(1)

    def _drop(self, count: int) -> None:
        count_given_up(self._tables, count)
