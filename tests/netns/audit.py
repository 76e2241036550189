"""Is the connection table sound? Run as a program in the director's namespace; prints JSON.

Every index key must name a live slot with that tuple, every live slot must have its keys,
no slot may be stuck on its way, and every destination's load must be its live connections.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xlvs.dataplane import layout, libbpf, migrate
from xlvs.dataplane.tables import Tables

KEY_SIZE = {"conn_index4": ctypes.sizeof(ctypes.c_uint8 * 16), "conn_index6": 40}


@contextmanager
def no_expiry(tables: Tables) -> Iterator[None]:
    """The timer ends nothing: slots, index and loads are read one after the other."""
    chunk, tables.settings.scan_chunk = tables.settings.scan_chunk, 0
    time.sleep(0.1)  # it may be at work just now
    try:
        yield
    finally:
        tables.settings.scan_chunk = chunk


def audit(tables: Tables) -> dict[str, Any]:
    memory, size = tables.memory("conns"), ctypes.sizeof(layout.ConnRow)
    slots = libbpf.map_info(tables.fd("conns"))[2]
    phases = tables.column("conns", layout.ConnRow, "phase", slots)
    live = {
        slot: layout.ConnRow.from_buffer_copy(memory, slot * size)
        for slot, phase in enumerate(phases)
        if phase & layout.PHASE == layout.LIVE
    }
    stuck = [
        slot for slot, phase in enumerate(phases) if phase & layout.PHASE in (layout.CLAIMED, layout.DYING)
    ]
    keys = {slot: dict(_swapped(row, slot)) for slot, row in live.items()}
    index = _index(tables)
    leaked = [
        f"{family} {key.hex()} -> {reference:#x}"
        for family, entries in index.items()
        for key, reference in entries.items()
        if keys.get(reference & layout.REF_SLOT, {}).get(key) != reference
    ]
    missing = []
    entries = {key: reference for family in index.values() for key, reference in family.items()}
    for slot, row in live.items():
        if migrate.is_replaced(row, slot, entries.get):
            continue
        for key, reference in keys[slot].items():
            there = entries.get(key)
            # One real server's answers may belong to two connections: the newest has the key.
            shared = reference & layout.REF_REPLY and there is not None
            if there != reference and not shared:
                missing.append(f"slot {slot} {key.hex()} {reference:#x}: {there}")
    return {
        "live": len(live),
        "stuck": stuck,
        "leaked": leaked,
        "missing": missing,
        "loads": _loads(tables, live),
        "outcomes": {
            name: sum(cpus)
            for (name, _), cpus in zip(layout.OUTCOMES, tables.outcome_counts(), strict=True)
            if sum(cpus)
        },
    }


def _swapped(row: layout.ConnRow, slot: int) -> list[tuple[bytes, int]]:
    return list(migrate._keys(row, slot))


def _index(tables: Tables) -> dict[str, dict[bytes, int]]:
    index: dict[str, dict[bytes, int]] = {}
    for name, size in KEY_SIZE.items():
        index[name] = {}
        for key in list(libbpf.keys(tables.fd(name), size)):
            value = libbpf.lookup(tables.fd(name), key, 4)
            if value is not None:
                index[name][key] = int.from_bytes(value, "little")
    return index


def _loads(tables: Tables, live: dict[int, layout.ConnRow]) -> list[str]:
    """Destinations whose counters are not their live connections."""
    active: Counter[int] = Counter()
    inactive: Counter[int] = Counter()
    waiting: Counter[int] = Counter()  # of SYNPROXY
    for row in live.values():
        (inactive if row.state & layout.STATE_INACTIVE else active)[row.dest] += 1
        waiting[row.dest] += bool(row.flags & layout.CONN_HALF_OPEN)
    wrong = []
    for number in range(tables.settings.dests_high):
        load = tables.load_row(number)
        counted = (load.active, load.inactive, load.half_open)
        there = (active[number], inactive[number], waiting[number])
        if counted != there:
            wrong.append(f"destination {number}: counted {counted}, there are {there}")
    return wrong


if __name__ == "__main__":
    pinned = Tables()
    with no_expiry(pinned):
        found = audit(pinned)
    print(json.dumps(found))
