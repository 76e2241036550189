"""Moving live connections into tables of another size, under traffic.

Both tables exist for a moment. Everything is copied, the programs are swapped, and
what changed meanwhile is copied again. Until then `settings.flags` has MIGRATING:
the timer ends nothing, and a TCP packet of no known connection is dropped (its sender
repeats it) instead of being answered by the director's own stack.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.tables import Tables
from xlvs.errors import XlvsError

MOVED_MAPS = ("conns", "conn_index4", "conn_index6")

_SIZE = ctypes.sizeof(layout.ConnRow)
_MASQ = 0


class Migration:
    """One move, from the pinned tables to those of a freshly loaded object."""

    def __init__(self, tables: Tables, plane: libbpf.BpfObject, slots: int) -> None:
        self._tables = tables
        self._slots = slots
        self._target = libbpf.map_memory(plane.map_fd("conns"))
        self._index = {2: plane.map_fd("conn_index4"), 10: plane.map_fd("conn_index6")}
        self._placed: dict[int, int] = {}  # old slot -> new slot
        self._next = 0

    def begin(self) -> None:
        """Copy what lives now; XlvsError (and nothing changed) if it does not fit."""
        live = self._live_slots()
        if len(live) > self._slots * 3 // 4:
            raise XlvsError(f"{len(live)} live connections do not fit a table of {self._slots}")
        self._tables.settings.flags |= layout.MIGRATING
        for slot in live:
            self._copy(slot)

    def finish(self) -> None:
        """After the swap: bring over what came or moved on since, drop what ended."""
        live = set(self._live_slots())
        for slot in live:
            if slot not in self._placed or not self._same_connection(slot):
                self._copy(slot)
            else:
                self._update(slot)
        for slot in [*self._placed]:
            if slot not in live:
                self._remove(self._placed.pop(slot))
        self._tables.settings.flags &= ~layout.MIGRATING

    def _live_slots(self) -> list[int]:
        _, _, slots = libbpf.map_info(self._tables.fd("conns"))
        phases = self._tables.column("conns", layout.ConnRow, "phase", slots)
        return [slot for slot, phase in enumerate(phases) if phase & layout.PHASE == layout.LIVE]

    def _old(self, slot: int) -> layout.ConnRow:
        return layout.ConnRow.from_buffer_copy(self._tables.row("conns", layout.ConnRow, slot))

    def _new(self, slot: int) -> layout.ConnRow:
        return layout.ConnRow.from_buffer(self._target, slot * _SIZE)

    def _copy(self, slot: int) -> None:
        if slot in self._placed:
            self._remove(self._placed[slot])
        row = self._old(slot)
        place = self._free_place(slot)
        self._placed[slot] = place
        target = self._new(place)
        row.phase = layout.LIVE
        ctypes.memmove(ctypes.addressof(target), ctypes.addressof(row), _SIZE)
        for key, reference in _keys(row, place):
            libbpf.update(self._index[row.family], key, reference.to_bytes(4, "little"))

    def _update(self, slot: int) -> None:
        """Time, state and counts: the packets' part, from phase on."""
        at = layout.ConnRow.seen.offset
        row, target = self._old(slot), self._new(self._placed[slot])
        if ((row.seen - target.seen) & 0xFFFFFFFF) < 0x80000000:
            ctypes.memmove(ctypes.addressof(target) + at, ctypes.addressof(row) + at, _SIZE - at)

    def _remove(self, place: int) -> None:
        row = self._new(place)
        for key, reference in _keys(row, place):
            if libbpf.lookup(self._index[row.family], key, 4) == reference.to_bytes(4, "little"):
                libbpf.delete(self._index[row.family], key)
        row.phase = layout.FREE

    def _same_connection(self, slot: int) -> bool:
        """Whether the slot still holds the flow that was copied: its identity part is the same."""
        size = layout.ConnRow.back.offset
        return bytes(self._old(slot))[:size] == bytes(self._new(self._placed[slot]))[:size]

    def _free_place(self, slot: int) -> int:
        """The same place if it is free, else the next one that is."""
        place = slot % self._slots
        if self._new(place).phase & layout.PHASE != layout.FREE:
            place = self._next
            while self._new(place).phase & layout.PHASE != layout.FREE:
                place = (place + 1) % self._slots
            self._next = place
        return place


def _keys(row: layout.ConnRow, slot: int) -> Iterator[tuple[bytes, int]]:
    """The index entries of a connection (conn.h: tuple_of_request, tuple_of_reply)."""
    width = 4 if row.family == 2 else 16
    caddr, vaddr, daddr = (bytes(each)[:width] for each in (row.caddr, row.vaddr, row.daddr))
    cport, vport, dport = (each.to_bytes(2, "little") for each in (row.cport, row.vport, row.dport))
    tail = bytes((row.protocol, 0, 0, 0))
    yield caddr + vaddr + cport + vport + tail, slot
    masq = row.flags & layout.CONN_METHOD == _MASQ
    if masq or row.flags & layout.CONN_LOCAL:
        source, port = (daddr, dport) if masq else (vaddr, vport)
        yield source + caddr + port + cport + tail, slot | layout.REF_REPLY
