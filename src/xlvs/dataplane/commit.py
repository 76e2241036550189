"""From staged rules to what is written into the maps, in an order that packets may watch.

Rows that nothing points to yet come first, then the one word that points to them, then
index entries of new services; deleted ones leave the index before their rows are given
up. So a packet sees a service as it was or as it will be, after every single step.
"""

from __future__ import annotations

import ctypes
import math
import time
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xlvs.dataplane import addresses, journal, layout, pools, ruleset, sources
from xlvs.dataplane.buckets import Candidate, table_of
from xlvs.dataplane.clients import LISTED
from xlvs.dataplane.host import Host
from xlvs.dataplane.journal import Change, Write
from xlvs.dataplane.regions import Regions
from xlvs.dataplane.rows import (
    DAEMON_ROLES,
    read_destination,
    service_wire_key,
    swap16,
    virtual_key,
    write_daemon,
    write_timeouts,
)
from xlvs.dataplane.tables import Tables
from xlvs.model import (
    L4,
    ClientAddress,
    Destination,
    DestinationKey,
    Forward,
    Service,
    SyncDaemon,
    Timeouts,
    TunnelType,
)

_NO_SERVICE = 0xFFFFFFFF
_FTP = 21


@dataclass(slots=True, eq=False)
class StagedDest:
    """A destination as it will be."""

    destination: Destination
    row: int | None = None
    last_weight: int = 0  # the last one that was not 0, or the one it was added with
    # Upper and lower after each change: what comes of them depends on those before.
    thresholds: list[tuple[int, int]] = field(default_factory=list)
    fresh: bool = False  # the row is new or from the trash: to be filled
    changed: bool = False


@dataclass(slots=True)
class StagedService:
    """A service as it will be, and what it was."""

    service: Service
    row: int | None = None
    dests: list[StagedDest] = field(default_factory=list)
    old_rows: list[int] = field(default_factory=list)  # list order in the maps
    removed: list[int] = field(default_factory=list)  # rows of deleted destinations
    old_scheduler: str | None = None  # None: not in the maps yet
    listed: int = 0  # flags of the lists of its clients (clients.py)
    deleted: bool = False
    members_changed: bool = False
    local_addresses: list[bytes] = field(default_factory=list)
    locals_changed: bool = False
    restarted: bool = False  # another scheduler took over
    # wrr's step and greatest weight after each change: the kernel rounds its place every time.
    wrr_steps: list[tuple[int, int]] = field(default_factory=list)
    _by_key: dict[DestinationKey, StagedDest] | None = None  # of dests, made when asked for

    def note_change(self) -> None:
        """The destinations or their weights are others now."""
        self.members_changed = True
        if self.service.scheduler == "wrr":
            self.wrr_steps.append(wrr_measure([dest.destination.weight for dest in self.dests]))

    def change_scheduler(self, service: Service) -> None:
        """Take the service's new attributes; another scheduler begins afresh."""
        other = service.scheduler != self.service.scheduler
        self.service = service
        if other:
            self.restarted = True
            self.wrr_steps.clear()
            self.note_change()

    def find(self, key: DestinationKey) -> StagedDest | None:
        """The destination of this key."""
        if self._by_key is None:
            self._by_key = {dest.destination.key: dest for dest in self.dests}
        return self._by_key.get(key)

    def put_first(self, dest: StagedDest) -> None:
        """A destination that is new: at the head, as the kernel does; that makes its schedulers' order."""
        self.dests.insert(0, dest)
        if self._by_key is not None:
            self._by_key[dest.destination.key] = dest
        self.note_change()

    def take_out(self, dest: StagedDest) -> None:
        """A destination that is deleted."""
        self.dests.remove(dest)
        if self._by_key is not None:
            del self._by_key[dest.destination.key]
        self.note_change()


