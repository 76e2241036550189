"""Events of the data plane, as the helper reads them from the ring buffer."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from xlvs.dataplane import layout_events, libbpf
from xlvs.dataplane.tables import Tables

_HEAD = ctypes.sizeof(layout_events.EventHead)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the data plane leaves to the helper."""

    kind: int  # layout_events.EVENT_*
    ifindex: int  # device that the frame came in by
    slot: int  # the connection's slot and phase word; 0 and 0 where there is none
    phase: int
    value: int  # what the kind says of it
    frame: bytes  # from the link header on


class Events:
    """The reading end; one reader at a time."""

    def __init__(self, tables: Tables) -> None:
        self._ring = libbpf.RingBuffer(tables.fd("events"))
        self._ring.poll(0)  # what was sent to a helper that is gone is too old to be of use

    def poll(self, seconds: float) -> list[Event]:
        """Events that came, waiting that long for the first one."""
        return [parse(record) for record in self._ring.poll(seconds)]

    def close(self) -> None:
        """Read no more."""
        self._ring.close()


def parse(record: bytes) -> Event:
    """An event from its bytes in the ring."""
    head = layout_events.EventHead.from_buffer_copy(record)
    return Event(
        head.kind, head.ifindex, head.slot, head.phase, head.value, record[_HEAD : _HEAD + head.length]
    )
