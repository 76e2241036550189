"""FULLNAT from one family to the other: RFC 7915's headers, byte for byte, and the errors about them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, Director, Server
from tests.packet.frames import (
    CLIENT_MAC,
    ICMP,
    ICMP6,
    TCP,
    UDP,
    Datagram,
    checksum,
    ethernet,
    icmp_error,
    ip,
    pseudo_header,
)
from tests.packet.fullnat import CLIENT, LIP, PORT, RIP, SECOND, VIP, answer, inward, local_of, outward, serve
from tests.packet.pieces import cut, join
from tests.packet.sctp import SCTP, Association, chunk
from xlvs.dataplane import layout
from xlvs.model import Forward, ServiceKey

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
LINK = 14
UNCUT = 1260  # RFC 7915, 5.1: bytes of IPv6 that go on without DF
DONT_FRAGMENT = 0x4000
ROUTER = {4: "10.19.0.254", 6: "fd19::254"}  # between the director and its real servers


def other(family: int) -> int:
    return 10 - family


def serve_across(director: Director, family: int, protocol: int) -> ServiceKey:
    """A service of one family whose real server is of the other."""
    there = other(family)
    return serve(director, family, protocol, [RIP[there]], [LIP[there]])


def request(family: int, protocol: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def only(director: Director) -> layout.ConnRow:
    (conn,) = director.connections()
    return conn


def across(was: Datagram, after: bytes) -> Datagram:
    """The header of the other family: an IPv4 identification is the director's own choice."""
    if after[LINK] >> 4 == 6:
        return replace(was, identity=0, options=b"")
    long = 40 + len(was.segment()) > UNCUT
    identity = int.from_bytes(after[LINK + 4 : LINK + 6], "big")
    assert not (long and identity)
    return replace(was, identity=identity, fragment=DONT_FRAGMENT if long else 0)


CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "no payload": {"payload": b""},
    "odd payload": {"payload": b"odd"},
    "long payload": {"payload": bytes(range(256)) * 5},
    "least ttl": {"ttl": 2},
    "traffic class": {"tos": 0xB9},
    "two tags": {"tags": (100, 0x6007)},
    "partial sum": {"sum": "partial", "payload": bytes(range(251))},
    "partial sum of nothing": {"sum": "partial", "payload": b""},
    "last number": {"sequence": 0xFFFFFFFF},
}


@families
@protocols
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_in_and_out(director: Director, family: int, protocol: int, fields: dict[str, object]) -> None:
    serve_across(director, family, protocol)
    asked = request(family, protocol, **fields)
    verdict, after = director.run(asked.frame())
    conn = only(director)
    there = across(inward(asked, conn), after)
    assert (verdict, after) == (XDP_REDIRECT, there.frame())
    assert there.source == LIP[other(family)]
    assert there.target == RIP[other(family)]
    kept = {name: value for name, value in fields.items() if name in ("payload", "sum", "tags", "tos")}
    reply = answer(there, **kept)
    verdict, after = director.run(reply.frame())
    assert (verdict, after) == (XDP_REDIRECT, across(outward(reply, asked, conn), after).frame())
    more = replace(asked, flags="PA", sequence=asked.sequence + 1 & 0xFFFFFFFF, acknowledged=0xFFFFFFF1)
    verdict, after = director.run(more.frame())
    assert (verdict, after) == (XDP_REDIRECT, across(inward(more, conn), after).frame())
    assert director.counted() == {"forwarded": 3}


