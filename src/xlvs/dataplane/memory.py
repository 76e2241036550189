"""The port in memory: IPVS's rules without a kernel, for tests and dry runs.

It behaves as the kernel's IPVS does towards its commands; traffic is what the caller
says it was (:meth:`MemoryDataPlane.observe`, ``connection_entries``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from errno import EEXIST, ENOENT, ESRCH

from xlvs.dataplane import clients, marks, ruleset, sysctl_rows, sysctls
from xlvs.dataplane.conntable import ConnectionBlock, blocks_of
from xlvs.dataplane.host import BareHost, Host
from xlvs.errors import IpvsError
from xlvs.model import (
    IPVS_VERSION,
    ConnectionEntry,
    Counters,
    Defence,
    DefenceEntry,
    Destination,
    DestinationEntry,
    DestinationKey,
    LocalEntry,
    MarkRule,
    Rates,
    Service,
    ServiceEntry,
    ServiceKey,
    SyncDaemon,
    SysctlEntry,
    TableInfo,
    Timeouts,
)


class MemoryDataPlane:
    """A whole data plane of plain values.

    ``size`` is the connection table size that listings print,
    ``host`` the machine whose addresses and interfaces there are.
    """

    def __init__(self, *, size: int = 4096, host: Host | None = None) -> None:
        self.connection_entries: list[ConnectionEntry] = []
        self._size = size
        self._host = host or BareHost()
        self._rules = _Rules()
        self._open = False

    def info(self) -> TableInfo:
        """See :meth:`DataPlane.info`."""
        return TableInfo(IPVS_VERSION, self._size)

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """See :meth:`DataPlane.transaction`; readers see the old rules until it ends."""
        if self._open:
            raise RuntimeError("a transaction inside a transaction would deadlock on the one lock")
        self._open = True
        try:
            draft = self._rules.copy()
            yield MemoryTransaction(draft, self._host)
            sysctls.check_together(draft.sysctls)
            self._rules = draft
        finally:
            self._open = False

    def services(self) -> list[ServiceEntry]:
        """See :meth:`DataPlane.services`; in the order in which they were added."""
        return [record.entry() for record in self._rules.services.values()]

    def service(self, key: ServiceKey) -> ServiceEntry | None:
        """See :meth:`DataPlane.service`."""
        record = self._rules.services.get(key)
        return record.entry() if record else None

    def local_addresses(self) -> dict[ServiceKey, list[LocalEntry]]:
        """See :meth:`DataPlane.local_addresses`; a connection's virtual address says whose it is."""
        used = Counter(
            (each.protocol, each.virtual, each.virtual_port, each.local)
            for each in self.connection_entries
            if each.local
        )
        return {
            key: [
                LocalEntry(address, used[key.protocol, key.address, key.port, address])
                for address in record.local_addresses
            ]
            for key, record in self._rules.services.items()
            if record.local_addresses
        }

    def connections(self) -> Iterator[ConnectionEntry]:
        """See :meth:`DataPlane.connections`."""
        return iter(self.connection_entries)

    def connection_blocks(self) -> Iterator[ConnectionBlock]:
        """See the port."""
        return blocks_of(self.connections())

    def timeouts(self) -> Timeouts:
        """See :meth:`DataPlane.timeouts`."""
        return self._rules.timeouts

    def daemons(self) -> list[SyncDaemon]:
        """See :meth:`DataPlane.daemons`."""
        return sorted(self._rules.daemons.values(), key=lambda daemon: daemon.role, reverse=True)

    def observe(
        self,
        key: ServiceKey,
        change: Callable[[DestinationEntry], DestinationEntry] | None = None,
        destination: DestinationKey | None = None,
        *,
        counters: Counters | None = None,
        rates: Rates | None = None,
    ) -> None:
        """Say what traffic did: to one destination by ``change``, to the service by the rest."""
        record = self._rules.services[key]
        if counters:
            record.counters = counters
        if rates:
            record.rates = rates
        if change and destination:
            record.destinations[destination] = change(record.destinations[destination])

    def marks(self) -> list[MarkRule]:
        """See :meth:`DataPlane.marks`."""
        return list(self._rules.marks)

    def defences(self) -> list[DefenceEntry]:
        """See :meth:`DataPlane.defences`; nothing was ever refused."""
        return [
            DefenceEntry(
                key,
                record.defence,
                dict.fromkeys(record.defence.clients, 0),
                0 if clients.denies_others(record.defence.clients) else None,
            )
            for key, record in self._rules.services.items()
            if record.defence != Defence()
        ]

    def sysctls(self) -> list[SysctlEntry]:
        """See :meth:`DataPlane.sysctls`."""
        return sysctl_rows.entries(self._rules.sysctls)


class _Record:
    """One service; ``destinations`` is oldest first, the reverse of IPVS's list."""

    __slots__ = ("counters", "defence", "destinations", "local_addresses", "rates", "service")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.destinations: dict[DestinationKey, DestinationEntry] = {}
        self.counters = Counters()
        self.rates = Rates()
        self.defence = Defence()
        self.local_addresses: list[bytes] = []  # replaced as a whole

    def copy(self) -> _Record:
        other = _Record(self.service)
        other.local_addresses, other.defence = self.local_addresses, self.defence
        other.destinations = dict(self.destinations)
        other.counters, other.rates = self.counters, self.rates
        return other

    def entry(self) -> ServiceEntry:
        destinations = list(self.destinations.values())
        destinations.reverse()
        return ServiceEntry(self.service, destinations, self.counters, self.rates, list(self.local_addresses))


