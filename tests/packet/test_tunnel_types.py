"""GRE and GUE: what leaves towards the real server, byte for byte, and how much fits."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest

from tests.packet.director import (
    INSIDE_MAC,
    SERVER_MAC,
    XDP_REDIRECT,
    XDP_TX,
    Director,
    Server,
)
from tests.packet.frames import (
    CLIENT_MAC,
    DIRECTOR_MAC,
    TCP,
    UDP,
    Datagram,
    checksum,
    ethernet,
    icmp_error,
    ip,
    pseudo_header,
)
from xlvs.model import Forward, Tunnel, TunnelType

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
DIPS = {4: "10.19.0.1", 6: "fd19::1"}
PORT = 6080
GRE = 47
pairs = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])


@dataclass(frozen=True)
class Kind:
    """A type of tunnel as an operator chooses it, and what it adds to an outer header of ``family``."""

    tunnel: Tunnel
    size: int

    def around(self, inner: bytes, outside: int, source_port: int, remote: tuple[int, int] | None) -> bytes:
        """What follows the outer IP header."""
        version = inner[0] >> 4
        check = self.tunnel.flags != 0
        if self.tunnel.type == TunnelType.GRE:
            protocol = {4: 0x0800, 6: 0x86DD}[version]
            if not check:
                return struct.pack("!HH", 0, protocol) + inner
            whole = struct.pack("!HHI", 0x8000, protocol, 0) + inner
            return whole[:4] + struct.pack("!H", checksum(whole)) + whole[6:]
        options = b""
        if remote:
            options = struct.pack("!IHH", 0x80000000, *remote)
        head = struct.pack("!BBH", len(options) // 4, {4: 4, 6: 41}[version], 1 if options else 0)
        body = head + options + inner
        length = 8 + len(body)
        udp = struct.pack("!HHHH", source_port, PORT, length, 0)
        if check:
            pseudo = pseudo_header(DIPS[outside], RIP[outside], UDP, length)
            udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + body) or 0xFFFF)
        return udp + body


KINDS = {
    "gre": Kind(Tunnel(TunnelType.GRE), 4),
    "gre csum": Kind(Tunnel(TunnelType.GRE, flags=1), 8),
    "gue": Kind(Tunnel(TunnelType.GUE, PORT), 12),
    "gue csum": Kind(Tunnel(TunnelType.GUE, PORT, 1), 12),
    "gue remcsum": Kind(Tunnel(TunnelType.GUE, PORT, 2), 12),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

FIELDS: dict[str, dict[str, object]] = {
    "plain": {},
    "tcp": {"protocol": TCP},
    "tos ce": {"tos": 0x2B},
    "least ttl": {"ttl": 2},
    "odd payload": {"payload": b"odd"},
    "long": {"payload": bytes(range(256)) * 5},
    "two tags": {"tags": (5, 6)},
    "partial sum": {"sum": "partial", "payload": bytes(range(200))},
    "partial tcp sum": {"sum": "partial", "protocol": TCP},
}


def serve(director: Director, kind: Kind, outside: int, inside: int, protocol: int) -> None:
    server = Server(RIP[outside], method=Forward.TUNNEL, tunnel=kind.tunnel)
    director.service(VIP[inside], protocol, [server])


def asked_for(inside: int, fields: dict[str, object]) -> Datagram:
    return replace(Datagram(CLIENT[inside], VIP[inside]), **fields)  # type: ignore[arg-type]


def wrapped(kind: Kind, asked: Datagram, outside: int, source_port: int) -> bytes:
    """The frame that must leave, its IPv4 identification left out of the comparison by the caller."""
    inside = 6 if ":" in asked.source else 4
    remote = None
    left = "whole" if asked.sum == "partial" else asked.sum
    if asked.sum == "partial" and kind.tunnel.flags == 2:
        start = 20 if inside == 4 else 40
        remote = (start, start + (16 if asked.protocol == TCP else 6))
        left = "partial"
    inner = replace(asked, ttl=asked.ttl - 1, sum=left).packet()
    body = kind.around(inner, outside, source_port, remote)
    tos = asked.tos if asked.tos & 3 != 3 else asked.tos & ~3 | 2
    protocol = GRE if kind.tunnel.type == TunnelType.GRE else UDP
    fragment = 0x4000 if inside == 4 and asked.fragment & 0x4000 else 0
    packet = ip(DIPS[outside], RIP[outside], protocol, body, ttl=asked.ttl - 1, tos=tos, fragment=fragment)
    return ethernet(packet, SERVER_MAC, INSIDE_MAC)


def source_port_of(frame: bytes, kind: Kind, outside: int) -> int:
    if kind.tunnel.type == TunnelType.GRE:
        return 0
    at = 14 + (20 if outside == 4 else 40)
    return int.from_bytes(frame[at : at + 2], "big")


def comparable(frame: bytes) -> bytes:
    """Less IPv4's identification and the checksum over it, which must be right."""
    if frame[14] >> 4 != 4:
        return frame
    assert checksum(frame[14:34]) == 0
    return frame[:18] + frame[20:24] + frame[26:]


@kinds
@pairs
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_every_pair(
    director: Director, kind: Kind, outside: int, inside: int, fields: dict[str, object]
) -> None:
    asked = asked_for(inside, fields)
    serve(director, kind, outside, inside, asked.protocol)
    verdict, after = director.run(asked.frame())
    assert verdict == XDP_REDIRECT
    wanted = wrapped(kind, asked, outside, source_port_of(after, kind, outside))
    assert comparable(after) == comparable(wanted)
    assert director.counted() == {"forwarded": 1}


