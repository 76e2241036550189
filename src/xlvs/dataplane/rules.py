"""Changes of the rules: staged as plain values, then written to the maps in one go.

Order of writing, so that packets always see a service as it was or as it will be:
rows that nothing points to yet, then the one word that points to them; index entries
of new services last; deleted ones leave the index first. Freed rows are used again
only after every program that might still hold them has ended (an RCU grace period).
"""

from __future__ import annotations

import ctypes
import math
import time
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from errno import EEXIST, ENOENT, ENOMEM, ESRCH

from xlvs.dataplane import carried, layout, libbpf, ruleset
from xlvs.dataplane.host import Host
from xlvs.dataplane.tables import TCP_TIMEOUTS, Tables
from xlvs.errors import IpvsError
from xlvs.model import (
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceFlag,
    ServiceKey,
    Timeouts,
    Tunnel,
    TunnelType,
)

_NO_SERVICE = 0xFFFFFFFF
_TRASH_SECONDS = 120  # IP_VS_DEST_TRASH_PERIOD
_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_CMD_GLOBAL = 1  # linux/membarrier.h: waits for a grace period of RCU

TrashKey = tuple[ServiceKey, DestinationKey]


def service_wire_key(key: ServiceKey) -> bytes:
    """struct xlvs_service_key of a service."""
    return key.address.ljust(16, b"\0") + key.port.to_bytes(2, "big") + bytes((key.protocol, key.family))


def swap16(port: int) -> int:
    """A port between the host's and the wire's order, as a structure's integer field."""
    return port >> 8 | (port & 0xFF) << 8


def read_service(row: layout.ServiceRow) -> Service:
    """The service in a row."""
    return Service(
        key=ServiceKey(
            row.family,
            row.protocol,
            layout.plain_address(row.address, row.family),
            swap16(row.port),
            row.fwmark,
        ),
        scheduler=layout.SCHEDULERS[row.scheduler],
        flags=ServiceFlag(row.flags & ~layout.SERVICE_USED),
        timeout=row.timeout,
        netmask=row.netmask,
    )


def read_destination(row: layout.DestRow) -> Destination:
    """The destination in a row."""
    return Destination(
        key=DestinationKey(row.family, layout.plain_address(row.address, row.family), swap16(row.port)),
        forward=Forward(row.forward),
        weight=row.weight,
        upper=row.upper,
        lower=row.lower,
        tunnel=Tunnel(TunnelType(row.tunnel_type), swap16(row.tunnel_port), row.tunnel_flags),
    )


def member_dests(tables: Tables, row: layout.ServiceRow) -> list[int]:
    """Rows of a service's destinations in list order."""
    first, count = row.members & 0xFFFFFFFF, row.members >> 32
    return [member.dest for member in tables.member_rows(first, count)] if count else []


def sh_table(destinations: list[tuple[int, int]]) -> list[int]:
    """sh's 256 buckets over (row, weight) in list order: each takes as many as its weight.

    The order is the kernel's (ip_vs_sh_reassign): a weight of 0 still takes one.
    """
    buckets: list[int] = []
    position = taken = 0
    while destinations and len(buckets) < layout.SH_TABLE:
        row, weight = destinations[position]
        buckets.append(row)
        taken += 1
        if taken >= weight:
            position, taken = (position + 1) % len(destinations), 0
    return buckets


@dataclass(slots=True)
class _StagedDest:
    destination: Destination
    row: int | None = None
    fresh: bool = False  # the row is new or from the trash: to be filled
    changed: bool = False


@dataclass(slots=True)
class _StagedService:
    service: Service
    row: int | None = None
    dests: list[_StagedDest] = field(default_factory=list)
    old_rows: list[int] = field(default_factory=list)  # list order in the maps
    removed: list[int] = field(default_factory=list)  # rows of deleted destinations
    old_scheduler: str | None = None
    deleted: bool = False
    members_changed: bool = False

    def find(self, key: DestinationKey) -> _StagedDest | None:
        return next((dest for dest in self.dests if dest.destination.key == key), None)


