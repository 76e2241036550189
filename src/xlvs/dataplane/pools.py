"""FULLNAT's local addresses in the maps: stretches of `locals`, two words of a service's row.

A change writes a new stretch and swaps the word, as with destinations: a packet chooses from
the old addresses or from the new ones. How often a port was taken moves along with an address.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from xlvs.dataplane import layout
from xlvs.dataplane.journal import Write
from xlvs.dataplane.regions import Regions
from xlvs.dataplane.rows import local_rows
from xlvs.dataplane.tables import Tables

_SIZES = (4, 16)  # bytes of an address, in the order of service.locals


class Pools:
    """Where the pools of one transaction go; ``following`` is what settings.locals_next becomes."""

    def __init__(self, tables: Tables, used: Iterable[layout.ServiceRow]) -> None:
        words = (word for row in used for word in row.locals)
        self._tables = tables
        self._regions = Regions("local addresses", layout.LOCALS, tables.settings.locals_next, words)

    @property
    def following(self) -> int:
        """Where to look for free rows next."""
        return self._regions.following

    def changes(self, number: int, addresses: list[bytes], *, new: bool) -> list[Write]:
        """What gives a service (its row) these addresses; ``new`` when the row was another's before."""
        row = self._tables.service_row(number)
        conflicts = {} if new else dict(local_rows(self._tables, row))
        pools = [[each for each in addresses if len(each) == size] for size in _SIZES]
        before = [[each for each in conflicts if len(each) == size] for size in _SIZES]
        writes, swaps = [], []
        for family, pool in enumerate(pools):
            if pool == before[family]:
                continue
            word = self._regions.take(len(pool))
            rows = (layout.LocalRow(layout.wire_address(each), conflicts.get(each, 0)) for each in pool)
            at = (word & 0xFFFFFFFF) * ctypes.sizeof(layout.LocalRow)
            if pool:
                writes.append(Write("locals", at, b"".join(map(bytes, rows))))
            swaps.append(_swap(number, family, word))
        return writes + swaps


def given_up(number: int, row: layout.ServiceRow) -> list[Write]:
    """What takes a service's addresses away for good."""
    return [_swap(number, family, 0) for family, word in enumerate(row.locals) if word]


def _swap(number: int, family: int, word: int) -> Write:
    place = layout.ServiceRow.locals.offset + 8 * family
    return Write("services", number * ctypes.sizeof(layout.ServiceRow) + place, word.to_bytes(8, "little"))
