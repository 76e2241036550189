"""Lists of clients that a service allows or denies, and its limits of new connections.

In the map ``clients`` the longest prefix of a client's address decides (bpf/defence.h), and
counts the packets it decided on. An allow list that is to deny all others is a prefix of no
bits there, which is worked out here.

A change touches only the prefixes that differ, so that the others go on counting. Longer
prefixes are put in before shorter ones, and shorter ones taken out before longer ones, after
that: so for each client the verdict changes once, from the old to the new.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping
from errno import EINVAL, ENOMEM
from functools import cached_property

from xlvs.dataplane import bulk, journal, layout
from xlvs.dataplane.journal import Change, Entries, Write
from xlvs.dataplane.rows import read_service
from xlvs.dataplane.tables import Tables
from xlvs.errors import IpvsError
from xlvs.model import AF_INET, Defence, DefenceEntry, Prefix, ServiceKey

MAP = "clients"
LIMIT_MOST = 0xFFFFFFFF
# Flags of a service's row.
LISTED = layout.SERVICE_LISTED | layout.SERVICE_LISTED_ALWAYS

_KEY, _VALUE = struct.Struct("=II16s"), struct.Struct("=IIQ")
_SERVICE_BITS = 32  # what a key has in front of the address
_PART = 1 << 14  # entries in one step of a change

Verdicts = dict[Prefix, int]


def check(key: ServiceKey, defence: Defence) -> None:
    """EINVAL for what makes no sense: another family's prefix, host bits, a limit below 0."""
    size = 4 if key.family == AF_INET else 16
    for address, bits in defence.clients:
        if len(address) != size or not 0 <= bits <= 8 * size:
            raise IpvsError(EINVAL)
        if int.from_bytes(address, "big") & ((1 << (8 * size - bits)) - 1):
            raise IpvsError(EINVAL)
    if not (0 <= defence.limit <= LIMIT_MOST and 0 <= defence.source_limit <= LIMIT_MOST):
        raise IpvsError(EINVAL)


def denies_others(clients: Mapping[Prefix, bool]) -> bool:
    """Whether an allowed prefix lies in no denied one: then who is in none is denied.

    False where a prefix of no bits says what holds for everybody.
    """
    if any(not bits for _, bits in clients):
        return False
    covering = -1  # the last address of the denied prefix that we are in
    for first, bits, size, allowed in sorted(
        (int.from_bytes(address, "big"), bits, 8 * len(address), allowed)
        for (address, bits), allowed in clients.items()
    ):
        if allowed and first > covering:
            return True
        if not allowed:
            covering = max(covering, first + (1 << (size - bits)) - 1)
    return False


def layout_of(clients: Mapping[Prefix, bool], family: int) -> Verdicts:
    """What stands in the map for these clients."""
    found = {
        prefix: layout.CLIENT_ALLOW if allowed else layout.CLIENT_DENY for prefix, allowed in clients.items()
    }
    if denies_others(clients):
        found[bytes(4 if family == AF_INET else 16), 0] = layout.CLIENT_OTHERS
    return found


def allows(clients: Mapping[Prefix, bool], address: bytes) -> bool:
    """Whether a client is served: what the map comes to, worked out the long way."""
    size = 8 * len(address)
    number = int.from_bytes(address, "big")
    for bits in range(size, -1, -1):
        start = number >> (size - bits) << (size - bits)
        allowed = clients.get((start.to_bytes(len(address), "big"), bits))
        if allowed is not None:
            return allowed
    return not denies_others(clients)


# -- reading -----------------------------------------------------------------


def read_all(tables: Tables) -> dict[int, dict[Prefix, tuple[int, int]]]:
    """Verdicts and packets of all prefixes, by row of the service."""
    found: dict[int, dict[Prefix, tuple[int, int]]] = {}
    keys, values = bulk.entries(tables.fd(MAP), _KEY.size, _VALUE.size)
    for (bits, row, address), (verdict, _, packets) in zip(
        _KEY.iter_unpack(keys), _VALUE.iter_unpack(values), strict=True
    ):
        size = 4 if tables.service_row(row).family == AF_INET else 16
        found.setdefault(row, {})[address[:size], bits - _SERVICE_BITS] = verdict, packets
    return found


def entries(tables: Tables) -> list[DefenceEntry]:
    """All services that have a defence, with what it did."""
    used = tables.settings.services_high
    rows = [(number, tables.service_row(number)) for number in range(used)]
    listed = read_all(tables)
    return [
        _entry(tables, number, row, listed.get(number, {}))
        for number, row in rows
        if row.flags & layout.SERVICE_USED and (row.flags & LISTED or row.syn_limit or row.source_limit)
    ]


