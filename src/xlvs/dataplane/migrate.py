"""Moving live connections into tables of another size, under traffic.

Both tables exist for a moment. Everything is copied, what changed meanwhile is copied
again, the programs are swapped, and the little that came in between is brought over.
Until then `settings.flags` has MIGRATING: the timer ends nothing, and a TCP packet of no
known connection is dropped (its sender repeats it) instead of being answered by the
director's own stack.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.tables import Tables
from xlvs.errors import XlvsError
from xlvs.model import AF_INET, AF_INET6, Forward

if TYPE_CHECKING:
    from numpy import uint32
    from numpy.typing import NDArray

_End = tuple[ctypes.Array[ctypes.c_uint8], int]  # address and port, as they lie in the row

MOVED_MAPS = ("conns", "conn_index4", "conn_index6")

_SIZE = ctypes.sizeof(layout.ConnRow)
_HOT = layout.ConnRow.seen.offset  # from here on packets write, save for phase
_IDENTITY = layout.ConnRow.back.offset  # up to here nothing changes in a connection's life
_FULL = 0.75  # a table fuller than this finds no free slot soon enough
_GOLDEN_RATIO = 0x9E3779B97F4A7C15  # of 2^64
_SPARE = 4096  # places kept for connections that come between the copy and the swap


class Migration:
    """One move, from the pinned tables to those of a freshly loaded object."""

    def __init__(self, tables: Tables, plane: libbpf.BpfObject, slots: int) -> None:
        self._tables = tables
        self._slots = slots
        self._source = tables.memory("conns")
        self._target = libbpf.map_memory(plane.map_fd("conns"))
        self._index = {16: plane.map_fd("conn_index4"), 40: plane.map_fd("conn_index6")}  # by key size
        self._engine_data = plane.map_fd("engine_data")
        self._placed: dict[int, int] = {}  # old slot -> new slot
        self._copied: dict[int, bytes] = {}  # old slot -> what was copied
        self._spare: list[int] = []
        self._next = 0

    def begin(self) -> None:
        """Copy what lives now; XlvsError (and nothing changed) if it does not fit."""
        live = self._live()
        if len(live) > self._slots * _FULL:
            raise XlvsError(f"{len(live)} live connections do not fit a table of {self._slots}")
        self._tables.settings.flags |= layout.MIGRATING
        for slot in live:
            self._copy(slot)
        self._reconnect()
        # Taken while nobody else claims places here: user space has no compare-and-swap.
        for _ in range(min(_SPARE, (self._slots - len(live)) // 8)):
            place = self._free_place()
            self._new(place).phase = layout.CLAIMED
            self._spare.append(place)

    def catch_up(self) -> None:
        """Just before the swap: bring over what came, moved on or ended since."""
        live = self._live()
        for slot in live:
            row = self._old(slot)
            if slot not in self._placed or row[:_IDENTITY] != self._copied[slot][:_IDENTITY]:
                self._copy(slot)
            elif row[_HOT:] != self._copied[slot][_HOT:]:
                self._renew(slot, row)
        for slot in self._placed.keys() - set(live):
            self._remove(self._placed.pop(slot))
        self._reconnect()

    def _reconnect(self) -> None:
        """Have connections name their templates by the places that those have now."""
        for slot, place in self._placed.items():
            old = layout.ConnRow.from_buffer_copy(self._copied[slot])
            if not old.template_phase or self._new(place).phase != layout.LIVE:
                continue
            template = self._placed.get(old.template_slot)
            if template is None:
                self._new(place).template_phase = 0
            else:
                self._new(place).template_slot, self._new(place).template_phase = template, layout.LIVE

    def finish(self) -> None:
        """After the swap, when no program uses the old tables any more."""
        self.catch_up()
        for place in self._spare:
            self._new(place).phase = layout.FREE

    def _live(self) -> list[int]:
        phases = _words(self._source, "phase")
        found: list[int] = (phases & layout.PHASE == layout.LIVE).nonzero()[0].tolist()
        return found

    def _old(self, slot: int) -> bytes:
        return self._source[slot * _SIZE : (slot + 1) * _SIZE]

    def _new(self, place: int) -> layout.ConnRow:
        return layout.ConnRow.from_buffer(self._target, place * _SIZE)

    def _copy(self, slot: int) -> None:
        if slot in self._placed:
            self._remove(self._placed.pop(slot))
        place = self._spare.pop() if self._spare else self._free_place(slot)
        content = self._old(slot)
        row = layout.ConnRow.from_buffer_copy(content)
        row.phase = layout.LIVE
        self._placed[slot], self._copied[slot] = place, content
        ctypes.memmove(ctypes.addressof(self._new(place)), ctypes.addressof(row), _SIZE)
        if not is_replaced(row, slot, self._reference):
            for key, reference in _keys(row, place):
                libbpf.update(self._index[len(key)], key, reference.to_bytes(4, "little"))
        if row.flags & layout.CONN_ENGINE:
            size = ctypes.sizeof(layout.EngineData)
            data = libbpf.lookup(self._tables.fd("engine_data"), slot.to_bytes(4, "little"), size)
            libbpf.update(self._engine_data, place.to_bytes(4, "little"), data or bytes(size))

    def _reference(self, key: bytes) -> int | None:
        """What a key names in the old index."""
        index = self._tables.fd("conn_index4" if len(key) == 16 else "conn_index6")
        found = libbpf.lookup(index, key, 4)
        return None if found is None else int.from_bytes(found, "little")

    def _renew(self, slot: int, row: bytes) -> None:
        """What packets changed, unless packets have changed the copy too: that is the newer one."""
        at = self._placed[slot] * _SIZE + _HOT
        if self._target[at : at + _SIZE - _HOT] == self._copied[slot][_HOT:]:
            self._target[at : at + _SIZE - _HOT] = row[_HOT:]
            self._copied[slot] = row

    def _remove(self, place: int) -> None:
        row = self._new(place)
        if row.phase & layout.PHASE != layout.LIVE:
            return  # a packet has ended it already
        for key, reference in _keys(row, place):
            if libbpf.lookup(self._index[len(key)], key, 4) == reference.to_bytes(4, "little"):
                libbpf.delete(self._index[len(key)], key)
        row.phase = layout.FREE

    def _free_place(self, slot: int = 0) -> int:
        """The same place if it is free, else the next one that is."""
        place = slot % self._slots
        if self._new(place).phase & layout.PHASE != layout.FREE:
            place = self._next
            while self._new(place).phase & layout.PHASE != layout.FREE:
                place = (place + 1) % self._slots
            self._next = place
        return place


def abandon(tables: Tables) -> None:
    """Back to the old tables for good: what they hold has not been looked at for a while."""
    memory, now = tables.memory("conns"), tables.settings.now
    live = _words(memory, "phase") & layout.PHASE == layout.LIVE
    _words(memory, "seen")[live] = now
    tables.settings.flags &= ~layout.MIGRATING


def _words(memory: object, name: str) -> NDArray[uint32]:
    """One 32-bit field of every slot, live."""
    import numpy

    at = getattr(layout.ConnRow, name).offset // 4
    return numpy.frombuffer(memory, dtype=numpy.uint32)[at :: _SIZE // 4]  # type: ignore[call-overload, no-any-return]


def is_replaced(row: layout.ConnRow, slot: int, reference: Callable[[bytes], int | None]) -> bool:
    """Whether it has lost its keys to a successor, and lives on for those that hang on it (reuse.h).

    ``reference`` gives what a key names in the index, or None.
    """
    return bool(row.flags & layout.CONN_WATCHED) and all(
        reference(key) != names for key, names in _keys(row, slot)
    )


def _keys(row: layout.ConnRow, slot: int) -> Iterator[tuple[bytes, int]]:
    """The index entries of a connection (index.h: tuple_of_request, tuple_of_reply)."""
    if row.flags & layout.CONN_ENGINE:
        yield _engine_key(row), slot
        return
    kind = layout.KEY_TEMPLATE if row.flags & layout.CONN_TEMPLATE else layout.KEY_CONN
    if row.flags & layout.CONN_NO_CPORT:
        kind = layout.KEY_EXPECT
    client, virtual = (row.caddr, row.cport), (row.vaddr, row.vport)
    if not row.flags & layout.CONN_ONE_PACKET:
        yield _key(client, virtual, row.family, row.protocol, kind), slot
    method = row.flags & layout.CONN_METHOD
    local = method == Forward.FULLNAT
    inside = local or method == Forward.MASQ
    if row.flags & layout.CONN_ONE_PACKET and not local:
        return
    if not kind and (inside or row.flags & layout.CONN_LOCAL):
        source = (row.daddr, row.dport) if inside else virtual
        target = (row.laddr, row.lport) if local else client
        yield _key(source, target, row.server_family, row.protocol), slot | layout.REF_REPLY


def _key(source: _End, target: _End, family: int, protocol: int, kind: int = 0) -> bytes:
    """struct xlvs_key4 or xlvs_key6"""
    width = 4 if family == AF_INET else 16
    addresses = bytes(source[0])[:width] + bytes(target[0])[:width]
    ports = source[1].to_bytes(2, "little") + target[1].to_bytes(2, "little")
    return addresses + ports + bytes((protocol, kind, 0, 0))


def _engine_key(row: layout.ConnRow) -> bytes:
    """The key of a persistence engine's template (index.h: tuple_of_engine)."""
    first, second = (int.from_bytes(bytes(row.caddr)[at : at + 8], "little") for at in (0, 8))
    second = second ^ first * _GOLDEN_RATIO if row.family == AF_INET6 else first
    client: bytes = bytes(row.laddr)[:8] + (second & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
    ports: bytes = row.cport.to_bytes(2, "little") + row.vport.to_bytes(2, "little")
    return client + bytes(row.vaddr) + ports + bytes((row.protocol, layout.KEY_ENGINE, 0, 0))
