"""FULLNAT: ICMP errors both ways, what they quote there, and fragments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_DROP,
    Director,
    Hop,
    Server,
)
from tests.packet.frames import (
    CLIENT_MAC,
    DIRECTOR_MAC,
    TCP,
    UDP,
    Datagram,
    ethernet,
    icmp_error,
    sums_are_right,
)
from tests.packet.fullnat import (
    CLIENT,
    LIP,
    RIP,
    VIP,
    WHOLE,
    answer,
    define,
    inward,
    key_of,
    outward,
    pool,
    serve,
)
from tests.packet.pieces import cut, join
from tests.packet.sctp import SCTP, Association, chunk
from tests.packet.test_errors import QUOTED
from tests.packet.test_icmp import CASES, FAR, error, kept, link, quoted_as
from xlvs.dataplane import layout
from xlvs.model import Forward, Service

pytestmark = pytest.mark.root

MASK = 0xFFFFFFFF
LONG = bytes(range(256)) * 16
families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
errors = pytest.mark.parametrize(("family", "kind", "code", "word"), CASES)


def begin(director: Director, family: int, protocol: int) -> tuple[Datagram, Datagram, layout.ConnRow]:
    """A connection: a client's segment, the server's answer to it (as each sent it), and its slot."""
    serve(director, family, protocol)
    first = Datagram(CLIENT[family], VIP[family], protocol=protocol, payload=b"", fragment=0)
    director.exchange(first.frame())
    (conn,) = director.connections()
    asked = replace(first, flags="PA", sequence=1001, acknowledged=77, payload=b"question")
    director.exchange(asked.frame())
    said = answer(inward(asked, conn), flags="PA", sequence=78, payload=b"answer")
    director.exchange(said.frame())
    director.counted()
    return asked, said, conn


@errors
@protocols
def test_about_requests_to_the_client(
    director: Director, family: int, kind: int, code: int, word: int, protocol: int
) -> None:
    """From a router on the way to the real server: the client knows its own packet again."""
    asked, _, conn = begin(director, family, protocol)
    quote = inward(asked, conn).packet()
    after = director.exchange(link(error(FAR[family], LIP[family], kind, code, word, quote)))[1]
    own = quoted_as(replace(asked, ttl=63).packet(), quote, kept(protocol))
    want = error(VIP[family], CLIENT[family], kind, code, word, own, ttl=63)
    assert after == ethernet(want, ROUTER_MAC, OUTSIDE_MAC)
    assert director.counted() == {"forwarded": 1}


@errors
@protocols
def test_about_answers_to_the_real_server(
    director: Director, family: int, kind: int, code: int, word: int, protocol: int
) -> None:
    """From a router on the way to the client, from the local address: the real server routes to that."""
    asked, said, conn = begin(director, family, protocol)
    quote = outward(said, asked, conn).packet()
    after = director.exchange(link(error(FAR[family], VIP[family], kind, code, word, quote)))[1]
    own = quoted_as(replace(said, ttl=63).packet(), quote, kept(protocol))
    want = error(LIP[family], RIP[family], kind, code, word, own, ttl=63)
    assert after == ethernet(want, SERVER_MAC, INSIDE_MAC)


@families
@pytest.mark.parametrize("quoted", [8, 11, 12, 20, 28])
def test_what_is_quoted_of_the_numbers_is_translated(director: Director, family: int, quoted: int) -> None:
    """RFC 792 asks for eight bytes: that is the sequence number, by which TCP believes the error."""
    asked, said, conn = begin(director, family, TCP)
    size = (20 if family == 4 else 40) + quoted
    kind = (3, 4, 1400) if family == 4 else (2, 0, 1400)
    for sent, heard, target, ends in (
        (inward(asked, conn), replace(asked, ttl=63), LIP, (VIP, CLIENT)),
        (outward(said, asked, conn), replace(said, ttl=63), VIP, (LIP, RIP)),
    ):
        quote = sent.packet()[:size]
        after = director.exchange(link(error(FAR[family], target[family], *kind, quote)))[1]
        own = bytearray(heard.packet()[:size])
        if quoted >= 18:
            at = (20 if family == 4 else 40) + 16
            own[at : at + 2] = quote[at : at + 2]
        if quoted == 11:  # the acknowledgement is not all there
            own[-3:] = quote[-3:]
        assert after[14:] == error(ends[0][family], ends[1][family], *kind, bytes(own), ttl=63)


@families
def test_an_sctp_error(director: Director, family: int) -> None:
    serve(director, family, SCTP)
    asked = Association(CLIENT[family], VIP[family])
    heard = director.exchange(asked.frame())[1][14:]
    kind = (3, 1, 0) if family == 4 else (1, 0, 0)
    after = director.exchange(link(error(FAR[family], LIP[family], *kind, heard)))[1]
    own = quoted_as(replace(asked, ttl=63).packet(), heard, 8)
    own = own[: len(own) - len(asked.chunks) - 4] + heard[len(heard) - len(asked.chunks) - 4 :]
    assert after[14:] == error(VIP[family], CLIENT[family], *kind, own, ttl=63)


@families
@protocols
def test_too_big_for_the_way_inside(director: Director, family: int, protocol: int) -> None:
    """The client is told what the real server's side takes: FULLNAT makes nothing longer."""
    asked, _, conn = begin(director, family, protocol)
    director.inside = Hop(director.inside.ifindex, SERVER_MAC, INSIDE_MAC, mtu=1300)
    long = replace(asked, payload=bytes(1300), fragment=0x4000)
    after = director.run(long.frame())[1]
    kind = (3, 4) if family == 4 else (2, 0)
    quote = replace(long, ttl=63).packet()[: QUOTED[family]]
    assert after == ethernet(
        icmp_error(VIP[family], CLIENT[family], *kind, 1300, quote), CLIENT_MAC, DIRECTOR_MAC
    )
    assert conn.seq_in or protocol == UDP