@given(
    family=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    payload=st.binary(max_size=1400),
    tos=st.integers(0, 255),
    sport=st.integers(1024, 65535),
    sequence=st.integers(0, 0xFFFFFFFF),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flow(
    director: Director, family: int, protocol: int, payload: bytes, tos: int, sport: int, sequence: int
) -> None:
    director.reset()
    serve_across(director, family, protocol)
    asked = request(family, protocol, payload=payload, tos=tos, sport=sport, sequence=sequence)
    after = director.exchange(asked.frame())[1]
    conn = only(director)
    there = across(inward(asked, conn), after)
    assert after == there.frame()
    reply = answer(there, payload=payload)
    after = director.exchange(reply.frame())[1]
    assert after == across(outward(reply, asked, conn), after).frame()


def test_options_stay_behind(director: Director) -> None:
    serve_across(director, 4, TCP)
    asked = request(4, TCP, options=b"\x94\x04\0\0\x01\x01\x01\0")
    after = director.exchange(asked.frame())[1]
    assert after == across(inward(asked, only(director)), after).frame()


def test_extension_headers_stay_behind(director: Director) -> None:
    serve_across(director, 6, UDP)
    asked = request(6, UDP)
    padding = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])  # destination options: PadN
    packet = ip(asked.source, asked.target, 60, padding + asked.segment())
    after = director.exchange(ethernet(packet, asked.target_mac, asked.source_mac))[1]
    assert after == across(inward(asked, only(director)), after).frame()


def test_a_datagram_without_checksum_gets_one(director: Director) -> None:
    serve_across(director, 4, UDP)
    asked = request(4, UDP, sum="none")
    after = director.exchange(asked.frame())[1]
    assert after == across(inward(asked, only(director)), after).frame()


@families
def test_a_wrong_checksum_stays_wrong(director: Director, family: int) -> None:
    serve_across(director, family, TCP)
    asked = request(family, TCP)
    frame = bytearray(asked.frame())
    frame[-1] ^= 1
    after = director.exchange(bytes(frame))[1]
    right = across(inward(asked, only(director)), after).frame()
    assert after[:-1] == right[:-1]
    assert after[-1] == right[-1] ^ 1


@families
def test_sctp(director: Director, family: int) -> None:
    there = other(family)
    serve(director, family, SCTP, [RIP[there]], [LIP[there]])
    asked = Association(CLIENT[family], VIP[family], chunks=chunk("INIT", bytes(16)))
    after = director.exchange(asked.frame())[1]
    address, port = local_of(only(director))
    expected = replace(asked, source=address, sport=port, target=RIP[there], dport=PORT)
    assert after[LINK + (20 if there == 4 else 40) :] == expected.segment()


@families
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["in order", "later ones swapped"])
def test_fragments(director: Director, family: int, order: tuple[int, ...]) -> None:
    serve_across(director, family, UDP)
    asked = request(family, UDP, payload=bytes(range(256)) * 12, fragment=0)
    pieces = cut(asked.packet(), 1200, 1000, identity=0x4711)
    got = []
    for number in order:
        verdict, after = director.run(ethernet(pieces[number], asked.target_mac, asked.source_mac))
        assert verdict == XDP_REDIRECT, director.counted()
        got.append(after[LINK:])
    whole = join(got)
    expected = replace(inward(asked, only(director)), fragment=0, identity=0x4711)
    assert whole == expected.packet()
    size = 20 if other(family) == 4 else 48
    assert [len(each) - size for each in got] == [(1200, 1000, 880)[number] for number in order]
    reply = answer(expected, identity=0)
    back = []
    for piece in cut(reply.packet(), 1000, 1000, identity=0x0815):
        verdict, after = director.run(ethernet(piece, reply.target_mac, reply.source_mac))
        assert verdict == XDP_REDIRECT, director.counted()
        back.append(after[LINK:])
    told = replace(outward(reply, asked, only(director)), fragment=0, identity=0x0815)
    assert join(back) == told.packet()


@families
@protocols
def test_errors_of_the_real_servers_side(director: Director, family: int, protocol: int) -> None:
    """Each kind, from a router on the way, gets to the client as one about its own packet."""
    serve_across(director, family, protocol)
    asked = request(family, protocol, payload=bytes(600))
    sent = director.exchange(asked.frame())[1]
    conn = only(director)
    seen = replace(asked, ttl=asked.ttl - 1)
    there = other(family)
    for kind, code, word, expected in FROM_IPV4 if there == 4 else FROM_IPV6:
        quote = sent[LINK:][: 548 if there == 4 else 1232]
        error = icmp_error(ROUTER[there], LIP[there], kind, code, word, quote)
        verdict, after = director.run(ethernet(error, asked.target_mac, CLIENT_MAC))
        if expected is None:
            assert (verdict, director.counted().get("drop_no_words")) == (XDP_DROP, 1), (kind, code)
            continue
        assert verdict == XDP_REDIRECT, (kind, code, director.counted())
        assert_error(after[LINK:], seen, conn, expected, VIP[family], CLIENT[family])


