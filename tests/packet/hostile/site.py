"""A director with every kind of service, and flows through them that are established."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.packet.cookies import Offer
from tests.packet.director import INSIDE_MAC, SERVER_MAC, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from tests.packet.fullnat import local_of, pool
from tests.packet.handshake import KEY, ack_of, opened, server_says
from tests.packet.sctp import Association, chunk
from xlvs.dataplane import layout
from xlvs.dataplane.rows import read_service
from xlvs.model import (
    ClientAddress,
    Defence,
    Forward,
    Prefix,
    Service,
    ServiceFlag,
    ServiceKey,
    SynProxy,
    Tunnel,
    TunnelType,
)

SCTP = 132
VIP = {4: "10.80.0.1", 6: "fd80::1"}
PERSISTENT_VIP = {4: "10.80.0.2", 6: "fd80::2"}
CLIENTS = {4: "198.18.0.{}", 6: "fd18::{}"}
# Nobody else speaks from there: what these flows can after the attack, they could before it.
BYSTANDERS = {4: "198.19.200.{}", 6: "fd77:1357:2468::{}"}
SERVERS = {4: "10.19.0.{}", 6: "fd19::{}"}
LOCALS = {4: ("10.19.0.200", "10.19.0.201"), 6: ("fd19::200", "fd19::201")}


# Of the services' addresses; and of those who attack, one whom a service with its defence up denies.
VIRTUAL = {ip_address(text) for vips in (VIP, PERSISTENT_VIP) for text in vips.values()}
DENIED = {ip_address(text.format(4)) for text in CLIENTS.values()}


@dataclass(frozen=True)
class Kind:
    """A service: what it is, and how it is forwarded."""

    protocol: int
    port: int
    method: Forward = Forward.MASQ
    server_port: int = 0
    tunnel: Tunnel = field(default_factory=Tunnel)
    scheduler: str = "rr"
    flags: ServiceFlag = ServiceFlag(0)
    engine: str = ""
    anywhere: bool = False  # a service of every port; this one is an example
    tells: ClientAddress = ClientAddress.NONE
    guarded: bool = False  # by SYNPROXY


KINDS = (
    Kind(TCP, 80, server_port=8080, scheduler="wlc"),
    Kind(TCP, 21, scheduler="lc"),
    Kind(TCP, 443, Forward.TUNNEL),
    Kind(TCP, 8443, Forward.TUNNEL, tunnel=Tunnel(TunnelType.GUE, 6080, 1), scheduler="sh"),
    Kind(TCP, 25, Forward.ROUTE, scheduler="mh"),
    Kind(UDP, 53, Forward.ROUTE, scheduler="wrr"),
    Kind(UDP, 69, server_port=6969, scheduler="dh"),
    Kind(UDP, 4789, Forward.TUNNEL, tunnel=Tunnel(TunnelType.GRE, flags=1)),
    Kind(UDP, 500, scheduler="sed"),  # IKE: AH and ESP follow it
    Kind(UDP, 123, flags=ServiceFlag.ONEPACKET),
    Kind(UDP, 5060, flags=ServiceFlag.PERSISTENT | ServiceFlag.ONEPACKET, engine="sip"),
    Kind(SCTP, 9, server_port=99),
    Kind(SCTP, 10, Forward.ROUTE, scheduler="lblc"),
    Kind(TCP, 8081, Forward.FULLNAT, server_port=80, scheduler="wlc"),
    Kind(UDP, 54, Forward.FULLNAT, server_port=53),
    Kind(SCTP, 11, Forward.FULLNAT, server_port=99),
    Kind(TCP, 8082, server_port=8182, tells=ClientAddress.TOA),
    Kind(TCP, 8083, Forward.FULLNAT, server_port=8183, tells=ClientAddress.TOA),
    Kind(TCP, 8084, server_port=8184, tells=ClientAddress.PROXY),
    Kind(TCP, 8085, Forward.FULLNAT, server_port=8185, tells=ClientAddress.PROXY),
    Kind(UDP, 55, Forward.FULLNAT, server_port=53, tells=ClientAddress.TOA),
    Kind(TCP, 8086, server_port=8186, guarded=True),
    Kind(TCP, 8087, Forward.FULLNAT, server_port=8187, tells=ClientAddress.TOA, guarded=True),
    Kind(TCP, 8088, server_port=8188, tells=ClientAddress.PROXY, guarded=True),
    Kind(TCP, 7777, Forward.ROUTE, flags=ServiceFlag.PERSISTENT, anywhere=True),
)


def version(address: str) -> int:
    return ip_address(address).version


def define(director: Director, family: int, kind: Kind) -> None:
    vip = PERSISTENT_VIP[family] if kind.anywhere else VIP[family]
    port = 0 if kind.anywhere else kind.port
    key = ServiceKey(2 if family == 4 else 10, kind.protocol, ip_address(vip).packed, port)
    service = Service(
        key,
        kind.scheduler,
        kind.flags,
        300 if kind.flags else 0,
        0xFFFFFFFF if family == 4 else 128,
        kind.engine,
        client_address=kind.tells,
        synproxy=SynProxy.ALWAYS if kind.guarded else SynProxy.OFF,
    )
    port = 0 if kind.anywhere else kind.server_port or kind.port
    servers = [
        Server(SERVERS[family].format(11 + n), port, kind.method, tunnel=kind.tunnel)
        for n in range(1 if kind.guarded else 3)  # one, whose answers are thus expected from it
    ]
    director.define(service, servers)
    if kind.method == Forward.FULLNAT:
        pool(director, key, *LOCALS[family])


def defend(director: Director, limit: int, source_limit: int) -> None:
    """Limits and a list for every service, for every other one also about what is known."""
    change = director.transaction()
    used = director.tables.settings.services_high
    for number in range(used):
        key = read_service(director.tables.service_row(number)).key
        size = len(key.address)
        denied: dict[Prefix, bool] = {}
        for each in DENIED:
            if len(each.packed) == size:
                denied[each.packed, 8 * size] = False
        change.set_defence(key, Defence(limit, source_limit, number % 2 == 0, denied))
    director.tables.apply(change.changes())


def special() -> dict[object, tuple[ClientAddress, bool]]:
    """What services tell real servers, and whether cookies guard them, by protocol, VIP and port."""
    return {
        (kind.protocol, ip_address(VIP[family]), kind.port): (kind.tells, kind.guarded)
        for family in (4, 6)
        for kind in KINDS
        if kind.tells or kind.guarded
    }


def served_once() -> dict[object, list[tuple[IPv4Address | IPv6Address, int]]]:
    """The servers of the services that connect single packets, by protocol, VIP and port."""
    return {
        (kind.protocol, ip_address(VIP[family]), kind.port): [
            (ip_address(SERVERS[family].format(11 + number)), kind.server_port or kind.port)
            for number in range(3)
        ]
        for family in (4, 6)
        for kind in KINDS
        if kind.flags & ServiceFlag.ONEPACKET
    }


Message = Datagram | Association


@dataclass
class Flow:
    """A client's conversation, as it was led."""

    kind: Kind
    family: int
    request: Message
    """A client's packet of it, to be varied."""
    reply: Message | None = None
    """A server's, as it reaches the director; None where answers go past it."""


