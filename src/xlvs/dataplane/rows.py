"""Rows of the rule maps read as the model's values, and the small formats they are written in."""

from __future__ import annotations

import ctypes
from ctypes import c_uint8

from xlvs.dataplane import layout
from xlvs.dataplane.tables import SCTP_TIMEOUTS, TCP_TIMEOUTS, Tables
from xlvs.model import (
    AF_INET,
    AF_INET6,
    ClientAddress,
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceFlag,
    ServiceKey,
    SyncDaemon,
    SynProxy,
    Tunnel,
    TunnelType,
)


def service_wire_key(key: ServiceKey) -> bytes:
    """struct xlvs_service_key of a service."""
    if key.fwmark:
        return key.fwmark.to_bytes(4, "little").ljust(18, b"\0") + bytes((0, key.family))
    return key.address.ljust(16, b"\0") + key.port.to_bytes(2, "big") + bytes((key.protocol, key.family))


def swap16(port: int) -> int:
    """A port between the host's and the wire's order, as a structure's integer field."""
    return port >> 8 | (port & 0xFF) << 8


def read_service(row: layout.ServiceRow) -> Service:
    """The service in a row."""
    return Service(
        key=_key(row.family, row.protocol, row.address, row.port, row.fwmark),
        scheduler=layout.SCHEDULERS[row.scheduler],
        flags=ServiceFlag(row.flags & layout.SERVICE_IPVS),
        timeout=row.timeout,
        netmask=row.netmask,
        pe_name=layout.ENGINES[row.engine],
        synproxy=SynProxy(row.synproxy),
        client_address=ClientAddress(row.client_address)
        if row.flags & layout.SERVICE_TELLS
        else ClientAddress.BY_METHOD,
    )


def _key(family: int, protocol: int, address: ctypes.Array[c_uint8], port: int, fwmark: int) -> ServiceKey:
    """A service's key, from fields of a row; a mark stands alone."""
    if fwmark:
        return ServiceKey(family, 0, b"", 0, fwmark)
    return ServiceKey(family, protocol, layout.plain_address(address, family), swap16(port))


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


# Roles of synchronisation daemons in the order of settings.daemons.
DAEMON_ROLES = ("master", "backup")


def read_daemons(settings: layout.Settings) -> list[SyncDaemon]:
    """The synchronisation daemons that run, the master first."""
    return [
        SyncDaemon(
            role,
            bytes(row.interface).rstrip(b"\0").decode(errors="surrogateescape"),
            row.syncid,
            row.maxlen,
            layout.plain_address(row.group, row.family),
            row.port,
            row.ttl,
        )
        for role, row in zip(DAEMON_ROLES, settings.daemons, strict=True)
        if row.family
    ]


def write_daemon(daemon: SyncDaemon) -> layout.SyncDaemonRow:
    """The row of a synchronisation daemon that runs."""
    row = layout.SyncDaemonRow(
        family=AF_INET if len(daemon.group) == 4 else AF_INET6,
        maxlen=daemon.maxlen,
        port=daemon.port,
        syncid=daemon.syncid,
        ttl=daemon.ttl,
    )
    name = daemon.interface.encode(errors="surrogateescape")[: len(row.interface)]
    row.interface[: len(name)] = name
    row.group = layout.wire_address(daemon.group)
    return row


def virtual_key(row: layout.DestRow) -> ServiceKey:
    """The key of the service that a destination is, or was, in."""
    return _key(
        row.virtual_family, row.virtual_protocol, row.virtual_address, row.virtual_port, row.virtual_fwmark
    )


def member_dests(tables: Tables, row: layout.ServiceRow) -> list[int]:
    """Rows of a service's destinations in list order."""
    first, count = row.members & 0xFFFFFFFF, row.members >> 32
    return [member.dest for member in tables.member_rows(first, count)] if count else []


def local_rows(tables: Tables, row: layout.ServiceRow) -> list[tuple[bytes, int]]:
    """FULLNAT's addresses of a service, IPv4's first, each with its conflicts so far."""
    found = []
    for word, size in zip(row.locals, (4, 16), strict=True):
        for each in tables.local_rows(word & 0xFFFFFFFF, word >> 32) if word else ():
            found.append((bytes(each.address)[:size], int(each.conflicts)))
    return found


def write_timeouts(settings: layout.Settings) -> None:
    """Turn the timeouts in seconds into the data plane's jiffies; hz must be known."""
    seconds = list(TCP_TIMEOUTS)
    # ip_vs_set_timeout: tcp is ESTABLISHED's, tcpfin is FIN_WAIT's.
    seconds[1], seconds[4] = settings.tcp_seconds[0], settings.tcp_seconds[1]
    for state, value in enumerate(seconds):
        settings.tcp_timeout[state] = value * settings.hz
    settings.udp_timeout = settings.tcp_seconds[2] * settings.hz
    for state, value in enumerate(SCTP_TIMEOUTS):
        settings.sctp_timeout[state] = value * settings.hz
