"""The kernel's own IPVS over generic netlink (linux/ip_vs.h), through pyroute2.

pyroute2 has tables of its own for this family; these say what they lack or have wrong:
IPv6 netmasks, the byte order of tunnel ports, timeouts, daemons. Addresses go as their
plain bytes, so that one table serves both families.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

from xlvs.errors import IpvsError
from xlvs.model import (
    AF_INET,
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Rates,
    Service,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelType,
)

_FAMILY, _VERSION = "IPVS", 1
_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DEST, _SET_DEST, _DEL_DEST, _GET_DEST = 5, 6, 7, 8
_NEW_DAEMON, _DEL_DAEMON, _GET_DAEMON = 9, 10, 11
_SET_CONFIG, _GET_CONFIG = 12, 13
_ZERO, _FLUSH = 16, 17

_CHANGE = NLM_F_REQUEST | NLM_F_ACK
_DUMP = NLM_F_REQUEST | NLM_F_DUMP
_EVERY_FLAG = 0xFFFFFFFF
_ROLES = {"master": 1, "backup": 2}  # IP_VS_STATE_* of linux/ip_vs.h
_DAEMON_ALWAYS = ("IPVS_DAEMON_ATTR_MCAST_IFN", "IPVS_DAEMON_ATTR_SYNC_ID")
_METHOD = 0x7  # IP_VS_CONN_F_FWD_MASK

_FIVE = ("CONNS", "INPKTS", "OUTPKTS", "INBYTES", "OUTBYTES")
_FIVE_RATES = ("CPS", "INPPS", "OUTPPS", "INBPS", "OUTBPS")


def _statistics(*kinds: str) -> tuple[tuple[str, str], ...]:
    names = (f"IPVS_STATS_ATTR_{name}" for name in (*_FIVE, *_FIVE_RATES))
    return (("IPVS_STATS_ATTR_UNSPEC", "none"), *zip(names, kinds, strict=True))


class _Stats(nla):  # type: ignore[misc]  # pyroute2 ships no types
    nla_map = _statistics(*["uint32"] * 3, *["uint64"] * 2, *["uint32"] * 5)


class _Stats64(nla):  # type: ignore[misc]
    nla_map = _statistics(*["uint64"] * 10)


class _Message(genlmsg):  # type: ignore[misc]
    """Every message of the family but GET_INFO, which uses the first numbers otherwise."""

    prefix = "IPVS_CMD_ATTR_"
    nla_map = (
        ("IPVS_CMD_ATTR_UNSPEC", "none"),
        ("IPVS_CMD_ATTR_SERVICE", "service"),
        ("IPVS_CMD_ATTR_DEST", "dest"),
        ("IPVS_CMD_ATTR_DAEMON", "daemon"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_UDP", "uint32"),
    )

    class service(nla):  # type: ignore[misc]
        prefix = "IPVS_SVC_ATTR_"
        nla_map = (
            ("IPVS_SVC_ATTR_UNSPEC", "none"),
            ("IPVS_SVC_ATTR_AF", "uint16"),
            ("IPVS_SVC_ATTR_PROTOCOL", "uint16"),
            ("IPVS_SVC_ATTR_ADDR", "cdata"),
            ("IPVS_SVC_ATTR_PORT", "be16"),
            ("IPVS_SVC_ATTR_FWMARK", "uint32"),
            ("IPVS_SVC_ATTR_SCHED_NAME", "asciiz"),
            ("IPVS_SVC_ATTR_FLAGS", "flags"),
            ("IPVS_SVC_ATTR_TIMEOUT", "uint32"),
            ("IPVS_SVC_ATTR_NETMASK", "cdata"),
            ("IPVS_SVC_ATTR_STATS", "stats"),
            ("IPVS_SVC_ATTR_PE_NAME", "asciiz"),
            ("IPVS_SVC_ATTR_STATS64", "stats64"),
        )
        stats, stats64 = _Stats, _Stats64

        class flags(nla):  # type: ignore[misc]
            fields = (("flags", "I"), ("mask", "I"))

    class dest(nla):  # type: ignore[misc]
        prefix = "IPVS_DEST_ATTR_"
        nla_map = (
            ("IPVS_DEST_ATTR_UNSPEC", "none"),
            ("IPVS_DEST_ATTR_ADDR", "cdata"),
            ("IPVS_DEST_ATTR_PORT", "be16"),
            ("IPVS_DEST_ATTR_FWD_METHOD", "uint32"),
            ("IPVS_DEST_ATTR_WEIGHT", "int32"),
            ("IPVS_DEST_ATTR_U_THRESH", "uint32"),
            ("IPVS_DEST_ATTR_L_THRESH", "uint32"),
            ("IPVS_DEST_ATTR_ACTIVE_CONNS", "uint32"),
            ("IPVS_DEST_ATTR_INACT_CONNS", "uint32"),
            ("IPVS_DEST_ATTR_PERSIST_CONNS", "uint32"),
            ("IPVS_DEST_ATTR_STATS", "stats"),
            ("IPVS_DEST_ATTR_ADDR_FAMILY", "uint16"),
            ("IPVS_DEST_ATTR_STATS64", "stats64"),
            ("IPVS_DEST_ATTR_TUN_TYPE", "uint8"),
            ("IPVS_DEST_ATTR_TUN_PORT", "be16"),
            ("IPVS_DEST_ATTR_TUN_FLAGS", "uint16"),
        )
        stats, stats64 = _Stats, _Stats64

    class daemon(nla):  # type: ignore[misc]
        prefix = "IPVS_DAEMON_ATTR_"
        nla_map = (
            ("IPVS_DAEMON_ATTR_UNSPEC", "none"),
            ("IPVS_DAEMON_ATTR_STATE", "uint32"),
            ("IPVS_DAEMON_ATTR_MCAST_IFN", "asciiz"),
            ("IPVS_DAEMON_ATTR_SYNC_ID", "uint32"),
            ("IPVS_DAEMON_ATTR_SYNC_MAXLEN", "uint16"),
            ("IPVS_DAEMON_ATTR_MCAST_GROUP", "cdata"),
            ("IPVS_DAEMON_ATTR_MCAST_GROUP6", "cdata"),
            ("IPVS_DAEMON_ATTR_MCAST_PORT", "uint16"),
            ("IPVS_DAEMON_ATTR_MCAST_TTL", "uint8"),
        )


class _AsyncSocket(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # that IPVS is missing is ours to say, not the log's


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]
    async_class = _AsyncSocket


class NetlinkIpvs:
    """:class:`xlvs.dataplane.kernel.KernelIpvs` of the current network namespace.

    Raises :class:`IpvsError` with the kernel's errno; ENOENT from the constructor means
    that the kernel has no IPVS (now).
    """

    def __init__(self) -> None:
        # pyroute2 runs an event loop of its own in every call, which inside another one it may not.
        self._thread = ThreadPoolExecutor(1) if _in_event_loop() else None
        self._socket = self._call(_Socket)
        try:
            self._call(self._socket.bind, _FAMILY, _Message)
        except NetlinkError as error:
            self.close()
            raise IpvsError(error.code) from None

    def close(self) -> None:
        """Close the socket."""
        self._call(self._socket.close)
        if self._thread:
            self._thread.shutdown()

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        return self._thread.submit(function, *arguments).result() if self._thread else function(*arguments)

    def services(self) -> Iterator[ServiceEntry]:
        """All services without their destinations, in the kernel's order."""
        for message in self._ask(_GET_SERVICE, _DUMP):
            yield _read_service(message.get_attr("IPVS_CMD_ATTR_SERVICE"))

    def service(self, key: ServiceKey) -> ServiceEntry:
        """One service without its destinations; ESRCH where there is none."""
        (message,) = self._ask(_GET_SERVICE, _CHANGE, service=_key(key))
        return _read_service(message.get_attr("IPVS_CMD_ATTR_SERVICE"))

    def destinations(self, key: ServiceKey) -> list[DestinationEntry]:
        """A service's destinations in list order."""
        messages = self._ask(_GET_DEST, _DUMP, service=_key(key))
        return [_read_destination(message.get_attr("IPVS_CMD_ATTR_DEST"), key) for message in messages]

    def add_service(self, service: Service) -> None:
        """Add a service."""
        self._ask(_NEW_SERVICE, _CHANGE, service=_service(service))

    def edit_service(self, service: Service) -> None:
        """Change a service."""
        self._ask(_SET_SERVICE, _CHANGE, service=_service(service))

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a service."""
        self._ask(_DEL_SERVICE, _CHANGE, service=_key(key))

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Add a destination."""
        self._ask(_NEW_DEST, _CHANGE, service=_key(key), dest=_destination(destination))

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Change a destination."""
        self._ask(_SET_DEST, _CHANGE, service=_key(key), dest=_destination(destination))

    def delete_destination(self, key: ServiceKey, destination: DestinationKey) -> None:
        """Delete a destination."""
        self._ask(_DEL_DEST, _CHANGE, service=_key(key), dest=_destination_key(destination))

    def flush(self) -> None:
        """Delete every service."""
        self._ask(_FLUSH, _CHANGE)

    def zero(self, key: ServiceKey | None) -> None:
        """Zero the counters of one service, or of all."""
        self._ask(_ZERO, _CHANGE, **({"service": _key(key)} if key else {}))

    def timeouts(self) -> Timeouts:
        """The timeouts in force."""
        (message,) = self._ask(_GET_CONFIG, _CHANGE)
        return Timeouts(
            message.get_attr("IPVS_CMD_ATTR_TIMEOUT_TCP"),
            message.get_attr("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN"),
            message.get_attr("IPVS_CMD_ATTR_TIMEOUT_UDP"),
        )

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set timeouts; a 0 leaves that one as it is."""
        self._ask(
            _SET_CONFIG,
            _CHANGE,
            timeout_tcp=timeouts.tcp,
            timeout_tcp_fin=timeouts.tcp_fin,
            timeout_udp=timeouts.udp,
        )

    def daemons(self) -> list[SyncDaemon]:
        """The synchronisation daemons that run, the master first."""
        messages = self._ask(_GET_DAEMON, _DUMP)
        return [_read_daemon(message.get_attr("IPVS_CMD_ATTR_DAEMON")) for message in messages]

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Start a synchronisation daemon; the kernel fills in the defaults."""
        self._ask(_NEW_DAEMON, _CHANGE, daemon=_daemon(daemon))

    def stop_daemon(self, role: str) -> None:
        """Stop a synchronisation daemon."""
        self._ask(_DEL_DAEMON, _CHANGE, daemon=[("IPVS_DAEMON_ATTR_STATE", _ROLES[role])])

    def _ask(self, command: int, flags: int, **attributes: Any) -> tuple[Any, ...]:
        message = _Message()
        message["cmd"], message["version"] = command, _VERSION
        message["attrs"] = [
            (f"IPVS_CMD_ATTR_{name.upper()}", {"attrs": value} if isinstance(value, list) else value)
            for name, value in attributes.items()
        ]
        try:
            answers: tuple[Any, ...] = self._call(self._request, message, flags)
        except NetlinkError as error:
            raise IpvsError(error.code) from None
        return answers

    def _request(self, message: _Message, flags: int) -> tuple[Any, ...]:
        return tuple(self._socket.nlm_request(message, self._socket.prid, flags))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_Attributes = list[tuple[str, Any]]


def _key(key: ServiceKey) -> _Attributes:
    """What a service is found by. The kernel takes sixteen bytes for any address."""
    attributes: _Attributes = [("IPVS_SVC_ATTR_AF", key.family)]
    if key.fwmark:
        attributes.append(("IPVS_SVC_ATTR_FWMARK", key.fwmark))
    else:
        attributes += [
            ("IPVS_SVC_ATTR_PROTOCOL", key.protocol),
            ("IPVS_SVC_ATTR_ADDR", key.address.ljust(16, b"\0")),
            ("IPVS_SVC_ATTR_PORT", key.port),
        ]
    return attributes


def _service(service: Service) -> _Attributes:
    # An IPv4 mask is in wire order, an IPv6 prefix length in the host's.
    order = "big" if service.key.family == AF_INET else sys.byteorder
    attributes = [
        *_key(service.key),
        ("IPVS_SVC_ATTR_SCHED_NAME", service.scheduler),
        ("IPVS_SVC_ATTR_FLAGS", {"flags": int(service.flags), "mask": _EVERY_FLAG}),
        ("IPVS_SVC_ATTR_TIMEOUT", service.timeout),
        ("IPVS_SVC_ATTR_NETMASK", service.netmask.to_bytes(4, order)),
    ]
    if service.pe_name:
        attributes.append(("IPVS_SVC_ATTR_PE_NAME", service.pe_name))
    return attributes


def _destination_key(key: DestinationKey) -> _Attributes:
    return [
        ("IPVS_DEST_ATTR_ADDR_FAMILY", key.family),
        ("IPVS_DEST_ATTR_ADDR", key.address.ljust(16, b"\0")),
        ("IPVS_DEST_ATTR_PORT", key.port),
    ]


def _destination(one: Destination) -> _Attributes:
    return [
        *_destination_key(one.key),
        ("IPVS_DEST_ATTR_FWD_METHOD", int(one.forward)),
        ("IPVS_DEST_ATTR_WEIGHT", one.weight),
        ("IPVS_DEST_ATTR_TUN_TYPE", int(one.tunnel.type)),
        ("IPVS_DEST_ATTR_TUN_PORT", one.tunnel.port),
        ("IPVS_DEST_ATTR_TUN_FLAGS", one.tunnel.flags),
        ("IPVS_DEST_ATTR_U_THRESH", one.upper),
        ("IPVS_DEST_ATTR_L_THRESH", one.lower),
    ]


def _daemon(daemon: SyncDaemon) -> _Attributes:
    attributes: _Attributes = [
        ("IPVS_DAEMON_ATTR_STATE", _ROLES[daemon.role]),
        ("IPVS_DAEMON_ATTR_MCAST_IFN", daemon.interface),
        ("IPVS_DAEMON_ATTR_SYNC_ID", daemon.syncid),
        ("IPVS_DAEMON_ATTR_SYNC_MAXLEN", daemon.maxlen),
        ("IPVS_DAEMON_ATTR_MCAST_PORT", daemon.port),
        ("IPVS_DAEMON_ATTR_MCAST_TTL", daemon.ttl),
    ]
    if daemon.group:
        name = "IPVS_DAEMON_ATTR_MCAST_GROUP" + ("" if len(daemon.group) == 4 else "6")
        attributes.append((name, daemon.group))
    return [(name, value) for name, value in attributes if value or name in _DAEMON_ALWAYS]


def _read_daemon(attributes: Any) -> SyncDaemon:
    get = attributes.get_attr
    return SyncDaemon(
        next(role for role, state in _ROLES.items() if state == get("IPVS_DAEMON_ATTR_STATE")),
        get("IPVS_DAEMON_ATTR_MCAST_IFN"),
        get("IPVS_DAEMON_ATTR_SYNC_ID"),
        get("IPVS_DAEMON_ATTR_SYNC_MAXLEN"),
        get("IPVS_DAEMON_ATTR_MCAST_GROUP") or get("IPVS_DAEMON_ATTR_MCAST_GROUP6"),
        get("IPVS_DAEMON_ATTR_MCAST_PORT"),
        get("IPVS_DAEMON_ATTR_MCAST_TTL"),
    )


def _read_service(attributes: Any) -> ServiceEntry:
    get = attributes.get_attr
    family, fwmark = get("IPVS_SVC_ATTR_AF"), get("IPVS_SVC_ATTR_FWMARK") or 0
    if fwmark:
        key = ServiceKey(family, 0, b"", 0, fwmark)
    else:
        address = get("IPVS_SVC_ATTR_ADDR")[: 4 if family == AF_INET else 16]
        key = ServiceKey(family, get("IPVS_SVC_ATTR_PROTOCOL"), address, get("IPVS_SVC_ATTR_PORT"))
    order = "big" if family == AF_INET else sys.byteorder
    service = Service(
        key,
        get("IPVS_SVC_ATTR_SCHED_NAME") or "none",
        ServiceFlag(get("IPVS_SVC_ATTR_FLAGS")["flags"]) & ~ServiceFlag.HASHED,
        get("IPVS_SVC_ATTR_TIMEOUT"),
        int.from_bytes(get("IPVS_SVC_ATTR_NETMASK"), order),
        get("IPVS_SVC_ATTR_PE_NAME") or "",
    )
    statistics = get("IPVS_SVC_ATTR_STATS64") or get("IPVS_SVC_ATTR_STATS")
    return ServiceEntry(
        service, [], Counters(*_five(statistics, _FIVE)), Rates(*_five(statistics, _FIVE_RATES))
    )


def _read_destination(attributes: Any, service: ServiceKey) -> DestinationEntry:
    get = attributes.get_attr
    family = get("IPVS_DEST_ATTR_ADDR_FAMILY") or service.family  # kernels before 3.18 knew no other
    address = get("IPVS_DEST_ATTR_ADDR")[: 4 if family == AF_INET else 16]
    destination = Destination(
        DestinationKey(family, address, get("IPVS_DEST_ATTR_PORT")),
        Forward(get("IPVS_DEST_ATTR_FWD_METHOD") & _METHOD),
        get("IPVS_DEST_ATTR_WEIGHT"),
        get("IPVS_DEST_ATTR_U_THRESH"),
        get("IPVS_DEST_ATTR_L_THRESH"),
        Tunnel(
            TunnelType(get("IPVS_DEST_ATTR_TUN_TYPE") or 0),
            get("IPVS_DEST_ATTR_TUN_PORT") or 0,
            get("IPVS_DEST_ATTR_TUN_FLAGS") or 0,
        ),
    )
    statistics = get("IPVS_DEST_ATTR_STATS64") or get("IPVS_DEST_ATTR_STATS")
    return DestinationEntry(
        destination,
        get("IPVS_DEST_ATTR_ACTIVE_CONNS"),
        get("IPVS_DEST_ATTR_INACT_CONNS"),
        get("IPVS_DEST_ATTR_PERSIST_CONNS"),
        Counters(*_five(statistics, _FIVE)),
        Rates(*_five(statistics, _FIVE_RATES)),
    )


def _five(statistics: Any, names: tuple[str, ...]) -> Iterator[int]:
    return (statistics.get_attr(f"IPVS_STATS_ATTR_{name}") for name in names)


def load_module() -> None:
    """Ask for the kernel's module, as ipvsadm does; whether it came, the next attempt tells."""
    with suppress(OSError):
        subprocess.run(["modprobe", "ip_vs"], check=False, capture_output=True)
