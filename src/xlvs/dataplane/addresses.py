"""Which addresses fragments may be for: VIPs, and real servers whose answers come back (NAT, FULLNAT).

A fragment other than the first names no port, so that nobody can tell the service it is
for; what is for none of these addresses is left to the kernel at once. Real servers' ports
are there too, for nat_icmp_send; and so that a server of a service with a persistence
engine may begin a conversation (bpf/caller.h), as the kernel allows for the engine sip, the
only one there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.journal import Entry
from xlvs.dataplane.rows import member_dests, read_destination, read_service
from xlvs.model import L4, Destination, Forward, Service

if TYPE_CHECKING:
    from xlvs.dataplane.commit import StagedService
    from xlvs.dataplane.tables import Tables

MAP = "addresses"

Kinds = dict[bytes, int]
Rows = Iterable[tuple[Destination, int]]

_FLAGS = (1 << layout.ADDRESS_ROW) - 1


def changes(tables: Tables, living: Sequence[StagedService], dead: Sequence[StagedService]) -> list[Entry]:
    """What is to be written for these services, which are all that change."""
    before: Kinds = {}
    after: Kinds = {}
    for staged in (*living, *dead):
        if staged.old_scheduler is not None and staged.row is not None:
            old = [(read_destination(tables.dest_row(number)), number) for number in staged.old_rows]
            _add(before, read_service(tables.service_row(staged.row)), old)
    for staged in reversed(living):  # the newest first, which the kernel finds first
        _add(after, staged.service, [(dest.destination, dest.row or 0) for dest in staged.dests])
    lost = {key for key, kind in before.items() if kind != after.get(key)}
    if lost:
        for key, kind in _others(tables, {staged.row for staged in (*living, *dead)}).items():
            _merge(after, key, kind)
    else:
        for key in after:
            _merge(after, key, _kind(tables, key))
    wanted = {key: after.get(key) for key in (*after, *sorted(lost))}
    return [_entry(key, kind) for key, kind in wanted.items() if kind != (_kind(tables, key) or None)]


def wanted(service: Service, destinations: Rows) -> Kinds:
    """The keys of one service, and of each layout.ADDRESS_* and a row."""
    kinds: Kinds = {}
    virtual = service.key
    if not virtual.fwmark:
        _merge(kinds, _key(virtual.address, virtual.family), layout.ADDRESS_VIRTUAL)
    calls = service.pe_name and virtual.protocol == L4.UDP  # a mark is no address to call from
    for each, row in destinations:
        if each.forward not in (Forward.MASQ, Forward.FULLNAT):
            continue
        flags = layout.ADDRESS_REAL
        if calls and each.forward == Forward.MASQ:  # FULLNAT's servers answer local addresses only
            flags |= layout.ADDRESS_CALLER
        address, family = each.key.address, each.key.family
        _merge(kinds, _key(address, family), layout.ADDRESS_REAL)
        if each.key.port:  # of any protocol where the service is a mark
            _merge(
                kinds,
                _key(address, family, each.key.port, virtual.protocol),
                flags | row << layout.ADDRESS_ROW,
            )
    return kinds


def _merge(kinds: Kinds, key: bytes, kind: int) -> None:
    """Flags are joined; of two rows, which both have the address, a caller's stays, else the first."""
    first, other = kinds.get(key, kind), kind
    if kind & ~first & layout.ADDRESS_CALLER:
        first, other = kind, first
    kinds[key] = first | other & _FLAGS


def _add(kinds: Kinds, service: Service, destinations: Rows) -> None:
    for key, kind in wanted(service, destinations).items():
        _merge(kinds, key, kind)


def _others(tables: Tables, changed: set[int | None]) -> Kinds:
    """Those of every service but the changed ones (rows), as the maps have them."""
    kinds: Kinds = {}
    for number in range(tables.settings.services_high):
        row = tables.service_row(number)
        if row.flags & layout.SERVICE_USED and number not in changed:
            rows = member_dests(tables, row)
            dests = [(read_destination(tables.dest_row(each)), each) for each in rows]
            _add(kinds, read_service(row), dests)
    return kinds


def _kind(tables: Tables, key: bytes) -> int:
    found = libbpf.lookup(tables.fd(MAP), key, 4)
    return int.from_bytes(found, "little") if found else 0


def _entry(key: bytes, kind: int | None) -> Entry:
    return Entry(MAP, key, None if kind is None else kind.to_bytes(4, "little"))


def _key(address: bytes, family: int, port: int = 0, protocol: int = 0) -> bytes:
    """struct xlvs_service_key"""
    return address.ljust(16, b"\0") + port.to_bytes(2, "big") + bytes((protocol, family))
