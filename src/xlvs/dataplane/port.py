"""The port: what every engine offers to the floors above.

An engine's own state is the only truth; nothing above keeps a copy. Changes go
through one exclusive :class:`Transaction`; readers never see half of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from xlvs.model import (
    ConnectionEntry,
    Defence,
    DefenceEntry,
    Destination,
    DestinationKey,
    LocalEntry,
    MarkRule,
    Service,
    ServiceEntry,
    ServiceKey,
    SyncDaemon,
    SysctlEntry,
    TableInfo,
    Timeouts,
)

if TYPE_CHECKING:
    from xlvs.dataplane.conntable import ConnectionBlock


class Transaction(Protocol):
    """Changes that become visible together when the ``with`` block ends normally.

    Every method checks its arguments as the kernel's IPVS does and raises
    :class:`xlvs.errors.IpvsError` with the kernel's errno (EEXIST, ESRCH, ENOENT,
    EINVAL, ERANGE, ...) without changing anything; earlier changes of the same
    transaction stand. An exception that leaves the ``with`` block undoes them all.
    What the engine does not carry raises :class:`xlvs.errors.NotCarried`.
    """

    def add_service(self, service: Service) -> None:
        """Add a service without destinations; EEXIST where there is one already."""

    def edit_service(self, service: Service) -> None:
        """Change scheduler, flags, timeout, netmask, and of ours what is not None; ESRCH if not there."""

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a service and its destinations; their connections outlive it."""

    def flush(self) -> None:
        """Delete every service."""

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Add a destination at the head of the list, as IPVS does."""

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Change weight, method and thresholds; ENOENT where there is none."""

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """Delete a destination; its connections outlive it."""

    def add_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """Add to FULLNAT's addresses, all or none: EEXIST for one that is there, EINVAL unless unicast."""

    def delete_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """Take from FULLNAT's addresses, all or none: ENOENT for one that is not there.

        Connections that use it go on.
        """

    def zero(self, key: ServiceKey | None = None) -> None:
        """Zero the counters of one service and its destinations, or of all."""

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set connection timeouts; a 0 leaves that one as it is."""

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Start a synchronisation daemon; EEXIST where one of its role runs, ENODEV without its interface."""

    def stop_daemon(self, role: str) -> None:
        """Stop the ``master`` or the ``backup`` daemon; ESRCH where it does not run."""

    def set_sysctl(self, name: str, text: str) -> None:
        """Set one of IPVS's sysctls by its bare name, from text as /proc takes it.

        ENOENT where there is no such sysctl, EINVAL for what the kernel refuses.
        """

    def marks(self) -> list[MarkRule]:
        """The classifier's rules as this transaction has them by now."""

    def set_marks(self, rules: Sequence[MarkRule]) -> None:
        """Let exactly these rules mark packets; EINVAL for one that makes no sense."""

    def defence(self, key: ServiceKey) -> Defence:
        """A service's limits and lists of clients as this transaction has them by now; ESRCH without it."""

    def set_defence(self, key: ServiceKey, defence: Defence) -> None:
        """Give a service exactly these limits and lists, until it is deleted.

        Prefixes that stay go on counting. EINVAL for a prefix of another family or with host bits.
        """


class DataPlane(Protocol):
    """One engine in the current network namespace."""

    def info(self) -> TableInfo:
        """Version and connection table size for the first line of listings."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Take the one lock, and change things under it."""

    def services(self) -> list[ServiceEntry]:
        """All services, in the engine's own order."""

    def service(self, key: ServiceKey) -> ServiceEntry | None:
        """One service, or None."""

    def local_addresses(self) -> dict[ServiceKey, list[LocalEntry]]:
        """FULLNAT's addresses of every service that has any, with what uses them."""

    def connections(self) -> Iterator[ConnectionEntry]:
        """All connections and templates, in the engine's own order."""

    def connection_blocks(self) -> Iterator[ConnectionBlock]:
        """The same in bulk, as columns: what lists millions of them uses."""

    def timeouts(self) -> Timeouts:
        """The timeouts in force."""

    def daemons(self) -> list[SyncDaemon]:
        """The synchronisation daemons that run, the master first."""

    def marks(self) -> list[MarkRule]:
        """The classifier's rules in their order: the last that matches gives the mark."""

    def defences(self) -> list[DefenceEntry]:
        """The services that have limits or lists of clients, with what those did."""

    def sysctls(self) -> list[SysctlEntry]:
        """IPVS's sysctls by name."""
