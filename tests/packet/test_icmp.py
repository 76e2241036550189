"""ICMP errors about a connection's packets: whom they reach, and what they quote there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_DROP,
    XDP_PASS,
    Director,
    Hop,
    Server,
)
from tests.packet.frames import (
    CLIENT_MAC,
    DIRECTOR_MAC,
    ICMP,
    ICMP6,
    IP_IN_IP,
    TCP,
    UDP,
    Datagram,
    checksum,
    ethernet,
    ip,
    pseudo_header,
)
from xlvs.dataplane import layout
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
FAR = {4: "203.0.113.7", 6: "2001:db8::7"}  # a router on the way
PORT = 8080

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
# Type, code and the word after the checksum.
ERRORS = {
    4: [(3, code, 0) for code in range(16) if code != 4]
    + [(3, 4, 1400), (4, 0, 0), (11, 0, 0), (11, 1, 0), (12, 0, 20 << 24)],
    6: [(1, code, 0) for code in range(7)] + [(2, 0, 1280), (3, 0, 0), (3, 1, 0), (4, 0, 40), (4, 1, 6)],
}
CASES = [(family, *error) for family in (4, 6) for error in ERRORS[family]]
errors = pytest.mark.parametrize(("family", "kind", "code", "word"), CASES)


def error(source: str, target: str, kind: int, code: int, word: int, quote: bytes, **fields: Any) -> bytes:
    """An ICMP error as any router would send it."""
    ipv4 = ":" not in source
    body = bytes((kind, code, 0, 0)) + word.to_bytes(4, "big") + quote
    pseudo = b"" if ipv4 else pseudo_header(source, target, ICMP6, len(body))
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    return ip(source, target, ICMP if ipv4 else ICMP6, body, **{"fragment": 0, **fields} if ipv4 else fields)


def link(packet: bytes) -> bytes:
    return ethernet(packet, DIRECTOR_MAC, CLIENT_MAC)


def begin(
    director: Director, family: int, protocol: int = UDP, method: Forward = Forward.MASQ
) -> tuple[Datagram, Datagram]:
    """One connection: the client's packet, and the answer as the client gets it."""
    port = PORT if method == Forward.MASQ else 80
    director.service(VIP[family], protocol, [Server(RIP[family], port, method)])
    asked = Datagram(CLIENT[family], VIP[family], protocol=protocol, flags="S", fragment=0)
    director.exchange(asked.frame())
    director.counted()
    return asked, replace(
        asked, source=asked.target, target=asked.source, sport=80, dport=asked.sport, flags="SA"
    )


def quoted_as(packet: bytes, original: bytes, kept: int) -> bytes:
    """The packet with the original's transport checksum: IPVS translates all but that."""
    header = 20 if packet[0] >> 4 == 4 else 40
    at = header + kept
    return packet[:at] + original[at : at + 2] + packet[at + 2 :]


def kept(protocol: int) -> int:
    return 16 if protocol == TCP else 6


@errors
@protocols
def test_about_answers_to_the_real_server(
    director: Director, family: int, kind: int, code: int, word: int, protocol: int
) -> None:
    """From beyond the VIP, about what the client was sent."""
    _, answered = begin(director, family, protocol)
    quote = answered.packet()
    after = director.exchange(link(error(FAR[family], VIP[family], kind, code, word, quote)))[1]
    said = quoted_as(replace(answered, source=RIP[family], sport=PORT).packet(), quote, kept(protocol))
    want = error(FAR[family], RIP[family], kind, code, word, said, ttl=63)
    assert after == ethernet(want, SERVER_MAC, INSIDE_MAC)
    assert director.counted() == {"forwarded": 1}


@errors
@protocols
def test_about_requests_to_the_client(
    director: Director, family: int, kind: int, code: int, word: int, protocol: int
) -> None:
    """From the real server, about what it was sent."""
    asked, _ = begin(director, family, protocol)
    heard = replace(asked, target=RIP[family], dport=PORT, ttl=63)
    quote = heard.packet()
    after = director.exchange(link(error(RIP[family], CLIENT[family], kind, code, word, quote)))[1]
    said = quoted_as(replace(asked, ttl=63).packet(), quote, kept(protocol))
    want = error(VIP[family], CLIENT[family], kind, code, word, said, ttl=63)
    assert after == ethernet(want, ROUTER_MAC, OUTSIDE_MAC)
    assert director.counted() == {"forwarded": 1}