@families
@protocols
def test_too_big_for_the_way_back(director: Director, family: int, protocol: int) -> None:
    """The real server is told by the address that it wrote to."""
    _, said, _ = begin(director, family, protocol)
    director.outside = Hop(director.outside.ifindex, ROUTER_MAC, OUTSIDE_MAC, mtu=1300)
    long = replace(said, payload=bytes(1300), fragment=0x4000, source_mac=CLIENT_MAC, target_mac=DIRECTOR_MAC)
    after = director.run(long.frame())[1]
    kind = (3, 4) if family == 4 else (2, 0)
    quote = replace(long, ttl=63).packet()[: QUOTED[family]]
    assert after == ethernet(
        icmp_error(LIP[family], RIP[family], *kind, 1300, quote), CLIENT_MAC, DIRECTOR_MAC
    )


def frames_of(datagram: Datagram, *sizes: int, identity: int = 77) -> list[bytes]:
    return [link(piece) for piece in cut(datagram.packet(), *sizes, identity=identity)]


def same(packet: bytes) -> bytes:
    """Without what putting together does not keep: IPv4's identification and header checksum."""
    return packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:] if packet[0] >> 4 == 4 else packet


@families
@protocols
def test_fragments_both_ways(director: Director, family: int, protocol: int) -> None:
    asked, said, conn = begin(director, family, protocol)
    asked, said = replace(asked, payload=LONG), replace(said, payload=LONG, fragment=0)
    out = [director.exchange(frame)[1] for frame in frames_of(asked, 1400, 1400)]
    assert {frame[:12] for frame in out} == {SERVER_MAC + INSIDE_MAC}
    got = join([frame[14:] for frame in out])
    assert sums_are_right(got)
    assert same(got) == same(inward(asked, conn).packet())
    back = [director.exchange(frame)[1] for frame in frames_of(said, 1352, 1400, identity=1)]
    assert {frame[:12] for frame in back} == {ROUTER_MAC + OUTSIDE_MAC}
    got = join([frame[14:] for frame in back])
    assert sums_are_right(got)
    assert same(got) == same(outward(said, asked, conn).packet())
    assert director.counted() == {"forwarded": 6}


@families
def test_a_datagram_begins_a_connection_with_a_fragment(director: Director, family: int) -> None:
    serve(director, family, UDP)
    asked = Datagram(CLIENT[family], VIP[family], payload=LONG, fragment=0)
    out = [director.exchange(frame)[1] for frame in frames_of(asked, 1400, 1400)]
    (conn,) = director.connections()
    assert same(join([frame[14:] for frame in out])) == same(inward(asked, conn).packet())


def test_sctp_fragments_where_ports_stay(director: Director) -> None:
    """Its checksum cannot follow ports without the whole: the client's own port is taken if free."""
    key = key_of(4, SCTP)
    define(director, Service(key, netmask=WHOLE[4]), [Server(RIP[4], 80, Forward.FULLNAT)])
    pool(director, key, LIP[4])
    asked = Association(CLIENT[4], VIP[4])
    director.exchange(asked.frame())
    long = replace(asked, chunks=chunk("DATA", LONG))
    got = [director.exchange(link(piece))[1][14:] for piece in cut(long.packet(), 1400, 1400)]
    want = replace(long, source=LIP[4], target=RIP[4], ttl=63).packet()
    assert same(join(got))[8:] == same(want)[8:]  # in parts, nothing says don't-fragment
    other = replace(asked, source="198.18.0.2", chunks=chunk("INIT", bytes(16)))
    director.exchange(other.frame())
    pieces = cut(replace(other, chunks=long.chunks).packet(), 1400, 1400, identity=5)
    assert director.run(link(pieces[0]))[0] == XDP_DROP
