"""The kernel's own IPVS behind the port, on kernels that have it.

Changes are the kernel's at once: it has no transactions. An exception that leaves one
puts every service that was touched back as it was, as far as commands can: a service that
has to be made anew for that begins its counters again.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from errno import EINVAL, ENOENT, EPERM, ESRCH
from typing import Protocol

from xlvs.dataplane.conntable import ConnectionBlock, blocks_of
from xlvs.errors import IpvsError, NotCarried, XlvsError
from xlvs.model import (
    AF_INET,
    AF_INET6,
    IPVS_VERSION,
    ClientAddress,
    ConnectionEntry,
    Defence,
    DefenceEntry,
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
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

_CONNECTIONS = "/proc/net/ip_vs_conn"
_TABLE = "/proc/net/ip_vs"
_SYSCTLS = "/proc/sys/net/ipv4/vs"
_NO_DEFENCE = "the kernel's IPVS has no limits and lists of clients: use nftables in front of it"
_NO_MARKS = "for the kernel's IPVS netfilter marks packets: use `iptables -t mangle`"
_NO_FULLNAT = "the kernel's IPVS has no FULLNAT: use xlvs's own engine (--engine xdp)"
_NO_SYNPROXY = "the kernel's IPVS has no SYNPROXY: use xlvs's own engine (--engine xdp)"
_NO_CLIENT_ADDRESS = "the kernel's IPVS tells real servers no client's address: use --engine xdp"
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ESP": 50, "AH": 51, "ICMP": 1, "ICMPv6": 58, "IP": 0}


class KernelIpvs(Protocol):
    """The calls of the kernel's IPVS (linux/ip_vs.h); each raises IpvsError with the kernel's errno."""

    def services(self) -> Iterator[ServiceEntry]:
        """All services without their destinations, in the kernel's order."""

    def service(self, key: ServiceKey) -> ServiceEntry:
        """One service without its destinations; ESRCH where there is none."""

    def destinations(self, key: ServiceKey) -> list[DestinationEntry]:
        """A service's destinations in list order."""

    def add_service(self, service: Service) -> None:
        """Add a service."""

    def edit_service(self, service: Service) -> None:
        """Change a service."""

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a service."""

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Add a destination."""

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Change a destination."""

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """Delete a destination."""

    def flush(self) -> None:
        """Delete every service."""

    def zero(self, key: ServiceKey | None) -> None:
        """Zero the counters of one service, or of all."""

    def timeouts(self) -> Timeouts:
        """The timeouts in force."""

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set timeouts; a 0 leaves that one as it is."""

    def daemons(self) -> list[SyncDaemon]:
        """The synchronisation daemons that run."""

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Start a synchronisation daemon."""

    def stop_daemon(self, role: str) -> None:
        """Stop a synchronisation daemon."""


class KernelDataPlane:
    """The kernel's IPVS of the current network namespace.

    ``open_ipvs`` opens the conversation; it raises IpvsError(ENOENT) where the kernel has
    no IPVS. ``load_module`` is then asked to load it, and it is tried once more.
    """

    def __init__(self, open_ipvs: Callable[[], KernelIpvs], load_module: Callable[[], object]) -> None:
        self._ipvs = _open(open_ipvs, load_module)

    def info(self) -> TableInfo:
        """See the port."""
        with open(_TABLE) as table:
            words = table.readline().split()
        size = words[-1].removeprefix("(size=").removesuffix(")")
        return TableInfo(IPVS_VERSION if len(words) < 5 else words[4], int(size))

    @contextmanager
    def transaction(self) -> Iterator[KernelTransaction]:
        """See the port; the kernel's own lock keeps single changes apart, nothing more."""
        transaction = KernelTransaction(self._ipvs)
        try:
            yield transaction
        except BaseException:
            transaction.undo()
            raise

    def services(self) -> list[ServiceEntry]:
        """See the port."""
        found = []
        for entry in self._ipvs.services():
            # A service may go away between the two questions.
            with contextlib.suppress(IpvsError):
                found.append(self._with_destinations(entry))
        return found

    def service(self, key: ServiceKey) -> ServiceEntry | None:
        """See the port."""
        try:
            return self._with_destinations(self._ipvs.service(key))
        except IpvsError as error:
            if error.errno != ESRCH:
                raise
            return None

    def local_addresses(self) -> dict[ServiceKey, list[LocalEntry]]:
        """See the port."""
        raise NotCarried(_NO_FULLNAT)

    def connections(self) -> Iterator[ConnectionEntry]:
        """See the port; the kernel does not tell packets, nor which are templates."""
        with open(_CONNECTIONS) as lines:
            next(lines, None)
            for line in lines:
                yield read_connection(line)

    def connection_blocks(self) -> Iterator[ConnectionBlock]:
        """See the port."""
        return blocks_of(self.connections())

    def timeouts(self) -> Timeouts:
        """See the port."""
        return self._ipvs.timeouts()

    def daemons(self) -> list[SyncDaemon]:
        """See the port."""
        return self._ipvs.daemons()

    def marks(self) -> list[MarkRule]:
        """See the port."""
        raise NotCarried(_NO_MARKS)

    def defences(self) -> list[DefenceEntry]:
        """See the port."""
        raise NotCarried(_NO_DEFENCE)

    def sysctls(self) -> list[SysctlEntry]:
        """See the port: what /proc/sys/net/ipv4/vs has."""
        found = []
        for name in sorted(os.listdir(_SYSCTLS)):
            with open(f"{_SYSCTLS}/{name}") as text:
                found.append(SysctlEntry(name, tuple(map(int, text.read().split()))))
        return found

    def _with_destinations(self, entry: ServiceEntry) -> ServiceEntry:
        return replace(entry, destinations=self._ipvs.destinations(entry.service.key))