# Type, code, last word; and what they are in the other family (RFC 7915, 4.2 and 5.2).
FROM_IPV4: list[tuple[int, int, int, tuple[int, int, int] | None]] = [
    (3, 0, 0, (1, 0, 0)),
    (3, 1, 0, (1, 0, 0)),
    (3, 2, 0, (4, 1, 6)),
    (3, 3, 0, (1, 4, 0)),
    (3, 4, 1400, (2, 0, 1420)),
    (3, 4, 500, (2, 0, 1280)),
    (3, 9, 0, (1, 1, 0)),
    (3, 10, 0, (1, 1, 0)),
    (3, 12, 0, (1, 0, 0)),
    (3, 13, 0, (1, 1, 0)),
    (3, 14, 0, None),
    (3, 15, 0, (1, 1, 0)),
    (4, 0, 0, None),
    (11, 0, 0, (3, 0, 0)),
    (11, 1, 0, (3, 1, 0)),
    (12, 0, 9 << 24, (4, 0, 6)),
    (12, 2, 16 << 24, (4, 0, 24)),
    (12, 0, 4 << 24, None),
    (12, 1, 0, None),
]
FROM_IPV6: list[tuple[int, int, int, tuple[int, int, int] | None]] = [
    (1, 0, 0, (3, 1, 0)),
    (1, 1, 0, (3, 10, 0)),
    (1, 2, 0, (3, 1, 0)),
    (1, 3, 0, (3, 1, 0)),
    (1, 4, 0, (3, 3, 0)),
    (1, 5, 0, None),
    (2, 0, 1400, (3, 4, 1380)),
    (3, 0, 0, (11, 0, 0)),
    (3, 1, 0, (11, 1, 0)),
    (4, 0, 7, (12, 0, 8 << 24)),
    (4, 0, 30, (12, 0, 16 << 24)),
    (4, 0, 3, None),
    (4, 1, 6, (3, 2, 0)),
    (4, 2, 0, None),
]


def assert_error(
    packet: bytes,
    about: Datagram,
    conn: layout.ConnRow,
    kind: tuple[int, int, int],
    source: str,
    target: str,
) -> None:
    """An intact ICMP error of the family of its addresses that quotes that packet."""
    head, inner, protocol = (20, 20, ICMP) if packet[0] >> 4 == 4 else (40, 40, ICMP6)
    seed = b"" if protocol == ICMP else pseudo_header(source, target, ICMP6, len(packet) - head)
    assert packet[9 if protocol == ICMP else 6] == protocol
    if protocol == ICMP:
        assert not checksum(packet[:head])
        assert int.from_bytes(packet[2:4], "big") == len(packet)
    else:
        assert int.from_bytes(packet[4:6], "big") == len(packet) - head
        assert len(packet) <= 1280
    assert not checksum(seed + packet[head:])
    assert struct.unpack("!BB", packet[head : head + 2]) == kind[:2]
    assert int.from_bytes(packet[head + 4 : head + 8], "big") == kind[2]
    quoted = packet[head + 8 :]
    whole = about.packet()
    assert quoted[inner : inner + 4] == whole[inner : inner + 4]  # ports
    if about.protocol == TCP:
        assert quoted[inner + 4 : inner + 8] == whole[inner + 4 : inner + 8]  # a stack goes by that
    if protocol == ICMP:
        assert not checksum(quoted[:20])
        assert quoted[12:20] == whole[12:20]
        assert quoted[9] == whole[9]
        assert quoted[2:4] == whole[2:4]
    else:
        assert quoted[4:7] == whole[4:7]
        assert quoted[8:40] == whole[8:40]