def test_a_flow_keeps_its_source_port_and_others_have_others(director: Director) -> None:
    kind = KINDS["gue"]
    serve(director, kind, 4, 4, UDP)
    ports: list[int] = []
    for sport in range(200):
        asked = asked_for(4, {"sport": 1000 + sport})
        seen = {source_port_of(director.exchange(asked.frame())[1], kind, 4) for _ in range(3)}
        assert len(seen) == 1
        ports += seen
    assert len(set(ports)) > 190
    assert all(32768 <= port <= 60999 for port in ports)


@pytest.mark.parametrize("flag", [1, 2])
def test_a_checksum_of_zero_goes_as_ones(director: Director, flag: int) -> None:
    """RFC 768: 0 means none."""
    kind = Kind(Tunnel(TunnelType.GUE, PORT, flag), 12)
    serve(director, kind, 4, 4, UDP)
    # Without a checksum inside, the payload that takes the outer sum to ones can be had from that sum.
    asked = asked_for(4, {"payload": bytes(2), "sum": "none"})
    _, after = director.exchange(asked.frame())
    check = int.from_bytes(after[40:42], "big")
    asked = replace(asked, payload=struct.pack("!H", check))
    _, after = director.exchange(asked.frame())
    assert after[40:42] == b"\xff\xff"


@kinds
@pairs
def test_what_fits_and_what_does_not(director: Director, kind: Kind, outside: int, inside: int) -> None:
    serve(director, kind, outside, inside, UDP)
    room = 1500 - (20 if outside == 4 else 40) - kind.size
    payload = room - (20 if inside == 4 else 40) - 8
    verdict, after = director.run(asked_for(inside, {"payload": bytes(payload)}).frame())
    assert verdict == XDP_REDIRECT
    assert len(after) == 1514
    verdict, after = director.run(asked_for(inside, {"payload": bytes(payload + 1)}).frame())
    assert verdict in (XDP_TX, XDP_REDIRECT)
    said = int.from_bytes(after[40:42] if inside == 4 else after[58:62], "big")
    assert said == room
    assert director.counted() == {"forwarded": 1, "drop_too_big": 1}


@pytest.mark.parametrize("inside", [4, 6])
def test_the_option_of_remote_checksums_takes_its_room(director: Director, inside: int) -> None:
    kind = KINDS["gue remcsum"]
    serve(director, kind, 4, inside, UDP)
    payload = 1500 - 20 - 20 - (20 if inside == 4 else 40) - 8
    for more, outcome in ((0, "forwarded"), (1, "drop_too_big")):
        asked = asked_for(inside, {"payload": bytes(payload + more), "sum": "partial"})
        director.run(asked.frame())
        assert director.counted() == {outcome: 1}


def test_a_destination_that_changes_its_tunnel_takes_its_connections_along(director: Director) -> None:
    key = director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.TUNNEL)])
    asked = asked_for(4, {})
    protocols = []
    for tunnel in (Tunnel(), KINDS["gre"].tunnel, KINDS["gue"].tunnel, Tunnel()):
        director.edit(key, Server(RIP[4], method=Forward.TUNNEL, tunnel=tunnel))
        _, after = director.exchange(asked.frame())
        protocols.append(after[23])
    assert protocols == [4, GRE, UDP, 4]
    assert len(director.connections()) == 1


@pytest.mark.parametrize("kind", ["gre csum", "gue csum"])
def test_fragments_and_errors_go_by_the_tunnel_too(director: Director, kind: str) -> None:
    chosen = KINDS[kind]
    serve(director, chosen, 4, 4, UDP)
    asked = asked_for(4, {"payload": bytes(range(200)), "identity": 7, "fragment": 0})
    _, whole = director.exchange(asked.frame())
    port = source_port_of(whole, chosen, 4)
    segment = asked.segment()
    pieces = [
        ip(CLIENT[4], VIP[4], UDP, segment[:96], identity=7, fragment=0x2000),
        ip(CLIENT[4], VIP[4], UDP, segment[96:], identity=7, fragment=96 // 8),
        icmp_error("203.0.113.9", VIP[4], 3, 1, 0, ip(VIP[4], CLIENT[4], UDP, answer_to(asked))[:48]),
    ]
    for piece in pieces:
        _, after = director.exchange(ethernet(piece, DIRECTOR_MAC, CLIENT_MAC))
        inner = routed(piece)
        tos = piece[1]
        body = chosen.around(inner, 4, port, None)
        protocol = GRE if chosen.tunnel.type == TunnelType.GRE else UDP
        outer = ip(DIPS[4], RIP[4], protocol, body, ttl=63, tos=tos, fragment=0)
        assert comparable(after) == comparable(ethernet(outer, SERVER_MAC, INSIDE_MAC))


def answer_to(asked: Datagram) -> bytes:
    turned = replace(asked, source=asked.target, target=asked.source, sport=asked.dport, dport=asked.sport)
    return turned.segment()


def routed(packet: bytes) -> bytes:
    """One hop on: the TTL one less, and the header checksum made again."""
    head = packet[:8] + bytes([packet[8] - 1]) + packet[9:10] + b"\0\0" + packet[12:20]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + packet[20:]