def _open(open_ipvs: Callable[[], KernelIpvs], load_module: Callable[[], object]) -> KernelIpvs:
    for attempt in (1, 2):
        try:
            return open_ipvs()
        except IpvsError as error:
            if error.errno == EPERM:
                raise XlvsError("the kernel's IPVS answers root only (CAP_NET_ADMIN)") from None
            if error.errno != ENOENT:
                raise
            if attempt == 1:
                load_module()
    raise XlvsError(
        f"this kernel ({os.uname().release}) has no IPVS: `modprobe ip_vs` where it comes as a module, "
        "or use xlvs's own engine (--engine xdp)"
    )


class KernelTransaction:
    """See :class:`xlvs.dataplane.port.Transaction`."""

    def __init__(self, ipvs: KernelIpvs) -> None:
        self._ipvs = ipvs
        self._before: dict[ServiceKey, ServiceEntry | None] = {}
        self._timeouts: Timeouts | None = None
        self._daemons: list[SyncDaemon] | None = None
        self._sysctls: dict[str, str] = {}

    def add_service(self, service: Service) -> None:
        """See the port."""
        _refuse_own(service)
        self._remember(service.key)
        self._ipvs.add_service(service)

    def edit_service(self, service: Service) -> None:
        """See the port."""
        _refuse_own(service)
        self._remember(service.key)
        self._ipvs.edit_service(service)

    def delete_service(self, key: ServiceKey) -> None:
        """See the port."""
        self._remember(key)
        self._ipvs.delete_service(key)

    def flush(self) -> None:
        """See the port."""
        for entry in self._ipvs.services():
            self._remember(entry.service.key)
        self._ipvs.flush()

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        _refuse_fullnat(destination)
        self._remember(key)
        self._ipvs.add_destination(key, destination)

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See the port."""
        _refuse_fullnat(destination)
        self._remember(key)
        self._ipvs.edit_destination(key, destination)

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """See the port."""
        self._remember(key)
        self._ipvs.delete_destination(key, destination)

    def add_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        del key, addresses
        raise NotCarried(_NO_FULLNAT)

    def delete_local_addresses(self, key: ServiceKey, addresses: Sequence[bytes]) -> None:
        """See the port."""
        del key, addresses
        raise NotCarried(_NO_FULLNAT)

    def zero(self, key: ServiceKey | None = None) -> None:
        """See the port; not undone."""
        self._ipvs.zero(key)

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See the port."""
        if self._timeouts is None:
            self._timeouts = self._ipvs.timeouts()
        self._ipvs.set_timeouts(timeouts)

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """See the port."""
        self._remember_daemons()
        self._ipvs.start_daemon(daemon)

    def stop_daemon(self, role: str) -> None:
        """See the port."""
        self._remember_daemons()
        self._ipvs.stop_daemon(role)

    def marks(self) -> list[MarkRule]:
        """See the port."""
        raise NotCarried(_NO_MARKS)

    def set_marks(self, rules: Sequence[MarkRule]) -> None:
        """See the port."""
        del rules
        raise NotCarried(_NO_MARKS)

    def defence(self, key: ServiceKey) -> Defence:
        """See the port."""
        del key
        raise NotCarried(_NO_DEFENCE)

    def set_defence(self, key: ServiceKey, defence: Defence) -> None:
        """See the port."""
        del key, defence
        raise NotCarried(_NO_DEFENCE)

    def set_sysctl(self, name: str, text: str) -> None:
        """See the port."""
        path = f"{_SYSCTLS}/{os.path.basename(name)}"
        try:
            with open(path, "r+") as file:
                self._sysctls.setdefault(path, file.read())
                file.seek(0)
                file.write(f"{text}\n")
        except OSError as error:
            raise IpvsError(error.errno or EINVAL) from None

    # -- undoing ---------------------------------------------------------------

    def _remember(self, key: ServiceKey) -> None:
        if key not in self._before:
            self._before[key] = self._now(key)

    def _remember_daemons(self) -> None:
        if self._daemons is None:
            self._daemons = self._ipvs.daemons()

    def _now(self, key: ServiceKey) -> ServiceEntry | None:
        try:
            entry = self._ipvs.service(key)
            return replace(entry, destinations=self._ipvs.destinations(key))
        except IpvsError:
            return None  # not there; other trouble the change itself will meet

    def undo(self) -> None:
        """Put everything touched back as it was."""
        for key, before in self._before.items():
            now = self._now(key)
            if before is None:
                if now is not None:
                    self._ipvs.delete_service(key)
            elif now is None or _keys(now) != _keys(before):
                self._make_anew(before, now)
            else:
                self._edit_back(before, now)
        if self._timeouts:
            self._ipvs.set_timeouts(self._timeouts)
        if self._daemons is not None:
            now_running = self._ipvs.daemons()
            for daemon in now_running:
                if daemon not in self._daemons:
                    self._ipvs.stop_daemon(daemon.role)
            for daemon in self._daemons:
                if daemon not in now_running:
                    self._ipvs.start_daemon(daemon)
        for path, text in self._sysctls.items():
            with open(path, "w") as file:
                file.write(text)

    def _make_anew(self, before: ServiceEntry, now: ServiceEntry | None) -> None:
        key = before.service.key
        if now is not None:
            self._ipvs.delete_service(key)
        self._ipvs.add_service(before.service)
        # The kernel adds at the head: the last of the list goes first.
        for entry in reversed(before.destinations):
            self._ipvs.add_destination(key, entry.destination)

    def _edit_back(self, before: ServiceEntry, now: ServiceEntry) -> None:
        if before.service != now.service:
            self._ipvs.edit_service(before.service)
        for old, new in zip(before.destinations, now.destinations, strict=True):
            if old.destination != new.destination:
                self._ipvs.edit_destination(before.service.key, old.destination)