@families
def test_errors_of_the_clients_side(director: Director, family: int) -> None:
    """What the client's side says of an answer gets to the real server as one about that."""
    serve_across(director, family, TCP)
    asked = request(family, TCP)
    there = across(inward(asked, only_after(director, asked)), director.exchange(asked.frame())[1])
    reply = answer(there, payload=bytes(700))
    sent = director.exchange(reply.frame())[1]
    kind, code, word = (3, 4, 1300) if family == 4 else (2, 0, 1300)
    error = icmp_error(
        CLIENT[family], VIP[family], kind, code, word, sent[LINK:][: 548 if family == 4 else 1232]
    )
    verdict, after = director.run(ethernet(error, asked.target_mac, CLIENT_MAC))
    assert verdict == XDP_REDIRECT, director.counted()
    expected = (2, 0, 1320) if family == 4 else (3, 4, 1280)
    back = replace(reply, ttl=reply.ttl - 1)
    assert_error(after[LINK:], back, only(director), expected, LIP[other(family)], RIP[other(family)])


def only_after(director: Director, asked: Datagram) -> layout.ConnRow:
    director.exchange(asked.frame())
    return only(director)


@families
def test_too_long_for_the_way(director: Director, family: int) -> None:
    """The sender hears how long its own packets may be."""
    serve_across(director, family, TCP)
    director.inside.mtu = 1400
    director.exchange(request(family, TCP).frame())
    director.counted()
    room = 1400 - 40 if family == 4 else 1400 - 20
    fits = request(family, TCP, flags="A", payload=bytes(room - 20))
    assert director.run(fits.frame())[0] == XDP_REDIRECT
    long = replace(fits, payload=bytes(room - 19))
    verdict, after = director.run(long.frame())
    assert verdict in (XDP_TX, XDP_REDIRECT)
    assert director.counted() == {"forwarded": 1, "drop_too_big": 1}
    mtu = after[LINK + 20 + 6 : LINK + 20 + 8] if family == 4 else after[LINK + 40 + 4 : LINK + 40 + 8]
    # IPv4's has a fragment header's room less: what is cut on the way in needs one on the way out.
    assert int.from_bytes(mtu, "big") == (1400 - 28 if family == 4 else 1420)


@families
def test_a_used_up_ttl_is_the_senders_familys_error(director: Director, family: int) -> None:
    serve_across(director, family, UDP)
    director.exchange(request(family, UDP).frame())
    _, after = director.run(request(family, UDP, ttl=1).frame())
    assert director.counted() == {"forwarded": 1, "drop_ttl": 1}
    assert after[LINK] >> 4 == family


@families
def test_servers_of_both_families_in_one_service(director: Director, family: int) -> None:
    there = other(family)
    serve(director, family, UDP, [RIP[family], RIP[there]], [LIP[family], LIP[there]])
    versions = [
        director.exchange(request(family, UDP, sport=5000 + n).frame())[1][LINK] >> 4 for n in range(4)
    ]
    assert sorted(versions) == [4, 4, 6, 6]
    assert director.index_size() == 8


def test_ends_leave_no_key_behind(director: Director) -> None:
    serve_across(director, 6, TCP)
    asked = request(6, TCP)
    director.exchange(asked.frame())
    conn = only(director)
    director.exchange(replace(answer(inward(asked, conn)), flags="RA").frame())
    director.exchange(replace(asked, sequence=99).frame())  # a new one takes its place
    assert director.index_size() == 2
    assert len(director.connections()) == 1


def test_a_server_without_local_address_of_its_family_serves_nobody(director: Director) -> None:
    serve(director, 6, TCP, [RIP[4]], [LIP[6]])
    assert director.run(request(6, TCP).frame())[0] == XDP_DROP
    assert director.counted() == {"drop_no_local": 1}


def test_the_directors_own_address_is_in_the_other_family_out_of_reach(director: Director) -> None:
    director.host.local.add(b"\n\x13\0\x0c")
    assert SECOND[4] == "10.19.0.12"
    key = serve(director, 6, UDP, [SECOND[4]], [LIP[4]])
    verdict, _ = director.run(request(6, UDP).frame())
    assert verdict != XDP_PASS
    assert director.counted() == {"drop_no_destination": 1}
    director.add(key, Server(RIP[4], PORT, Forward.FULLNAT))
