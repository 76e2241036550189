"""Changes of the rules: checked and staged as plain values, then written in one go.

Freed rows are used again only after every program that might still hold them has ended
(an RCU grace period).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from errno import EEXIST, ENOENT, ENOMEM, ESRCH

from xlvs.dataplane import clients, defence, layout, marks, ruleset, sources, sysctl_rows, sysctls
from xlvs.dataplane.commit import Commit, StagedDest, StagedService
from xlvs.dataplane.host import Host
from xlvs.dataplane.journal import Change
from xlvs.dataplane.rows import (
    local_rows,
    member_dests,
    read_daemons,
    read_destination,
    read_service,
    service_wire_key,
    virtual_key,
)
from xlvs.dataplane.tables import Tables, wait_for_programs
from xlvs.errors import IpvsError
from xlvs.model import (
    Defence,
    Destination,
    DestinationKey,
    MarkRule,
    Service,
    ServiceKey,
    SyncDaemon,
    Timeouts,
)

_TRASH_SECONDS = 120  # IP_VS_DEST_TRASH_PERIOD

TrashKey = tuple[ServiceKey, DestinationKey]


class XdpTransaction:
    """See :class:`xlvs.dataplane.port.Transaction`; made under the exclusive lock."""

    def __init__(self, tables: Tables, host: Host) -> None:
        self._tables = tables
        self._host = host
        self._staged: dict[ServiceKey, StagedService] = {}
        self._gone: list[StagedService] = []  # deleted, and another of the key was added since
        self._timeouts: Timeouts | None = None
        self._trash: dict[TrashKey, int] | None = None
        self._free_dests: Iterator[int] | None = None
        self._free_services: Iterator[int] | None = None
        self._zeroed: list[int] = []
        self._daemons: dict[str, SyncDaemon] | None = None
        self._marks: list[MarkRule] | None = None
        self._defences: dict[ServiceKey, Defence] = {}
        self._lists = clients.Lists(tables)
        self._sysctls: dict[str, tuple[int, ...]] = {}

    # -- the port ------------------------------------------------------------

    def add_service(self, service: Service) -> None:
        """See the port."""
        old = self._find(service.key)
        if old and not old.deleted:
            raise IpvsError(EEXIST)
        ruleset.check_service(service)
        row = next(self._service_rows(), None)
        if row is None:
            raise IpvsError(ENOMEM, f"no room for more than {layout.SERVICES} services")
        if old:
            self._gone.append(old)
        settled = ruleset.settle_service(service)
        self._staged[service.key] = StagedService(settled, row=row, members_changed=True)

    def edit_service(self, service: Service) -> None:
        """See the port."""
        staged = self._require(service.key)
        ruleset.check_service(service)
        staged.change_scheduler(ruleset.settle_service(service, staged.service))

    def delete_service(self, key: ServiceKey) -> None:
        """See the port."""
        staged = self._require(key)
        for dest in staged.dests:
            self._discard(staged, dest)
        staged.dests = []
        staged.deleted = True
        self._defences.pop(key, None)

    def flush(self) -> None:
        """See the port."""
        self._load_all()
        for key, staged in list(self._staged.items()):
            if not staged.deleted:
                self.delete_service(key)

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        staged = self._require(key)
        self._check_destination(key, destination)
        if staged.find(destination.key):
            raise IpvsError(EEXIST)
        address = destination.key.address
        local = self._host.is_local(address)
        broadcast = not local and self._host.is_broadcast(address)
        ruleset.check_address(destination, local=local, broadcast=broadcast)
        row = self._trashed().pop((key, destination.key), None)
        if row is None:
            row = next(self._dest_rows(), None)
        if row is None:
            raise IpvsError(ENOMEM, f"no room for more than {layout.DESTS} destinations")
        dest = StagedDest(destination, row, last_weight=destination.weight, fresh=True, changed=True)
        dest.thresholds.append((destination.upper, destination.lower))
        staged.put_first(dest)

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        staged = self._require(key)
        self._check_destination(key, destination)
        dest = staged.find(destination.key)
        if dest is None:
            raise IpvsError(ENOENT)
        dest.destination = destination
        dest.last_weight = destination.weight or dest.last_weight
        dest.thresholds.append((destination.upper, destination.lower))
        dest.changed = True
        staged.note_change()

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """See the port."""
        staged = self._require(key)
        dest = staged.find(destination)
        if dest is None:
            raise IpvsError(ENOENT)
        self._discard(staged, dest)
        staged.take_out(dest)

    def add_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        staged = self._require(key)
        found = ruleset.with_local_addresses(staged.local_addresses, addresses)
        staged.local_addresses, staged.locals_changed = found, True

    def delete_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        staged = self._require(key)
        staged.local_addresses = ruleset.without_local_addresses(staged.local_addresses, addresses)
        staged.locals_changed = True

    def zero(self, key: ServiceKey | None = None) -> None:
        """See the port."""
        if key is not None:
            staged = self._require(key)
            self._zero_rows([staged])
            return
        used = self._tables.settings.services_high
        rows = [self._tables.service_row(number) for number in range(used)]
        keys = [read_service(row).key for row in rows if row.flags & layout.SERVICE_USED]
        found = [self._find(each) for each in keys]
        self._zero_rows([each for each in found if each and not each.deleted])

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See the port."""
        current = self._timeouts or Timeouts(*self._tables.settings.tcp_seconds)
        self._timeouts = ruleset.merge_timeouts(current, timeouts)

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """See the port."""
        running = self._running()
        settled = ruleset.settle_daemon(daemon, running, self._host, mixed=self._mixes_families())
        self._daemons = {**running, daemon.role: settled}

    def stop_daemon(self, role: str) -> None:
        """See the port."""
        running = dict(self._running())
        if running.pop(role, None) is None:
            raise IpvsError(ESRCH)
        self._daemons = running

    def marks(self) -> list[MarkRule]:
        """See the port."""
        return marks.read(self._tables) if self._marks is None else list(self._marks)

    def set_marks(self, rules: Sequence[MarkRule]) -> None:
        """See the port."""
        marks.check(rules)
        self._marks = list(rules)

    def defence(self, key: ServiceKey) -> Defence:
        """See the port."""
        staged = self._require(key)
        if key in self._defences:
            return self._defences[key]
        if staged.old_scheduler is None or staged.row is None:
            return Defence()
        return self._lists.defence(staged.row)

    def set_defence(self, key: ServiceKey, defence: Defence) -> None:
        """See the port."""
        staged = self._require(key)
        clients.check(key, defence)
        listed = clients.listed_flags(defence)
        if (listed == clients.LISTED) != (staged.listed == clients.LISTED):  # destinations say so, too
            staged.members_changed = True
            for dest in staged.dests:
                dest.changed = True
        staged.listed = listed
        self._defences[key] = defence

    def set_sysctl(self, name: str, text: str) -> None:
        """See the port."""
        if name not in sysctls.TABLE:
            raise IpvsError(ENOENT)
        settings = self._tables.settings
        current = self._sysctls.get(name) or sysctl_rows.read(settings)[name]
        self._sysctls[name] = sysctls.parse(name, text, current, settings.hz)

    # -- staging -------------------------------------------------------------

    def _find(self, key: ServiceKey) -> StagedService | None:
        if key in self._staged:
            return self._staged[key]
        number = self._tables.find_service(service_wire_key(key))
        if number is None:
            return None
        row = self._tables.service_row(number)
        rows = member_dests(self._tables, row)
        service = read_service(row)
        dests = [self._staged_dest(each) for each in rows]
        staged = StagedService(service, number, dests, rows, old_scheduler=service.scheduler)
        staged.listed = row.flags & clients.LISTED
        staged.local_addresses = [address for address, _ in local_rows(self._tables, row)]
        self._staged[key] = staged
        return staged

    def _check_destination(self, key: ServiceKey, destination: Destination) -> None:
        # Only a mixed pair asks whether a daemon runs.
        mixed = destination.key.family != key.family
        ruleset.check_destination(key, destination, synchronised=mixed and bool(self._running()))

    def _running(self) -> dict[str, SyncDaemon]:
        if self._daemons is not None:
            return self._daemons
        return {daemon.role: daemon for daemon in read_daemons(self._tables.settings)}

    def _mixes_families(self) -> bool:
        """Whether there is a destination of another family than its service."""
        self._load_all()
        return any(
            dest.destination.key.family != staged.service.key.family
            for staged in self._staged.values()
            if not staged.deleted
            for dest in staged.dests
        )

    def _load_all(self) -> None:
        settings = self._tables.settings
        for number in range(settings.services_high):
            row = self._tables.service_row(number)
            if row.flags & layout.SERVICE_USED:
                self._find(read_service(row).key)

    def _staged_dest(self, number: int) -> StagedDest:
        row = self._tables.dest_row(number)
        return StagedDest(read_destination(row), number, last_weight=row.last_weight)

    def _require(self, key: ServiceKey) -> StagedService:
        staged = self._find(key)
        if staged is None or staged.deleted:
            raise IpvsError(ESRCH)
        return staged

    def _discard(self, staged: StagedService, dest: StagedDest) -> None:
        if dest.row is None:
            return
        if dest.row in staged.old_rows:
            staged.removed.append(dest.row)
        self._trashed()[staged.service.key, dest.destination.key] = dest.row

    def _zero_rows(self, services: Iterable[StagedService]) -> None:
        for staged in services:
            self._zeroed += [layout.ROW_SERVICE + staged.row] if staged.row is not None else []
            self._zeroed += [layout.ROW_DEST + dest.row for dest in staged.dests if dest.row is not None]

    def _trashed(self) -> dict[TrashKey, int]:
        """Deleted destinations that still have connections or were deleted lately."""
        if self._trash is None:
            self._trash = {}
            flags = self._tables.column("dests", layout.DestRow, "flags", self._tables.settings.dests_high)
            for number, flag in enumerate(flags):
                unused = flag & layout.DEST_USED and not flag & layout.DEST_AVAILABLE
                if unused and not self._reusable(number, flag):
                    row = self._tables.dest_row(number)
                    self._trash[virtual_key(row), read_destination(row).key] = number
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
        passed: int = int(time.monotonic()) - self._tables.dest_row(number).deleted
        return passed > _TRASH_SECONDS

    def _connections_of(self, number: int) -> int:
        load = self._tables.load_row(number)
        return int(load.active + load.inactive + load.persistent)

    # -- writing -------------------------------------------------------------

    @property
    def _touched(self) -> bool:
        """Whether anything was looked at closer; -R takes a transaction even to show something."""
        settings = (self._timeouts, self._daemons, self._marks)
        rows = self._staged or self._gone or self._zeroed or self._sysctls
        return bool(rows) or any(each is not None for each in settings)

    def changes(self) -> list[Change]:
        """What is to be written; asked once, still under the lock."""
        if not self._touched:
            return []
        living = [staged for staged in self._staged.values() if not staged.deleted]
        dead = [*self._gone, *(staged for staged in self._staged.values() if staged.deleted)]
        differences = self._differences()
        changes = [change for each in differences for change in each.first()]
        changes += Commit(self._tables, self._host).changes(
            living, dead, self._zeroed, self._timeouts, self._daemons
        )
        changes += [change for each in differences for change in each.last()]
        rows = (staged.row for staged in dead if staged.old_scheduler is not None)
        changes += self._lists.removal(row for row in rows if row is not None)
        if self._sysctls:
            sysctls.check_together({**sysctl_rows.read(self._tables.settings), **self._sysctls})
            pages = defence.available_pages()
            changes += sysctl_rows.changes(self._tables.settings, self._sysctls, pages)
            if any(self._sysctls.get("nat_icmp_send", ())):
                changes += sources.under_nat(self._tables, self._host)
        if self._marks is not None:
            changes += marks.changes(self._tables, self._marks)
        return changes

    def _differences(self) -> list[clients.Difference]:
        """What the defences of services change into."""
        found = []
        for key, new in self._defences.items():
            staged = self._require(key)
            assert staged.row is not None
            old = self._lists.defence(staged.row) if staged.old_scheduler is not None else Defence()
            found.append(clients.Difference(self._tables, staged.row, key.family, old, new))
        self._lists.check_room(sum(each.more for each in found))
        return found

    @property
    def frees_rows(self) -> bool:
        """Whether rows are given up that packets on their way may still use."""
        staged = [*self._gone, *self._staged.values()]
        given_up = any(each.deleted or each.removed or each.locals_changed for each in staged)
        return self._marks is not None or given_up

    def commit(self) -> None:
        """Write everything at once; a note for successors is the engine's business."""
        self._tables.apply(self.changes())
        if self.frees_rows:
            wait_for_programs()