class _Rules:
    """All that a transaction may change."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, _Record] = {}
        # Destinations that were deleted while connections still used them: added again,
        # they find their counters, as in IPVS's trash.
        self.trash: dict[tuple[ServiceKey, DestinationKey], DestinationEntry] = {}
        self.timeouts = Timeouts()
        self.daemons: dict[str, SyncDaemon] = {}
        self.marks: list[MarkRule] = []
        self.sysctls = sysctls.machine_defaults()

    def copy(self) -> _Rules:
        other = _Rules()
        other.services = {key: record.copy() for key, record in self.services.items()}
        other.trash = dict(self.trash)
        other.timeouts = self.timeouts
        other.daemons = dict(self.daemons)
        other.marks = list(self.marks)
        other.sysctls = dict(self.sysctls)
        return other


class MemoryTransaction:
    """See :class:`xlvs.dataplane.port.Transaction`."""

    def __init__(self, rules: _Rules, host: Host) -> None:
        self._rules = rules
        self._host = host

    def add_service(self, service: Service) -> None:
        """See the port."""
        if service.key in self._rules.services:
            raise IpvsError(EEXIST)
        self._check_service(service)
        self._rules.services[service.key] = _Record(ruleset.settle_service(service))

    def edit_service(self, service: Service) -> None:
        """See the port."""
        record = self._record(service.key)
        self._check_service(service)
        record.service = ruleset.settle_service(service, record.service)

    def delete_service(self, key: ServiceKey) -> None:
        """See the port."""
        self._keep_busy(self._record(key))
        del self._rules.services[key]

    def flush(self) -> None:
        """See the port."""
        for record in self._rules.services.values():
            self._keep_busy(record)
        self._rules.services.clear()

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        record = self._record(key)
        ruleset.check_destination(key, destination, synchronised=bool(self._rules.daemons))
        if destination.key in record.destinations:
            raise IpvsError(EEXIST)
        address = destination.key.address
        local, broadcast = self._host.is_local(address), self._host.is_broadcast(address)
        ruleset.check_address(destination, local=local, broadcast=broadcast)
        trashed = self._rules.trash.pop((key, destination.key), None)
        entry = replace(trashed, destination=destination) if trashed else DestinationEntry(destination)
        record.destinations[destination.key] = entry

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        record = self._record(key)
        ruleset.check_destination(key, destination, synchronised=bool(self._rules.daemons))
        entry = record.destinations.get(destination.key)
        if entry is None:
            raise IpvsError(ENOENT)
        record.destinations[destination.key] = replace(entry, destination=destination)

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """See the port."""
        entry = self._record(key).destinations.pop(destination, None)
        if entry is None:
            raise IpvsError(ENOENT)
        self._trash(key, entry)

    def add_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        record = self._record(key)
        record.local_addresses = ruleset.with_local_addresses(record.local_addresses, addresses)

    def delete_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        record = self._record(key)
        record.local_addresses = ruleset.without_local_addresses(record.local_addresses, addresses)

    def zero(self, key: ServiceKey | None = None) -> None:
        """See the port."""
        records = self._rules.services.values() if key is None else [self._record(key)]
        for record in records:
            record.counters, record.rates = Counters(), Rates()
            for name, entry in record.destinations.items():
                record.destinations[name] = replace(entry, counters=Counters(), rates=Rates())

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See the port."""
        self._rules.timeouts = ruleset.merge_timeouts(self._rules.timeouts, timeouts)

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """See the port."""
        mixed = any(
            one.family != key.family
            for key, record in self._rules.services.items()
            for one in record.destinations
        )
        running = self._rules.daemons
        running[daemon.role] = ruleset.settle_daemon(daemon, running, self._host, mixed=mixed)

    def stop_daemon(self, role: str) -> None:
        """See the port."""
        if self._rules.daemons.pop(role, None) is None:
            raise IpvsError(ESRCH)

    def marks(self) -> list[MarkRule]:
        """See the port."""
        return list(self._rules.marks)

    def set_marks(self, rules: Sequence[MarkRule]) -> None:
        """See the port."""
        marks.check(rules)
        self._rules.marks = list(rules)

    def defence(self, key: ServiceKey) -> Defence:
        """See the port."""
        return self._record(key).defence

    def set_defence(self, key: ServiceKey, defence: Defence) -> None:
        """See the port."""
        record = self._record(key)
        clients.check(key, defence)
        record.defence = defence

    def set_sysctl(self, name: str, text: str) -> None:
        """See the port."""
        current = self._rules.sysctls.get(name)
        if current is None:
            raise IpvsError(ENOENT)
        self._rules.sysctls[name] = sysctls.parse(name, text, current)

    def _record(self, key: ServiceKey) -> _Record:
        record = self._rules.services.get(key)
        if record is None:
            raise IpvsError(ESRCH)
        return record

    def _check_service(self, service: Service) -> None:
        ruleset.check_service(service)

    def _keep_busy(self, record: _Record) -> None:
        for entry in record.destinations.values():
            self._trash(record.service.key, entry)

    def _trash(self, key: ServiceKey, entry: DestinationEntry) -> None:
        if entry.active or entry.inactive:
            self._rules.trash[key, entry.destination.key] = entry