def sip(number: int) -> bytes:
    return f"INVITE sip:a@b SIP/2.0\r\nCall-ID: {number}@example.org\r\n\r\n".encode()


def first(kind: Kind, family: int, number: int, bystander: bool) -> Message:
    client = (BYSTANDERS if bystander else CLIENTS)[family].format(number + 1)
    vip = (PERSISTENT_VIP if kind.anywhere else VIP)[family]
    # Far from the attackers' ports: what damages a packet of theirs does not make it a bystander's.
    sport = 500 if kind.port == 500 else 40000 + number + bystander * 21000
    if kind.protocol == SCTP:
        return Association(client, vip, sport, kind.port, chunk("INIT", bytes(16)))
    text = sip(number) if kind.engine else b"payload" * (number % 3 if kind.protocol == UDP else 0)
    return Datagram(client, vip, sport, kind.port, kind.protocol, "S", text)


def lead_guarded(director: Director, kind: Kind, family: int, number: int, bystander: bool) -> Flow:
    """Have a flow's cookie acknowledged; only a bystander's server has answered."""
    offer = Offer(1460, 7, sack=True).options()
    begin = first(kind, family, number, bystander)
    assert isinstance(begin, Datagram)
    begin = replace(begin, payload=b"", tcp_options=offer)
    answer, asked = opened(director, begin)
    reply = server_says(asked, tcp_options=offer)
    if bystander:
        director.run(reply.frame())
        following = reply.sequence + 1
        reply = replace(reply, flags="PA", tcp_options=b"", sequence=following, payload=b"answer")
    return Flow(kind, family, ack_of(begin, answer, flags="PA", payload=b"data"), reply)