@families
def test_from_a_router_inside_it_comes_from_the_vip(director: Director, family: int) -> None:
    """A traceroute through NAT sees the VIP, as with IPVS."""
    asked, _ = begin(director, family)
    exceeded = {4: 11, 6: 3}[family]
    quote = replace(asked, target=RIP[family], dport=PORT, ttl=1).packet()
    after = director.exchange(link(error(FAR[family], CLIENT[family], exceeded, 0, 0, quote)))[1]
    said = quoted_as(replace(asked, ttl=1).packet(), quote, 6)
    assert after[14:] == error(VIP[family], CLIENT[family], exceeded, 0, 0, said, ttl=63)


@families
@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
def test_with_direct_routing_and_tunnels_it_goes_as_it_is(
    director: Director, family: int, method: Forward
) -> None:
    _, answered = begin(director, family, method=method)
    sent = error(FAR[family], VIP[family], 3, 1, 0, answered.packet())
    after = director.exchange(link(sent))[1]
    forwarded = error(FAR[family], VIP[family], 3, 1, 0, answered.packet(), ttl=63)
    if method == Forward.ROUTE:
        assert after == ethernet(forwarded, SERVER_MAC, INSIDE_MAC)
    else:
        outer = {4: 20, 6: 40}[family]
        assert after[14 + (9 if family == 4 else 6)] == IP_IN_IP[family]
        assert after[14 + outer :] == forwarded


@families
def test_they_are_counted_as_ipvs_counts(director: Director, family: int) -> None:
    asked, answered = begin(director, family)
    before = director.tables.counter_sums(layout.ROW_SERVICE)
    inward = error(FAR[family], VIP[family], 3, 1, 0, answered.packet())
    quote = replace(asked, target=RIP[family], dport=PORT).packet()
    outward = error(RIP[family], CLIENT[family], 3, 3, 0, quote)
    (connection,) = director.connections()
    seen = connection.in_packets
    director.exchange(link(inward))
    director.exchange(link(outward))
    after = director.tables.counter_sums(layout.ROW_SERVICE)
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown == [0, 1, 1, len(inward), len(outward)]
    assert connection.in_packets == seen


@families
@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
def test_one_that_passes_by_is_an_answer(director: Director, family: int, method: Forward) -> None:
    """About a request that DR or TUN sent on: routed by the kernel, counted."""
    asked, _ = begin(director, family, method=method)
    frame = link(error(RIP[family], CLIENT[family], 3, 3, 0, asked.packet()))
    assert director.run(frame) == (XDP_PASS, frame)
    sums = director.tables.counter_sums(layout.ROW_SERVICE)
    assert (sums[2], sums[4]) == (1, len(frame) - 14)


@families
def test_a_wrong_checksum_is_never_made_right(director: Director, family: int) -> None:
    _, answered = begin(director, family)
    frame = bytearray(link(error(FAR[family], VIP[family], 3, 1, 0, answered.packet())))
    frame[-1] ^= 1
    assert director.run(bytes(frame))[0] == XDP_DROP
    assert director.counted() == {"drop_icmp_checksum": 1}


@families
def test_about_other_connections_they_are_the_kernels(director: Director, family: int) -> None:
    _, answered = begin(director, family)
    frame = link(error(FAR[family], VIP[family], 3, 1, 0, replace(answered, dport=40001).packet()))
    assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {"not_ours": 1}


@families
def test_cut_off_anywhere(director: Director, family: int) -> None:
    """Both ports in the quotation are enough; RFC 792 asks for 8 bytes of transport header."""
    _, answered = begin(director, family)
    header = {4: 20, 6: 40}[family]
    quote = answered.packet()
    for length in range(header + 12):
        frame = link(error(FAR[family], VIP[family], 3, 1, 0, quote[:length]))
        verdict, after = director.run(frame)
        if length < header + 4:
            assert (verdict, after) == (XDP_PASS, frame), length
        else:
            said = quoted_as(replace(answered, source=RIP[family], sport=PORT).packet(), quote, 6)[:length]
            assert after[14:] == error(FAR[family], RIP[family], 3, 1, 0, said, ttl=63), length


def test_ipv4_options_inside_and_outside(director: Director) -> None:
    _, answered = begin(director, 4)
    answered = replace(answered, options=b"\x01" * 12)
    quote = answered.packet()
    after = director.exchange(link(error(FAR[4], VIP[4], 3, 1, 0, quote, options=b"\x01" * 8)))[1]
    said = replace(answered, source=RIP[4], sport=PORT).packet()
    said = said[:38] + quote[38:40] + said[40:]
    assert after[14:] == error(FAR[4], RIP[4], 3, 1, 0, said, ttl=63, options=b"\x01" * 8)