def _refuse_own(service: Service) -> None:
    if service.synproxy:
        raise NotCarried(_NO_SYNPROXY)
    if service.client_address in (ClientAddress.TOA, ClientAddress.PROXY):
        raise NotCarried(_NO_CLIENT_ADDRESS)


def _refuse_fullnat(destination: Destination) -> None:
    if destination.forward == Forward.FULLNAT:
        raise NotCarried(_NO_FULLNAT)


def _keys(entry: ServiceEntry) -> list[DestinationKey]:
    return [each.destination.key for each in entry.destinations]


def read_connection(line: str) -> ConnectionEntry:
    """One line of the kernel's /proc/net/ip_vs_conn. Expiry is in whole seconds there."""
    fields = line.split()
    family, client = _address(fields[1])
    destination_family, destination = _address(fields[5])
    name = fields[0]
    protocol = _PROTOCOLS.get(name)
    return ConnectionEntry(
        family=family,
        protocol=int(name.removeprefix("IP_")) if protocol is None else protocol,
        client=client,
        client_port=int(fields[2], 16),
        virtual=_address(fields[3])[1],
        virtual_port=int(fields[4], 16),
        destination_family=destination_family,
        destination=destination,
        destination_port=int(fields[6], 16),
        state=fields[7],
        expires=float(fields[8]),
        pe_name=fields[9] if len(fields) > 9 else "",
        pe_data=fields[10] if len(fields) > 10 else "",
    )


def _address(text: str) -> tuple[int, bytes]:
    if ":" in text:
        return AF_INET6, socket.inet_pton(AF_INET6, text.strip("[]"))
    return AF_INET, bytes.fromhex(text)