def lead(director: Director, kind: Kind, family: int, number: int, bystander: bool) -> Flow:
    """Establish a flow."""
    if kind.guarded:
        return lead_guarded(director, kind, family, number, bystander)
    begin = first(kind, family, number, bystander)
    director.exchange(begin.frame())
    flow = Flow(kind, family, begin)
    translated = kind.method in (Forward.MASQ, Forward.FULLNAT)
    if translated and not kind.flags & ServiceFlag.ONEPACKET:
        row = next(row for row in director.connections() if _is_for(row, begin))
        server = str(ip_address(layout.plain_address(row.daddr, row.family)))
        port = row.dport >> 8 | (row.dport & 255) << 8
        away = local_of(row) if kind.method == Forward.FULLNAT else (begin.source, begin.sport)
        reply = replace(
            begin,
            source=server,
            target=away[0],
            sport=port,
            dport=away[1],
            source_mac=SERVER_MAC,
            target_mac=INSIDE_MAC,
        )
        if isinstance(reply, Datagram):
            heard = 1000 + row.seq_in + 1 & 0xFFFFFFFF
            reply = replace(reply, flags="SA", payload=b"", acknowledged=heard)
            director.exchange(reply.frame())
            flow.reply = replace(reply, flags="PA", payload=b"answer")
        elif isinstance(reply, Association):
            flow.reply = replace(reply, chunks=chunk("INIT_ACK", bytes(16)))
            director.exchange(flow.reply.frame())
    if isinstance(begin, Datagram):
        flow.request = replace(begin, flags="A", payload=b"", sequence=begin.sequence + 1)
        if kind.protocol == TCP:
            director.exchange(flow.request.frame())
            flow.request = replace(
                flow.request, flags="PA", payload=b"PASV\r\n" if kind.port == 21 else b"data"
            )
    return flow


def _is_for(row: layout.ConnRow, message: Message) -> bool:
    family = row.family
    return (
        not row.flags & layout.CONN_TEMPLATE
        and layout.plain_address(row.caddr, family) == ip_address(message.source).packed
        and layout.plain_address(row.vaddr, family) == ip_address(message.target).packed
        and (row.cport, row.vport) == tuple(p >> 8 | (p & 255) << 8 for p in (message.sport, message.dport))
        and row.protocol == (message.protocol if isinstance(message, Datagram) else SCTP)
    )


def build(director: Director, flows: int = 4) -> tuple[list[Flow], list[Flow]]:
    """All services; flows of the attacked, and of bystanders."""
    for family in (4, 6):
        for kind in KINDS:
            define(director, family, kind)
    director.tables.settings.icmp_limit = 0xFFFFFFFF
    director.tables.settings.cookie_key[:] = KEY
    return tuple(  # type: ignore[return-value]
        list(_flows(director, flows if not bystander else 2, bystander)) for bystander in (False, True)
    )


def _flows(director: Director, count: int, bystander: bool) -> Iterator[Flow]:
    for family in (4, 6):
        for kind in KINDS:
            for number in range(count):
                yield lead(director, kind, family, number, bystander)
