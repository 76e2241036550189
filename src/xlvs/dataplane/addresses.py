"""Which addresses fragments may be for: VIPs, and real servers under NAT, whose answers come back.

A fragment other than the first names no port, so that nobody can tell the service it is
for; what is for none of these addresses is left to the kernel at once. Real servers' ports
are there too, for nat_icmp_send.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.journal import Entry
from xlvs.dataplane.rows import member_dests, read_destination, read_service
from xlvs.model import Destination, Forward, ServiceKey

if TYPE_CHECKING:
    from xlvs.dataplane.commit import StagedService
    from xlvs.dataplane.tables import Tables

MAP = "addresses"

Kinds = dict[bytes, int]


def changes(tables: Tables, living: Iterable[StagedService], dead: Iterable[StagedService]) -> list[Entry]:
    """What is to be written for these services, which are all that change."""
    before: Kinds = {}
    after: Kinds = {}
    for staged in (*living, *dead):
        old = [read_destination(tables.dest_row(number)) for number in staged.old_rows]
        if staged.old_scheduler is not None:
            _add(before, staged.service.key, old)
    for staged in living:
        _add(after, staged.service.key, [dest.destination for dest in staged.dests])
    result = [
        _entry(key, kind | _kind(tables, key)) for key, kind in after.items() if kind & ~_kind(tables, key)
    ]
    lost = {key for key, kind in before.items() if kind & ~after.get(key, 0)}
    if lost:
        for key, kind in _others(tables, {staged.row for staged in (*living, *dead)}).items():
            after[key] = after.get(key, 0) | kind
        result += [_entry(key, after.get(key)) for key in sorted(lost)]
    return result


def wanted(service: ServiceKey, destinations: Iterable[Destination]) -> Kinds:
    """The keys of one service, and layout.ADDRESS_* of each."""
    kinds: Kinds = {}
    if not service.fwmark:
        kinds[_key(service.address, service.family)] = layout.ADDRESS_VIRTUAL
    for each in destinations:
        if each.forward != Forward.MASQ:
            continue
        address, family = each.key.address, each.key.family
        server = _key(address, family)
        kinds[server] = kinds.get(server, 0) | layout.ADDRESS_REAL
        if each.key.port:  # of any protocol where the service is a mark
            kinds[_key(address, family, each.key.port, service.protocol)] = layout.ADDRESS_REAL
    return kinds


def _add(kinds: Kinds, service: ServiceKey, destinations: Iterable[Destination]) -> None:
    for key, kind in wanted(service, destinations).items():
        kinds[key] = kinds.get(key, 0) | kind


def _others(tables: Tables, changed: set[int | None]) -> Kinds:
    """Those of every service but the changed ones (rows), as the maps have them."""
    kinds: Kinds = {}
    for number in range(tables.settings.services_high):
        row = tables.service_row(number)
        if row.flags & layout.SERVICE_USED and number not in changed:
            rows = member_dests(tables, row)
            _add(kinds, read_service(row).key, [read_destination(tables.dest_row(each)) for each in rows])
    return kinds


def _kind(tables: Tables, key: bytes) -> int:
    found = libbpf.lookup(tables.fd(MAP), key, 4)
    return int.from_bytes(found, "little") if found else 0


def _entry(key: bytes, kind: int | None) -> Entry:
    return Entry(MAP, key, None if kind is None else kind.to_bytes(4, "little"))


def _key(address: bytes, family: int, port: int = 0, protocol: int = 0) -> bytes:
    """struct xlvs_service_key"""
    return address.ljust(16, b"\0") + port.to_bytes(2, "big") + bytes((protocol, family))
