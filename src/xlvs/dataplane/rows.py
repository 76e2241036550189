"""Rows of the rule maps read as the model's values, and the small formats they are written in."""

from __future__ import annotations

from xlvs.dataplane import layout
from xlvs.dataplane.tables import TCP_TIMEOUTS, Tables
from xlvs.model import (
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceFlag,
    ServiceKey,
    Tunnel,
    TunnelType,
)


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


def virtual_key(row: layout.DestRow) -> ServiceKey:
    """The key of the service that a destination is, or was, in."""
    return ServiceKey(
        row.virtual_family,
        row.virtual_protocol,
        layout.plain_address(row.virtual_address, row.virtual_family),
        swap16(row.virtual_port),
        row.virtual_fwmark,
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


def write_timeouts(settings: layout.Settings) -> None:
    """Turn the timeouts in seconds into the data plane's jiffies; hz must be known."""
    seconds = list(TCP_TIMEOUTS)
    # ip_vs_set_timeout: tcp is ESTABLISHED's, tcpfin is FIN_WAIT's.
    seconds[1], seconds[4] = settings.tcp_seconds[0], settings.tcp_seconds[1]
    for state, value in enumerate(seconds):
        settings.tcp_timeout[state] = value * settings.hz
    settings.udp_timeout = settings.tcp_seconds[2] * settings.hz