class Commit:
    """The changes of one transaction; made once, under the exclusive lock."""

    def __init__(self, tables: Tables, host: Host) -> None:
        self._tables = tables
        self._host = host
        self._changes: list[Change] = []
        self._services_high: int = tables.settings.services_high
        self._dests_high: int = tables.settings.dests_high
        self._now = int(time.monotonic())
        self._pools: pools.Pools | None = None
        self._version: int = (tables.settings.rules_version + 1) & 0xFFFFFFFF

    def changes(
        self,
        living: list[StagedService],
        dead: list[StagedService],
        zeroed: Iterable[int],
        timeouts: Timeouts | None,
        daemons: Mapping[str, SyncDaemon] | None,
    ) -> list[Change]:
        """All that is to be written for these services, rows of counters, timeouts and daemons."""
        touched = [staged for staged in living if staged.members_changed or staged.old_scheduler is None]
        used = self._used_rows() if touched or any(each.locals_changed for each in living) else []
        if any(staged.locals_changed for staged in living):
            self._pools = pools.Pools(self._tables, used)
        if touched:
            members, buckets = self._regions(used)
            for staged in touched:
                table = _table(staged)
                self._service(staged, members.take(len(staged.dests)), buckets.take(len(table)), table)
            self._settings(members_next=members.following, buckets_next=buckets.following)
        for staged in living:
            if staged.old_scheduler is not None:
                self._local_addresses(staged)
            if not (staged.members_changed or staged.old_scheduler is None):
                self._attributes(staged)
        if self._pools is not None:
            self._settings(locals_next=self._pools.following)
        kept = {dest.row for staged in living for dest in staged.dests}
        # A key that is deleted and added again has its index entry point somewhere at all times.
        replaced = {staged.service.key for staged in living}
        for staged in dead:
            self._retire(staged, kept, unlink=staged.service.key not in replaced)
        for number in zeroed:
            self._zero(number)
        if timeouts:
            self._timeouts(timeouts)
        if daemons is not None:
            self._daemons(daemons)
        self._settings(flags=self._lookups(living, dead))
        self._changes += addresses.changes(self._tables, living, dead)
        self._settings(rules_version=self._version)
        return self._changes

    # -- services ------------------------------------------------------------

    def _used_rows(self) -> list[layout.ServiceRow]:
        high = self._tables.settings.services_high
        rows = [self._tables.service_row(number) for number in range(high)]
        return [row for row in rows if row.flags & layout.SERVICE_USED]

    def _regions(self, used: list[layout.ServiceRow]) -> tuple[Regions, Regions]:
        """What is free of members and of buckets."""
        settings = self._tables.settings
        return (
            Regions("members", layout.MEMBERS, settings.members_next, (row.members for row in used)),
            Regions("buckets", layout.BUCKETS, settings.buckets_next, (row.table for row in used)),
        )

    def _service(self, staged: StagedService, members: int, table: int, buckets: list[int]) -> None:
        assert staged.row is not None
        new, key = staged.old_scheduler is None, staged.service.key
        if new:
            row = layout.ServiceRow(
                port=swap16(key.port), protocol=key.protocol, family=key.family, fwmark=key.fwmark
            )
            row.address = layout.wire_address(key.address)
            self._row("services", staged.row, row)
            self._zero(layout.ROW_SERVICE + staged.row)
            self._local_addresses(staged)
        for dest in staged.dests:
            self._dest(dest, staged)
        self._settings(dests_high=self._dests_high)
        self._members(staged, members, table, buckets)
        self._services_high = max(self._services_high, staged.row + 1)
        self._settings(services_high=self._services_high)
        if new:
            self._changes.append(journal.index(service_wire_key(key), staged.row))
        kept = {dest.row for dest in staged.dests}
        self._hide(number for number in staged.removed if number not in kept)

    def _local_addresses(self, staged: StagedService) -> None:
        assert staged.row is not None
        if staged.locals_changed and self._pools is not None:
            new = staged.old_scheduler is None
            self._changes += self._pools.changes(staged.row, staged.local_addresses, new=new)

    def _attributes(self, staged: StagedService) -> None:
        assert staged.row is not None
        service = staged.service
        flags = layout.SERVICE_USED | service.flags
        flags |= layout.SERVICE_THRESHOLDS * any(dest.destination.upper for dest in staged.dests)
        flags |= layout.SERVICE_FULLNAT * any(
            dest.destination.forward == Forward.FULLNAT for dest in staged.dests
        )
        flags |= staged.listed
        flags |= layout.SERVICE_TELLS * (service.client_address != ClientAddress.BY_METHOD)
        if staged.old_scheduler is not None:
            # A server may be overloaded still when its threshold has gone: looked at ever after.
            flags |= self._tables.service_row(staged.row).flags & layout.SERVICE_THRESHOLDS
        told = ruleset.client_address(service, {dest.destination.forward for dest in staged.dests})
        self._changes += journal.field(
            "services",
            layout.ServiceRow,
            staged.row,
            timeout=service.timeout,
            netmask=service.netmask,
            scheduler=layout.SCHEDULERS.index(service.scheduler),
            engine=layout.ENGINES.index(service.pe_name),
            synproxy=service.synproxy,
            client_address=told,
            flags=flags,
        )

    def _lookups(self, living: list[StagedService], dead: list[StagedService]) -> int:
        """settings.flags with what packets without an exact service may still be for."""
        gone = {staged.row for staged in dead}
        high = self._tables.settings.services_high
        used, marks, ports, kinds = (
            self._tables.column("services", layout.ServiceRow, name, high)
            for name in ("flags", "fwmark", "port", "scheduler")
        )
        rows = [row for row in range(high) if used[row] & layout.SERVICE_USED and row not in gone]
        # The port as the wire has it, then protocol and family: one word of the row.
        services = {(marks[row] != 0, ports[row] & 0xFFFF, ports[row] >> 16 & 0xFF) for row in rows}
        keys = (staged.service.key for staged in living)
        services |= {(key.fwmark != 0, swap16(key.port), key.protocol) for key in keys}
        # The engine is in the byte behind the scheduler's.
        engines = any(kinds[row] >> 8 & 0xFF for row in rows)
        flags: int = self._tables.settings.flags
        for flag, wanted in (
            (layout.HAS_MARKS, any(mark for mark, _, _ in services)),
            (layout.HAS_FTP, (False, swap16(_FTP), int(L4.TCP)) in services),
            (layout.HAS_PORT0, any(not mark and not port for mark, port, _ in services)),
            (layout.HAS_CALLERS, engines or any(staged.service.pe_name for staged in living)),
        ):
            flags = flags | flag if wanted else flags & ~flag
        return flags

    def _members(self, staged: StagedService, members: int, table: int, buckets: list[int]) -> None:
        """Fill the new stretches, then name them: ``members`` and ``table`` are the words."""
        assert staged.row is not None
        entries = [(dest.row or 0, dest.destination.weight) for dest in staged.dests]
        rows = (layout.MemberRow * len(entries))(*(layout.MemberRow(*each) for each in entries))
        self._stretch("members", members, bytes(rows))
        self._stretch("buckets", table, array("I", buckets).tobytes())
        step, limit = wrr_measure([weight for _, weight in entries])
        old = self._tables.service_row(staged.row).mark
        mark = moved_mark(staged, old, staged.row | self._version << 32)
        where: dict[str, int] = {"table": table} if buckets else {}
        where |= {"wrr_step": step, "wrr_max": limit, "members": members, "mark": mark}
        if mark != old:
            where["localities"] = 0
        self._changes += journal.field("services", layout.ServiceRow, staged.row, **where)
        self._attributes(staged)
        if not buckets:  # only after the scheduler that may have used it
            self._changes += journal.field("services", layout.ServiceRow, staged.row, table=0)

    def _stretch(self, name: str, word: int, content: bytes) -> None:
        if content:
            size = len(content) // (word >> 32)
            self._changes.append(Write(name, (word & 0xFFFFFFFF) * size, content))

    def _retire(self, staged: StagedService, kept: set[int | None], unlink: bool) -> None:
        if staged.old_scheduler is None or staged.row is None:
            return  # came and went within this transaction
        if unlink:
            self._changes.append(journal.index(service_wire_key(staged.service.key), None))
        self._hide((number for number in staged.removed if number not in kept), _NO_SERVICE)
        self._changes += journal.field("services", layout.ServiceRow, staged.row, members=0, table=0, flags=0)
        self._changes += pools.given_up(staged.row, self._tables.service_row(staged.row))

    # -- destinations --------------------------------------------------------

    def _dest(self, dest: StagedDest, staged: StagedService) -> None:
        assert dest.row is not None and staged.row is not None
        if not dest.changed:
            return
        what, address = dest.destination, dest.destination.key.address
        load = self._tables.load_row(dest.row)
        busy = overloaded(load.flags & layout.LOAD_OVERLOADED, load.active + load.inactive, dest.thresholds)
        self._changes += journal.field("loads", layout.LoadRow, dest.row, flags=layout.LOAD_OVERLOADED * busy)
        if dest.fresh:
            self._prepare(dest, staged)
        named = sources.needed(what.forward, self._tables.settings)
        source = self._host.source_towards(address) if named else None
        flags = layout.DEST_USED | layout.DEST_AVAILABLE
        flags |= layout.DEST_LOCAL if self._host.is_local(address) else 0
        shimmed = what.forward == Forward.TUNNEL and what.tunnel.type != TunnelType.IPIP
        if shimmed or staged.listed == LISTED:
            flags |= layout.DEST_SPECIAL
        self._changes += journal.field(
            "dests",
            layout.DestRow,
            dest.row,
            **({"source": layout.wire_address(source or b"")} if named else {}),
            upper=what.upper,
            lower=what.lower,
            tunnel_type=what.tunnel.type,
            tunnel_flags=what.tunnel.flags,
            tunnel_port=swap16(what.tunnel.port),
            weight=what.weight,
            last_weight=dest.last_weight,
            forward=what.forward,
            flags=flags,
        )
        self._dests_high = max(self._dests_high, dest.row + 1)

    def _prepare(self, dest: StagedDest, staged: StagedService) -> None:
        """Fill what a destination's row needs once; one from the trash keeps its connections."""
        assert dest.row is not None
        old = self._tables.dest_row(dest.row)
        key, virtual = dest.destination.key, staged.service.key
        trashed = (
            old.flags & layout.DEST_USED and virtual_key(old) == virtual and read_destination(old).key == key
        )
        if not trashed or old.service != staged.row:
            self._zero(layout.ROW_DEST + dest.row)
        if trashed:
            self._changes += journal.field("dests", layout.DestRow, dest.row, service=staged.row)
            return
        row = layout.DestRow(
            port=swap16(key.port),
            family=key.family,
            service=staged.row,
            virtual_port=swap16(virtual.port),
            virtual_protocol=virtual.protocol,
            virtual_family=virtual.family,
            virtual_fwmark=virtual.fwmark,
            born=self._version,
        )
        row.address = layout.wire_address(key.address)
        row.virtual_address = layout.wire_address(virtual.address)
        self._row("dests", dest.row, row)

    def _hide(self, rows: Iterable[int], service: int | None = None) -> None:
        for number in rows:
            flags = self._tables.dest_row(number).flags & ~layout.DEST_AVAILABLE
            last = {} if service is None else {"service": service}
            self._changes += journal.field(
                "dests", layout.DestRow, number, deleted=self._now, flags=flags, **last
            )

    # -- the rest ------------------------------------------------------------

    def _row(self, name: str, number: int, row: ctypes.Structure) -> None:
        self._changes.append(Write(name, number * ctypes.sizeof(row), bytes(row)))

    def _settings(self, **values: int) -> None:
        self._changes += journal.field("settings", layout.Settings, 0, **values)

    def _zero(self, number: int) -> None:
        sums = self._tables.counter_sums(number)
        row = layout.RateRow()
        row.zero[:] = row.last[:] = sums
        self._row("rates", number, row)

    def _timeouts(self, timeouts: Timeouts) -> None:
        settings = layout.Settings.from_buffer_copy(self._tables.settings)
        settings.tcp_seconds[:] = (timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
        write_timeouts(settings)
        for name in ("tcp_seconds", "tcp_timeout", "udp_timeout"):
            self._settings(**{name: getattr(settings, name)})

    def _daemons(self, daemons: Mapping[str, SyncDaemon]) -> None:
        settings = layout.Settings()
        for number, role in enumerate(DAEMON_ROLES):
            if role in daemons:
                settings.daemons[number] = write_daemon(daemons[role])
        self._changes += journal.field("settings", layout.Settings, 0, daemons=settings.daemons)


def _table(staged: StagedService) -> list[int]:
    """The buckets of a service's scheduler."""
    candidates = [
        Candidate(
            dest.row or 0,
            dest.destination.weight,
            dest.last_weight,
            dest.destination.key.address.ljust(16, b"\0"),
            dest.destination.key.port,
        )
        for dest in staged.dests
    ]
    return table_of(staged.service.scheduler, staged.service.key.family, candidates)


def wrr_measure(weights: list[int]) -> tuple[int, int]:
    """wrr's step (the weights' greatest common divisor) and greatest weight less (step - 1)."""
    step = math.gcd(*(weight for weight in weights if weight > 0)) or 1
    return step, max(weights, default=0) - (step - 1)


def overloaded(busy: bool, connections: int, thresholds: list[tuple[int, int]]) -> bool:
    """Whether a destination with so many connections is overloaded after changes of its thresholds.

    From the upper one on it is; below the lower one, or without one three quarters of the
    upper, it is not; in between, it remains what it was.
    """
    for upper, lower in thresholds:
        if upper and connections >= upper:
            busy = True
        elif not upper or (connections < lower if lower else connections * 4 < upper * 3):
            busy = False
    return bool(busy)


def moved_mark(staged: StagedService, mark: int, unused: int) -> int:
    """Where rr and wrr go on after a change, as the kernel's schedulers do.

    lblc and lblcr forget all when they begin: theirs is then ``unused``, a mark that none had before.
    """
    same = staged.old_scheduler is not None and not staged.restarted
    if staged.service.scheduler in ("lblc", "lblcr"):
        return mark if same else unused
    if staged.service.scheduler == "wrr":
        # From the head again, the weight rounded to each new step (ip_vs_wrr_dest_changed).
        weight = mark >> 32 if same else 0
        for step, limit in staged.wrr_steps:
            if not weight or weight > limit:
                weight = limit
            elif step > 1:
                weight = weight // step * step + 1
        return weight << 32 if staged.wrr_steps else mark
    if staged.service.scheduler != "rr" or not same:
        return 0
    # The last one chosen stays the last one; if it is gone, the one before it is.
    position = min(mark & 0xFFFFFFFF, len(staged.old_rows))
    new_rows = [dest.row for dest in staged.dests]
    while position:
        row = staged.old_rows[position - 1]
        if row in new_rows and row not in staged.removed:
            return new_rows.index(row) + 1
        position -= 1
    return 0
