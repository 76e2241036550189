"""Which real servers may begin a conversation: those under NAT of services with a persistence engine.

The data plane finds the destination by the packet's source (bpf/caller.h), as the kernel
does for the engine sip, the only one there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xlvs.dataplane import libbpf
from xlvs.dataplane.journal import Entry
from xlvs.dataplane.rows import read_destination, read_service
from xlvs.model import L4, Destination, Forward, Service

if TYPE_CHECKING:
    from xlvs.dataplane.commit import StagedService
    from xlvs.dataplane.tables import Tables

MAP = "callers"


def changes(tables: Tables, living: Iterable[StagedService], dead: Iterable[StagedService]) -> list[Entry]:
    """What is to be written for these services, which are all that change."""
    before: dict[bytes, int] = {}
    after: dict[bytes, int] = {}
    living = list(living)
    for staged in (*living, *dead):
        if staged.old_scheduler is not None and staged.row is not None:
            service = read_service(tables.service_row(staged.row))
            for number in staged.old_rows:
                _add(before, service, read_destination(tables.dest_row(number)), number)
    for staged in living:
        for dest in staged.dests:
            if dest.row is not None:
                _add(after, staged.service, dest.destination, dest.row)
    gone = [key for key, row in before.items() if key not in after and _row(tables, key) == row]
    entries = [Entry(MAP, key, row.to_bytes(4, "little")) for key, row in after.items()]
    return [*(Entry(MAP, key, None) for key in gone), *entries]


def _add(callers: dict[bytes, int], service: Service, destination: Destination, row: int) -> None:
    """A mark is no address that one could call from."""
    key = destination.key
    if not service.pe_name or service.key.protocol != L4.UDP or service.key.fwmark:
        return
    if destination.forward == Forward.MASQ and key.port:
        wire = key.address.ljust(16, b"\0") + key.port.to_bytes(2, "big")
        callers[wire + bytes((L4.UDP, key.family))] = row


def _row(tables: Tables, key: bytes) -> int | None:
    found = libbpf.lookup(tables.fd(MAP), key, 4)
    return int.from_bytes(found, "little") if found else None