def _defence(row: layout.ServiceRow, listed: Mapping[Prefix, tuple[int, int]]) -> Defence:
    return Defence(
        row.syn_limit,
        row.source_limit,
        bool(row.flags & layout.SERVICE_LISTED_ALWAYS),
        {
            prefix: verdict == layout.CLIENT_ALLOW
            for prefix, (verdict, _) in listed.items()
            if verdict != layout.CLIENT_OTHERS
        },
    )


def _entry(
    tables: Tables, number: int, row: layout.ServiceRow, listed: Mapping[Prefix, tuple[int, int]]
) -> DefenceEntry:
    defence = _defence(row, listed)
    counted = {prefix: packets for prefix, (_, packets) in listed.items() if prefix in defence.clients}
    others = [packets for verdict, packets in listed.values() if verdict == layout.CLIENT_OTHERS]
    cpus = range(tables.settings.cpus)
    counters = [tables.row("counters", layout.CounterRow, cpu * layout.ROWS + number) for cpu in cpus]
    return DefenceEntry(
        read_service(row).key,
        defence,
        counted,
        others[0] if others else None,
        sum(counter.over_limit for counter in counters),
        sum(counter.over_source_limit for counter in counters),
    )


# -- writing -----------------------------------------------------------------


def listed_flags(defence: Defence) -> int:
    """The flags of a service's row that its lists come to."""
    return layout.SERVICE_LISTED * bool(defence.clients) | layout.SERVICE_LISTED_ALWAYS * defence.every_packet


def steps(before: Mapping[Prefix, int], after: Mapping[Prefix, int]) -> tuple[list[Prefix], list[Prefix]]:
    """In which order prefixes are put in (or get another verdict), and then are taken out."""
    added = [prefix for prefix, verdict in after.items() if before.get(prefix) != verdict]
    return (
        sorted(added, key=lambda prefix: -prefix[1]),
        sorted(before.keys() - after.keys(), key=lambda prefix: prefix[1]),
    )


class Difference:
    """What is to be written so that a service has this defence, before and after its own row is."""

    def __init__(self, tables: Tables, number: int, family: int, old: Defence, new: Defence) -> None:
        self._tables = tables
        self._number = number
        self._old, self._new = old, new
        before, self._after = (layout_of(each.clients, family) for each in (old, new))
        self._added, self._gone = steps(before, self._after)
        self.more = len(self._after) - len(before)
        """Entries that there will be more than now."""

    def first(self) -> list[Change]:
        """Prefixes that are new or of another verdict; counters that begin at 0."""
        zeroed = self._zeroed() if self._old == Defence() else ()
        return [*zeroed, *_writes(self._number, self._added, self._after)]

    def last(self) -> list[Change]:
        """The limits; then prefixes that are no more."""
        limits = journal.field(
            "services",
            layout.ServiceRow,
            self._number,
            syn_limit=self._new.limit,
            source_limit=self._new.source_limit,
        )
        return [*limits, *_writes(self._number, self._gone, None)]

    def _zeroed(self) -> Iterable[Write]:
        size, at = ctypes.sizeof(layout.CounterRow), layout.CounterRow.over_limit.offset
        length = layout.CounterRow.syns.offset - at
        for cpu in range(self._tables.settings.cpus):
            yield Write("counters", (cpu * layout.ROWS + self._number) * size + at, bytes(length))


class Lists:
    """The defences in the maps while nobody changes them: the lists are read once, when asked for."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def _listed(self) -> dict[int, dict[Prefix, tuple[int, int]]]:
        return read_all(self._tables)

    def defence(self, number: int) -> Defence:
        """That of the service in a row."""
        row = self._tables.service_row(number)
        return _defence(row, self._listed.get(number, {}) if row.flags & layout.SERVICE_LISTED else {})

    def removal(self, numbers: Iterable[int]) -> list[Change]:
        """What takes the lists of services away that are deleted, by their rows."""
        listed = [number for number in numbers if self._tables.service_row(number).flags & LISTED]
        gone = ((number, list(self._listed.get(number, {}))) for number in listed)
        return [change for number, prefixes in gone for change in _writes(number, prefixes, None)]

    def check_room(self, more: int) -> None:
        """ENOMEM where the map has no room for so many more prefixes."""
        if more > 0 and more + sum(map(len, self._listed.values())) > layout.CLIENTS:
            raise IpvsError(ENOMEM, f"no room for more than {layout.CLIENTS} prefixes")


def _writes(number: int, prefixes: list[Prefix], verdicts: Mapping[Prefix, int] | None) -> list[Change]:
    changes: list[Change] = []
    for at in range(0, len(prefixes), _PART):
        part = prefixes[at : at + _PART]
        keys = b"".join(_KEY.pack(bits + _SERVICE_BITS, number, address) for address, bits in part)
        values = None
        if verdicts is not None:
            values = b"".join(_VALUE.pack(verdicts[prefix], 0, 0) for prefix in part)
        changes.append(Entries(MAP, len(part), keys, values))
    return changes
