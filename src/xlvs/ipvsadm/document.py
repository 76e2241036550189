"""Listings as JSON (``-L --json``): whole numbers, numeric addresses, every field every time.

Seconds, bytes and packets are plain numbers; rates are per second. What a service or
destination does not have (a mark, persistence, a tunnel) is null.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from xlvs.ipvsadm.connections import protocol_name
from xlvs.model import (
    AF_INET,
    AF_INET6,
    ClientAddress,
    ConnectionEntry,
    Counters,
    DestinationEntry,
    Forward,
    LocalEntry,
    Rates,
    Service,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    SyncDaemon,
    SynProxy,
    TableInfo,
    Timeouts,
)

_FAMILY = {AF_INET: "ipv4", AF_INET6: "ipv6"}
_FORWARD = {
    Forward.MASQ: "nat",
    Forward.LOCAL: "local",
    Forward.TUNNEL: "tun",
    Forward.ROUTE: "dr",
    Forward.BYPASS: "bypass",
    Forward.FULLNAT: "fullnat",
}
_SYNPROXY = {SynProxy.OFF: "off", SynProxy.ALWAYS: "always", SynProxy.AUTO: "auto"}
_CLIENT_ADDRESS = {
    ClientAddress.NONE: "none",
    ClientAddress.TOA: "toa",
    ClientAddress.PROXY: "proxy",
    ClientAddress.BY_METHOD: "default",
}
_SCHEDULER_FLAGS = {
    ServiceFlag.SCHED1: "flag-1",
    ServiceFlag.SCHED2: "flag-2",
    ServiceFlag.SCHED3: "flag-3",
}


def services_document(info: TableInfo, entries: Iterable[ServiceEntry]) -> Iterator[str]:
    """``{"version", "size", "services": [{..., "destinations": [...]}]}`` in pieces."""
    head = {"version": info.version, "size": info.size}
    return _document(head, "services", (_service(entry) for entry in entries))


def connections_document(entries: Iterable[ConnectionEntry]) -> Iterator[str]:
    """``{"connections": [...]}`` in pieces; ``expires`` is seconds from now."""
    return _document({}, "connections", (_connection(entry) for entry in entries))


def pools_document(pools: Iterable[tuple[ServiceKey, list[LocalEntry]]]) -> Iterator[str]:
    """``{"services": [{..., "local_addresses": [{"address", "connections", "conflicts"}]}]}`` in pieces."""
    return _document({}, "services", ({**_name(key), "local_addresses": _pool(pool)} for key, pool in pools))


def timeouts_document(timeouts: Timeouts) -> Iterator[str]:
    """``{"timeouts": {"tcp", "tcp_fin", "udp"}}``, in seconds."""
    values = {"tcp": timeouts.tcp, "tcp_fin": timeouts.tcp_fin, "udp": timeouts.udp}
    yield json.dumps({"timeouts": values}) + "\n"


def daemons_document(daemons: Iterable[SyncDaemon]) -> Iterator[str]:
    """``{"daemons": [...]}``: the synchronisation daemons that run."""
    values = [
        {
            "role": daemon.role,
            "interface": daemon.interface,
            "syncid": daemon.syncid,
            "maxlen": daemon.maxlen,
            "group": _address(AF_INET if len(daemon.group) == 4 else AF_INET6, daemon.group),
            "port": daemon.port,
            "ttl": daemon.ttl,
        }
        for daemon in daemons
    ]
    yield json.dumps({"daemons": values}) + "\n"


def _document(head: dict[str, Any], name: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    # One item a line, and never all in memory at once: a table holds millions of connections.
    opening = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in head.items())
    yield f"{{{opening}{json.dumps(name)}: ["
    separator = "\n"
    for item in items:
        yield separator + json.dumps(item)
        separator = ",\n"
    yield "\n]}\n" if separator != "\n" else "]}\n"


def _address(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address)


def _service(entry: ServiceEntry) -> dict[str, Any]:
    service = entry.service
    return {
        **_name(service.key),
        "scheduler": service.scheduler,
        "scheduler_flags": [name for flag, name in _SCHEDULER_FLAGS.items() if service.flags & flag],
        "one_packet": bool(service.flags & ServiceFlag.ONEPACKET),
        "persistence": _persistence(service),
        "synproxy": _SYNPROXY[service.synproxy or SynProxy.OFF],
        "client_address": _CLIENT_ADDRESS[service.client_address or ClientAddress.NONE],
        "local_addresses": [_plain(each) for each in entry.local_addresses],
        "counters": _five(entry.counters),
        "rates": _five(entry.rates),
        "destinations": [_destination(one) for one in entry.destinations],
    }


def _name(key: ServiceKey) -> dict[str, Any]:
    return {
        "protocol": protocol_name(key.protocol).lower() if not key.fwmark else None,
        "family": _FAMILY[key.family],
        "address": None if key.fwmark else _address(key.family, key.address),
        "port": None if key.fwmark else key.port,
        "fwmark": key.fwmark or None,
    }


def _pool(pool: list[LocalEntry]) -> list[dict[str, Any]]:
    return [
        {"address": _plain(each.address), "connections": each.connections, "conflicts": each.conflicts}
        for each in pool
    ]


def _plain(address: bytes) -> str:
    return _address(AF_INET if len(address) == 4 else AF_INET6, address)


def _persistence(service: Service) -> dict[str, Any] | None:
    if not service.flags & ServiceFlag.PERSISTENT:
        return None
    mask = service.netmask
    netmask = mask if service.key.family == AF_INET6 else _address(AF_INET, mask.to_bytes(4, "big"))
    return {"timeout": service.timeout, "netmask": netmask, "engine": service.pe_name or None}


def _destination(entry: DestinationEntry) -> dict[str, Any]:
    one = entry.destination
    tunnel = one.tunnel
    return {
        "family": _FAMILY[one.key.family],
        "address": _address(one.key.family, one.key.address),
        "port": one.key.port,
        "forward": _FORWARD[one.forward],
        "weight": one.weight,
        "upper_threshold": one.upper,
        "lower_threshold": one.lower,
        "tunnel": {"type": tunnel.type.name.lower(), "port": tunnel.port, "flags": tunnel.flags}
        if one.forward == Forward.TUNNEL
        else None,
        "active_connections": entry.active,
        "inactive_connections": entry.inactive,
        "persistent_connections": entry.persistent,
        "counters": _five(entry.counters),
        "rates": _five(entry.rates),
    }


def _five(values: Counters | Rates) -> dict[str, int]:
    return {
        "connections": values.connections,
        "in_packets": values.in_packets,
        "out_packets": values.out_packets,
        "in_bytes": values.in_bytes,
        "out_bytes": values.out_bytes,
    }


def _connection(entry: ConnectionEntry) -> dict[str, Any]:
    return {
        "protocol": protocol_name(entry.protocol).lower(),
        "state": entry.state,
        "expires": round(entry.expires, 3),
        "client": _address(entry.family, entry.client),
        "client_port": entry.client_port,
        "virtual": _address(entry.family, entry.virtual),
        "virtual_port": entry.virtual_port,
        "local": _plain(entry.local) if entry.local else None,
        "local_port": entry.local_port if entry.local else None,
        "destination": _address(entry.destination_family, entry.destination),
        "destination_port": entry.destination_port,
        "template": entry.template,
        "persistence_engine": entry.pe_name or None,
        "persistence_data": entry.pe_data or None,
        "in_packets": entry.in_packets,
    }