def test_a_router_that_left_the_quoted_checksum_behind(director: Director) -> None:
    """Some quote the packet with its TTL gone down and its old checksum: IPVS writes a right one."""
    _, answered = begin(director, 4)
    quote = bytearray(answered.packet())
    quote[8] = 1
    after = director.exchange(link(error(FAR[4], VIP[4], 11, 0, 0, bytes(quote))))[1]
    said = quoted_as(replace(answered, source=RIP[4], sport=PORT, ttl=1).packet(), bytes(quote), 6)
    assert after[14:] == error(FAR[4], RIP[4], 11, 0, 0, said, ttl=63)


def test_quoted_extension_headers(director: Director) -> None:
    """Too big, about a fragment of an answer: the first one says the ports."""
    _, answered = begin(director, 6)
    whole = answered.packet()
    quote = whole[:6] + bytes((44,)) + whole[7:40] + bytes((UDP, 0, 0, 1)) + bytes(4) + whole[40:]
    after = director.exchange(link(error(FAR[6], VIP[6], 2, 0, 1280, quote)))[1]
    plain = quoted_as(replace(answered, source=RIP[6], sport=PORT).packet(), whole, 6)
    said = plain[:6] + bytes((44,)) + plain[7:40] + bytes((UDP, 0, 0, 1)) + bytes(4) + plain[40:]
    assert after[14:] == error(FAR[6], RIP[6], 2, 0, 1280, said, ttl=63)


@families
def test_later_fragments_quoted_belong_to_nobody(director: Director, family: int) -> None:
    _, answered = begin(director, family)
    whole = answered.packet()
    if family == 4:
        quote = whole[:6] + b"\0\1" + whole[8:]
    else:
        quote = whole[:6] + bytes((44,)) + whole[7:40] + bytes((UDP, 0, 0, 8)) + bytes(4) + whole[40:]
    frame = link(error(FAR[family], VIP[family], 3, 1, 0, quote))
    assert director.run(frame) == (XDP_PASS, frame)


@families
def test_the_last_hop_of_an_error_is_silent(director: Director, family: int) -> None:
    _, answered = begin(director, family)
    frame = link(error(FAR[family], VIP[family], 3, 1, 0, answered.packet(), ttl=1))
    assert director.run(frame)[0] == XDP_DROP
    assert director.counted() == {"drop_ttl": 1}


@families
def test_an_error_too_big_is_silent(director: Director, family: int) -> None:
    _, answered = begin(director, family)
    director.inside.mtu = 60
    frame = link(error(FAR[family], VIP[family], 3, 1, 0, answered.packet()))
    assert director.run(frame)[0] == XDP_DROP
    assert director.counted() == {"drop_too_big": 1}


@families
@pytest.mark.parametrize("method", [Forward.MASQ, Forward.ROUTE])
def test_a_real_server_on_the_director(director: Director, family: int, method: Forward) -> None:
    director.host.local.add(ip_address(RIP[family]).packed)
    port = PORT if method == Forward.MASQ else 80
    director.service(VIP[family], UDP, [Server(RIP[family], port, method)])
    asked = Datagram(CLIENT[family], VIP[family])
    assert director.run(asked.frame())[0] == XDP_PASS
    answered = replace(asked, source=asked.target, target=asked.source, sport=80, dport=asked.sport)
    quote = answered.packet()
    verdict, after = director.run(link(error(FAR[family], VIP[family], 3, 1, 0, quote)))
    assert verdict == XDP_PASS
    if method == Forward.ROUTE:
        assert after[14:] == error(FAR[family], VIP[family], 3, 1, 0, quote)
    else:
        said = quoted_as(replace(answered, source=RIP[family], sport=PORT).packet(), quote, 6)
        assert after[14:] == error(FAR[family], RIP[family], 3, 1, 0, said)
    assert director.counted() == {"local": 2}


@families
def test_an_unresolved_neighbour_is_found_by_the_companion(director: Director, family: int) -> None:
    """XDP translates it, and says in front of it where it is to go."""
    _, answered = begin(director, family)
    director.inside = Hop(901, bytes(6), bytes(6), 0, flags=1)  # XLVS_HOP_COMPANION_NEIGHBOUR
    quote = answered.packet()
    for _ in range(1000):  # such an answer is believed within its jiffy only (hop_cached)
        verdict, after = director.run(link(error(FAR[family], VIP[family], 3, 1, 0, quote)))
        if director.counted() == {"handed_neighbour": 1}:
            break
    assert verdict == XDP_PASS
    said = quoted_as(replace(answered, source=RIP[family], sport=PORT).packet(), quote, 6)
    want = error(FAR[family], RIP[family], 3, 1, 0, said, ttl=63)
    assert after.endswith(ethernet(want, DIRECTOR_MAC, CLIENT_MAC))
