"""The XDP engine behind the port: reads the maps, and changes them under the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xlvs.dataplane import clients, layout, libbpf, marks, sysctl_rows, sysctls
from xlvs.dataplane.conntable import ConnectionBlock, local_uses, read_blocks
from xlvs.dataplane.host import Host
from xlvs.dataplane.rows import (
    local_rows,
    member_dests,
    read_daemons,
    read_destination,
    read_service,
    service_wire_key,
)
from xlvs.dataplane.rules import XdpTransaction
from xlvs.dataplane.tables import DEFAULT_SLOTS, Tables, explain_refusal, wait_for_programs
from xlvs.model import (
    IPVS_VERSION,
    ConnectionEntry,
    Counters,
    DefenceEntry,
    DestinationEntry,
    LocalEntry,
    MarkRule,
    Rates,
    ServiceEntry,
    ServiceKey,
    SyncDaemon,
    SysctlEntry,
    TableInfo,
    Timeouts,
)


class XdpDataPlane:
    """The data plane of the current network namespace, whether `up` or not.

    Reading never creates anything; the first change makes the rule maps, so that
    rules can be entered before `up`.
    """

    def __init__(self, host: Host) -> None:
        self._tables = Tables()
        self._host = host

    def info(self) -> TableInfo:
        """See the port; the size is what `up` would make while it has not run."""
        slots = self._tables.settings.slots if self._tables.have_rules else DEFAULT_SLOTS
        return TableInfo(IPVS_VERSION, slots)

    @contextmanager
    def transaction(self) -> Iterator[XdpTransaction]:
        """See the port."""
        with self._tables.locked(exclusive=True):
            try:
                self._tables.create_rules()
            except libbpf.BpfError as error:
                raise explain_refusal(error) from error
            transaction = XdpTransaction(self._tables, self._host)
            yield transaction
            self._tables.carry_out(transaction.changes())
            if transaction.frees_rows:
                wait_for_programs()

    def services(self) -> list[ServiceEntry]:
        """See the port."""
        if not self._tables.have_rules:
            return []
        with self._tables.locked(exclusive=False):
            used = self._tables.settings.services_high
            flags = self._tables.column("services", layout.ServiceRow, "flags", used)
            return [self._entry(number) for number, flag in enumerate(flags) if flag & layout.SERVICE_USED]

    def service(self, key: ServiceKey) -> ServiceEntry | None:
        """See the port."""
        if not self._tables.have_rules:
            return None
        with self._tables.locked(exclusive=False):
            number = self._tables.find_service(service_wire_key(key))
            return None if number is None else self._entry(number)

    def timeouts(self) -> Timeouts:
        """See the port."""
        if not self._tables.have_rules:
            return Timeouts()
        return Timeouts(*self._tables.settings.tcp_seconds)

    def daemons(self) -> list[SyncDaemon]:
        """See the port."""
        if not self._tables.have_rules:
            return []
        with self._tables.locked(exclusive=False):
            return read_daemons(self._tables.settings)

    def marks(self) -> list[MarkRule]:
        """See the port."""
        if not self._tables.have_rules:
            return []
        with self._tables.locked(exclusive=False):
            return marks.read(self._tables)

    def defences(self) -> list[DefenceEntry]:
        """See the port."""
        if not self._tables.have_rules:
            return []
        with self._tables.locked(exclusive=False):
            return clients.entries(self._tables)

    def sysctls(self) -> list[SysctlEntry]:
        """See the port; the kernel's defaults before there are rules."""
        if not self._tables.have_rules:
            return sysctl_rows.entries(sysctls.machine_defaults())
        with self._tables.locked(exclusive=False):
            return sysctl_rows.entries(sysctl_rows.read(self._tables.settings))

    def local_addresses(self) -> dict[ServiceKey, list[LocalEntry]]:
        """See the port."""
        if not self._tables.have_rules:
            return {}
        with self._tables.locked(exclusive=False):
            pools = {}
            for number in range(self._tables.settings.services_high):
                row = self._tables.service_row(number)
                if row.flags & layout.SERVICE_USED and any(row.locals):
                    pools[number] = (read_service(row).key, local_rows(self._tables, row))
        uses = local_uses(self._tables) if pools and self._tables.have_conns else {}
        return {
            key: [
                LocalEntry(address, uses.get((number, address.ljust(16, b"\0")), 0), conflicts)
                for address, conflicts in pool
            ]
            for number, (key, pool) in pools.items()
        }

    def connections(self) -> Iterator[ConnectionEntry]:
        """See the port."""
        for block in self.connection_blocks():
            yield from block.entries()

    def connection_blocks(self) -> Iterator[ConnectionBlock]:
        """See the port. Connections come and go meanwhile, as they do in the kernel's."""
        return read_blocks(self._tables) if self._tables.have_conns else iter(())

    def _entry(self, number: int) -> ServiceEntry:
        row = self._tables.service_row(number)
        return ServiceEntry(
            read_service(row),
            [self._destination(each) for each in member_dests(self._tables, row)],
            self._counters(layout.ROW_SERVICE + number),
            self._rates(layout.ROW_SERVICE + number),
            [address for address, _ in local_rows(self._tables, row)],
        )

    def _destination(self, number: int) -> DestinationEntry:
        load = self._tables.load_row(number)
        return DestinationEntry(
            read_destination(self._tables.dest_row(number)),
            load.active,
            load.inactive,
            load.persistent,
            self._counters(layout.ROW_DEST + number),
            self._rates(layout.ROW_DEST + number),
        )

    def _counters(self, number: int) -> Counters:
        zero = self._tables.rate_row(number).zero
        sums = self._tables.counter_sums(number)
        return Counters(*(total - base for total, base in zip(sums, zero, strict=True)))

    def _rates(self, number: int) -> Rates:
        average = self._tables.rate_row(number).average
        # ip_vs_read_estimator: packets are scaled by 2^10, bytes by 2^5, rounded up.
        packets = [(value + 0x1FF) >> 10 for value in average[:3]]
        return Rates(*packets, *((value + 0xF) >> 5 for value in average[3:]))
