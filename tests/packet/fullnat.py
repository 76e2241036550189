"""A FULLNAT service, and what its packets must look like on the other side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    Director,
    Server,
)
from tests.packet.frames import TCP, Datagram
from xlvs.dataplane import layout
from xlvs.dataplane.rows import swap16
from xlvs.model import ClientAddress, Forward, Service, ServiceKey

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
SECOND = {4: "10.19.0.12", 6: "fd19::12"}  # another real server
LIP = {4: "10.19.0.200", 6: "fd19::200"}
PORT = 8080  # of the real servers
WHOLE = {4: 0xFFFFFFFF, 6: 128}  # netmasks
_MASK = 0xFFFFFFFF


def version(address: str) -> int:
    return ip_address(address).version


def pool(director: Director, key: ServiceKey, *addresses: str) -> None:
    """More local addresses for a service."""
    change = director.transaction()
    change.add_local_addresses(key, [ip_address(each).packed for each in addresses])
    director.tables.apply(change.changes())


def without(director: Director, key: ServiceKey, *addresses: str) -> None:
    """Fewer of them."""
    change = director.transaction()
    change.delete_local_addresses(key, [ip_address(each).packed for each in addresses])
    director.tables.apply(change.changes())


def serve(
    director: Director,
    family: int,
    protocol: int,
    servers: Sequence[str] = (),
    locals: Sequence[str] = (),
    scheduler: str = "rr",
) -> ServiceKey:
    """A service with one real server and one local address, unless others are named.

    Real servers are told nothing of the client: that is another test's.
    """
    rows = [Server(each, PORT, Forward.FULLNAT) for each in servers or (RIP[family],)]
    key = key_of(family, protocol)
    define(director, Service(key, scheduler=scheduler, netmask=WHOLE[family]), rows)
    pool(director, key, *(locals or (LIP[family],)))
    return key


def key_of(family: int, protocol: int, vip: str = "") -> ServiceKey:
    """The service of port 80."""
    return ServiceKey(2 if family == 4 else 10, protocol, ip_address(vip or VIP[family]).packed, 80)


def define(director: Director, service: Service, servers: Sequence[Server]) -> None:
    """A service whose servers are told nothing of the client."""
    director.define(replace(service, client_address=ClientAddress.NONE), servers)


def local_of(conn: layout.ConnRow) -> tuple[str, int]:
    """The local address and port of a connection."""
    packed = layout.plain_address(conn.laddr, conn.server_family)
    return str(ip_address(packed)), swap16(conn.lport)


def inward(asked: Datagram, conn: layout.ConnRow) -> Datagram:
    """What the real server must get of a client's packet."""
    address, port = local_of(conn)
    return replace(
        asked,
        source=address,
        sport=port,
        target=str(ip_address(layout.plain_address(conn.daddr, conn.server_family))),
        dport=swap16(conn.dport),
        sequence=asked.sequence + conn.seq_in & _MASK,
        ttl=asked.ttl - 1,
        sum="whole",
        tags=(),
        target_mac=SERVER_MAC,
        source_mac=INSIDE_MAC,
    )


def answer(heard: Datagram, **fields: object) -> Datagram:
    """What the real server says to what it got."""
    turned = replace(
        heard,
        source=heard.target,
        target=heard.source,
        sport=heard.dport,
        dport=heard.sport,
        source_mac=heard.target_mac,
        target_mac=heard.source_mac,
        flags="SA",
        ttl=64,
        sequence=0xFFFFFFF0,
        acknowledged=heard.sequence + len(heard.payload) + ("S" in heard.flags) & _MASK,
    )
    return replace(turned, **fields)  # type: ignore[arg-type]


def outward(said: Datagram, asked: Datagram, conn: layout.ConnRow) -> Datagram:
    """What the client must get of it."""
    acknowledged = said.acknowledged
    if said.protocol == TCP and "A" in said.flags:
        acknowledged = acknowledged - conn.seq_in & _MASK
    return replace(
        said,
        source=asked.target,
        sport=asked.dport,
        target=asked.source,
        dport=asked.sport,
        acknowledged=acknowledged,
        ttl=said.ttl - 1,
        sum="whole",
        tags=(),
        target_mac=ROUTER_MAC,
        source_mac=OUTSIDE_MAC,
    )