class _Regions:
    """Stretches of the member table, handed out ever onwards (next fit)."""

    def __init__(self, tables: Tables) -> None:
        self._settings = tables.settings
        self._used: list[tuple[int, int]] = []
        for number in range(tables.settings.services_high):
            row = tables.service_row(number)
            if row.flags & layout.SERVICE_USED:
                for word in (row.members, row.table):
                    if word >> 32:
                        self._used.append((word & 0xFFFFFFFF, (word & 0xFFFFFFFF) + (word >> 32)))
        self._used.sort()

    def take(self, count: int) -> int:
        start, wrapped = self._settings.members_next, False
        while True:
            if start + count > layout.MEMBERS:
                if wrapped:
                    raise IpvsError(ENOMEM, "the member table is full")
                start, wrapped = 0, True
            after = bisect_right(self._used, (start, layout.MEMBERS))
            if after and self._used[after - 1][1] > start:
                start = self._used[after - 1][1]
            elif after < len(self._used) and self._used[after][0] < start + count:
                start = self._used[after][1]
            else:
                insort(self._used, (start, start + count))
                self._settings.members_next = start + count
                return start


class XdpTransaction:
    """See :class:`xlvs.dataplane.port.Transaction`; made under the exclusive lock."""

    def __init__(self, tables: Tables, host: Host) -> None:
        self._tables = tables
        self._host = host
        self._staged: dict[ServiceKey, _StagedService] = {}
        self._gone: list[_StagedService] = []  # deleted, and another of the key was added since
        self._timeouts: Timeouts | None = None
        self._trash: dict[TrashKey, int] | None = None
        self._free_dests: Iterator[int] | None = None
        self._free_services: Iterator[int] | None = None
        self._zeroed: list[int] = []

    # -- the port ------------------------------------------------------------

    def add_service(self, service: Service) -> None:
        """See the port."""
        old = self._find(service.key)
        if old and not old.deleted:
            raise IpvsError(EEXIST)
        ruleset.check_service(service)
        carried.require_service(service)
        row = next(self._service_rows(), None)
        if row is None:
            raise IpvsError(ENOMEM, f"no room for more than {layout.SERVICES} services")
        if old:
            self._gone.append(old)
        self._staged[service.key] = _StagedService(service, row=row, members_changed=True)

    def edit_service(self, service: Service) -> None:
        """See the port."""
        staged = self._require(service.key)
        ruleset.check_service(service)
        carried.require_service(service)
        staged.members_changed |= staged.service.scheduler != service.scheduler
        staged.service = service

    def delete_service(self, key: ServiceKey) -> None:
        """See the port."""
        staged = self._require(key)
        for dest in staged.dests:
            self._discard(staged, dest)
        staged.dests = []
        staged.deleted = True

    def flush(self) -> None:
        """See the port."""
        settings = self._tables.settings
        for number in range(settings.services_high):
            row = self._tables.service_row(number)
            if row.flags & layout.SERVICE_USED:
                self._find(read_service(row).key)
        for key, staged in list(self._staged.items()):
            if not staged.deleted:
                self.delete_service(key)

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        staged = self._require(key)
        ruleset.check_destination(key, destination)
        if staged.find(destination.key):
            raise IpvsError(EEXIST)
        ruleset.check_address(destination, local=self._host.is_local(destination.key.address))
        carried.require_destination(destination)
        row = self._trashed().pop((key, destination.key), None)
        if row is None:
            row = next(self._dest_rows(), None)
        if row is None:
            raise IpvsError(ENOMEM, f"no room for more than {layout.DESTS} destinations")
        # At the head, as the kernel does: that is what makes its schedulers' order.
        staged.dests.insert(0, _StagedDest(destination, row=row, fresh=True, changed=True))
        staged.members_changed = True

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        staged = self._require(key)
        ruleset.check_destination(key, destination)
        dest = staged.find(destination.key)
        if dest is None:
            raise IpvsError(ENOENT)
        carried.require_destination(destination)
        dest.destination = destination
        dest.changed = True
        staged.members_changed = True

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """See the port."""
        staged = self._require(key)
        dest = staged.find(destination)
        if dest is None:
            raise IpvsError(ENOENT)
        self._discard(staged, dest)
        staged.dests.remove(dest)
        staged.members_changed = True

    def zero(self, key: ServiceKey | None = None) -> None:
        """See the port."""
        if key is not None:
            staged = self._require(key)
            self._zero_rows([staged])
            return
        used = self._tables.settings.services_high
        rows = [self._tables.service_row(number) for number in range(used)]
        keys = [read_service(row).key for row in rows if row.flags & layout.SERVICE_USED]
        self._zero_rows([staged for each in keys if (staged := self._find(each)) and not staged.deleted])

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See the port."""
        current = self._timeouts or Timeouts(*self._tables.settings.tcp_seconds)
        self._timeouts = ruleset.merge_timeouts(current, timeouts)

    # -- staging -------------------------------------------------------------

    def _find(self, key: ServiceKey) -> _StagedService | None:
        if key in self._staged:
            return self._staged[key]
        number = None if key.fwmark else self._tables.find_service(service_wire_key(key))
        if number is None:
            return None
        row = self._tables.service_row(number)
        rows = member_dests(self._tables, row)
        service = read_service(row)
        dests = [_StagedDest(read_destination(self._tables.dest_row(each)), row=each) for each in rows]
        staged = _StagedService(service, number, dests, rows, old_scheduler=service.scheduler)
        self._staged[key] = staged
        return staged

    def _require(self, key: ServiceKey) -> _StagedService:
        staged = self._find(key)
        if staged is None or staged.deleted:
            raise IpvsError(ESRCH)
        return staged

    def _discard(self, staged: _StagedService, dest: _StagedDest) -> None:
        if dest.row is None:
            return
        if dest.row in staged.old_rows:
            staged.removed.append(dest.row)
        self._trashed()[staged.service.key, dest.destination.key] = dest.row

    def _zero_rows(self, services: Iterable[_StagedService]) -> None:
        for staged in services:
            self._zeroed += [layout.ROW_SERVICE + staged.row] if staged.row is not None else []
            self._zeroed += [layout.ROW_DEST + dest.row for dest in staged.dests if dest.row is not None]

    def _trashed(self) -> dict[TrashKey, int]:
        """Deleted destinations that still have connections or were deleted lately."""
        if self._trash is None:
            self._trash = {}
            flags = self._tables.column("dests", layout.DestRow, "flags", self._tables.settings.dests_high)
            for number, flag in enumerate(flags):
                if flag & layout.DEST_USED and not flag & layout.DEST_AVAILABLE:
                    row = self._tables.dest_row(number)
                    self._trash[_virtual_key(row), read_destination(row).key] = number
        return self._trash

    def _service_rows(self) -> Iterator[int]:
        if self._free_services is None:
            used = self._tables.settings.services_high
            flags = self._tables.column("services", layout.ServiceRow, "flags", used)
            holes = [number for number, flag in enumerate(flags) if not flag & layout.SERVICE_USED]
            self._free_services = iter((*holes, *range(used, layout.SERVICES)))
        return self._free_services

    def _dest_rows(self) -> Iterator[int]:
        if self._free_dests is None:
            used = self._tables.settings.dests_high
            flags = self._tables.column("dests", layout.DestRow, "flags", used)
            holes = [number for number, flag in enumerate(flags) if self._reusable(number, flag)]
            self._free_dests = iter((*holes, *range(used, layout.DESTS)))
        return self._free_dests

    def _reusable(self, number: int, flags: int) -> bool:
        if not flags & layout.DEST_USED:
            return True
        if flags & layout.DEST_AVAILABLE or self._connections_of(number):
            return False
        return int(time.monotonic()) - self._tables.dest_row(number).deleted > _TRASH_SECONDS

    def _connections_of(self, number: int) -> int:
        load = self._tables.load_row(number)
        return int(load.active + load.inactive + load.persistent)

    # -- writing -------------------------------------------------------------

    def commit(self) -> None:
        """Write everything; called once, still under the lock."""
        living = [staged for staged in self._staged.values() if not staged.deleted]
        dead = [*self._gone, *(staged for staged in self._staged.values() if staged.deleted)]
        changed = [staged for staged in living if staged.members_changed or staged.old_scheduler is None]
        regions = _Regions(self._tables) if changed else None
        lists = {}
        for staged in changed:
            assert regions is not None
            table = layout.SH_TABLE if staged.service.scheduler == "sh" and staged.dests else 0
            lists[id(staged)] = (
                regions.take(len(staged.dests)) if staged.dests else 0,
                regions.take(table) if table else 0,
            )
        # A key that is deleted and added again keeps its index entry pointing somewhere at all times.
        replaced = {staged.service.key for staged in living}
        for staged in dead:
            self._retire(staged, unlink=staged.service.key not in replaced)
        for staged in living:
            if id(staged) in lists:
                self._write_service(staged, *lists[id(staged)])
            else:
                self._write_attributes(staged)
        for number in self._zeroed:
            self._zero(number)
        if self._timeouts:
            self._write_timeouts(self._timeouts)
        self._tables.settings.rules_version = (self._tables.settings.rules_version + 1) & 0xFFFFFFFF
        if dead or any(staged.removed for staged in living):
            wait_for_programs()

    def _retire(self, staged: _StagedService, unlink: bool) -> None:
        if staged.old_scheduler is None or staged.row is None:
            return  # came and went within this transaction
        if unlink:
            libbpf.delete(self._tables.fd("service_index"), service_wire_key(staged.service.key))
        row = self._tables.service_row(staged.row)
        row.members = row.table = 0
        self._hide(staged.removed, _NO_SERVICE)
        row.flags = 0

    def _hide(self, rows: Iterable[int], service: int | None = None) -> None:
        for number in rows:
            row = self._tables.dest_row(number)
            row.flags &= ~layout.DEST_AVAILABLE
            row.deleted = int(time.monotonic())
            if service is not None:
                row.service = service

    def _write_service(self, staged: _StagedService, members_at: int, table_at: int) -> None:
        assert staged.row is not None
        row, new = self._tables.service_row(staged.row), staged.old_scheduler is None
        if new:
            ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(row))
            row.address = layout.wire_address(staged.service.key.address)
            row.port = swap16(staged.service.key.port)
            row.protocol = staged.service.key.protocol
            row.family = staged.service.key.family
            row.fwmark = staged.service.key.fwmark
            self._zero(layout.ROW_SERVICE + staged.row)
        for dest in staged.dests:
            self._write_dest(dest, staged)
        self._write_members(staged, row, members_at, table_at)
        self._write_attributes(staged)
        if new:
            index = self._tables.fd("service_index")
            libbpf.update(index, service_wire_key(staged.service.key), staged.row.to_bytes(4, "little"))
        kept = {dest.row for dest in staged.dests}
        self._hide(number for number in staged.removed if number not in kept)

    def _write_attributes(self, staged: _StagedService) -> None:
        assert staged.row is not None
        row, settings = self._tables.service_row(staged.row), self._tables.settings
        row.scheduler = layout.SCHEDULERS.index(staged.service.scheduler)
        row.timeout = staged.service.timeout
        row.netmask = staged.service.netmask
        row.flags = layout.SERVICE_USED | staged.service.flags
        settings.services_high = max(settings.services_high, staged.row + 1)

    def _write_dest(self, dest: _StagedDest, staged: _StagedService) -> None:
        assert dest.row is not None and staged.row is not None
        if not dest.changed:
            return
        row, settings = self._tables.dest_row(dest.row), self._tables.settings
        key, what = dest.destination.key, dest.destination
        if dest.fresh:
            self._prepare_row(row, dest.row, key, staged)
        address_is_ours = self._host.is_local(key.address)
        row.forward, row.weight = what.forward, what.weight
        row.upper, row.lower = what.upper, what.lower
        row.tunnel_type, row.tunnel_flags = what.tunnel.type, what.tunnel.flags
        row.tunnel_port = swap16(what.tunnel.port)
        if what.forward == Forward.TUNNEL:
            row.source = layout.wire_address(self._host.source_towards(key.address) or b"")
        row.flags = layout.DEST_USED | layout.DEST_AVAILABLE | (layout.DEST_LOCAL if address_is_ours else 0)
        settings.dests_high = max(settings.dests_high, dest.row + 1)

    def _prepare_row(
        self, row: layout.DestRow, number: int, key: DestinationKey, staged: _StagedService
    ) -> None:
        """Fill what a destination's row needs once; one from the trash keeps its connections."""
        virtual = staged.service.key
        trashed = row.flags & layout.DEST_USED and (
            _virtual_key(row) == virtual and read_destination(row).key == key
        )
        if not trashed:
            ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(row))
            load = self._tables.load_row(number)
            ctypes.memset(ctypes.addressof(load), 0, ctypes.sizeof(load))
        if not trashed or row.service != staged.row:
            self._zero(layout.ROW_DEST + number)
        row.address = layout.wire_address(key.address)
        row.port = swap16(key.port)
        row.family = key.family
        row.service = staged.row
        row.virtual_address = layout.wire_address(virtual.address)
        row.virtual_port = swap16(virtual.port)
        row.virtual_protocol = virtual.protocol
        row.virtual_family = virtual.family
        row.virtual_fwmark = virtual.fwmark

    def _write_members(
        self, staged: _StagedService, row: layout.ServiceRow, members_at: int, table_at: int
    ) -> None:
        entries = [(dest.row or 0, dest.destination.weight) for dest in staged.dests]
        weights = dict(entries)
        if entries:
            rows = self._tables.member_rows(members_at, len(entries))
            for number, (dest, weight) in enumerate(entries):
                rows[number].dest, rows[number].weight = dest, weight
        buckets = sh_table(entries) if staged.service.scheduler == "sh" else []
        if buckets:
            rows = self._tables.member_rows(table_at, len(buckets))
            for number, dest in enumerate(buckets):
                rows[number].dest, rows[number].weight = dest, weights[dest]
        step = math.gcd(*(weight for _, weight in entries if weight > 0)) or 1
        most = max((weight for _, weight in entries), default=0)
        limit = most - (step - 1)
        mark = _moved_mark(staged, row.mark, step, limit)
        row.wrr_step, row.wrr_max = step, limit
        row.table = table_at | len(buckets) << 32
        row.members = members_at | len(entries) << 32
        row.mark = mark

    def _zero(self, number: int) -> None:
        rate, sums = self._tables.rate_row(number), self._tables.counter_sums(number)
        rate.zero[:] = sums
        rate.last[:] = sums
        rate.average[:] = [0] * 5

    def _write_timeouts(self, timeouts: Timeouts) -> None:
        settings = self._tables.settings
        settings.tcp_seconds[:] = (timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
        write_timeouts(settings)


def _virtual_key(row: layout.DestRow) -> ServiceKey:
    return ServiceKey(
        row.virtual_family,
        row.virtual_protocol,
        layout.plain_address(row.virtual_address, row.virtual_family),
        swap16(row.virtual_port),
        row.virtual_fwmark,
    )


def _moved_mark(staged: _StagedService, mark: int, step: int, limit: int) -> int:
    """Where rr and wrr go on after a change, as the kernel's schedulers do."""
    scheduler = staged.service.scheduler
    same = staged.old_scheduler == scheduler
    if scheduler == "wrr":
        # From the head again, with the weight rounded to the new step (ip_vs_wrr_dest_changed).
        weight = mark >> 32 if same else 0
        if not weight or weight > limit:
            weight = limit
        elif step > 1:
            weight = weight // step * step + 1
        return weight << 32
    if scheduler != "rr" or not same:
        return 0
    # The last one chosen stays the last one; if it is gone, the one before it is.
    position = min(mark & 0xFFFFFFFF, len(staged.old_rows))
    new_rows = [dest.row for dest in staged.dests]
    while position:
        row = staged.old_rows[position - 1]
        if row in new_rows:
            return new_rows.index(row) + 1
        position -= 1
    return 0


def write_timeouts(settings: layout.Settings) -> None:
    """Turn the timeouts in seconds into the data plane's jiffies; hz must be known."""
    seconds = list(TCP_TIMEOUTS)
    # ip_vs_set_timeout: tcp is ESTABLISHED's, tcpfin is FIN_WAIT's.
    seconds[1], seconds[4] = settings.tcp_seconds[0], settings.tcp_seconds[1]
    for state, value in enumerate(seconds):
        settings.tcp_timeout[state] = value * settings.hz
    settings.udp_timeout = settings.tcp_seconds[2] * settings.hz


def wait_for_programs() -> None:
    """Return when every BPF program that was running has ended (a grace period of RCU)."""
    import platform

    number = _SYS_MEMBARRIER.get(platform.machine())
    result = ctypes.CDLL(None).syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0) if number else -1
    if result != 0:
        time.sleep(0.05)  # no such call here: longer than any program runs
