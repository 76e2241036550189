"""SCTP: what leaves byte for byte, by every method, and which packets make connections."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_PASS,
    XDP_REDIRECT,
    Director,
    Server,
)
from tests.packet.frames import IP_IN_IP, ethernet, ip
from tests.packet.sctp import CHUNKS, SCTP, Association, chunk, crc32c
from xlvs.dataplane import layout
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
DIP = {4: "10.19.0.1", 6: "fd19::1"}
families = pytest.mark.parametrize("family", [4, 6])
INIT = chunk("INIT", bytes(range(16)))


def test_the_reference_itself() -> None:
    """RFC 3720, B.4: the CRC32c of 32 bytes of zeros, of ones, and of a ramp."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def serve(director: Director, family: int, method: Forward, port: int = 80) -> None:
    director.service(VIP[family], SCTP, [Server(RIP[family], port, method)])


def request(family: int, **fields: object) -> Association:
    return replace(Association(CLIENT[family], VIP[family], chunks=INIT), **fields)  # type: ignore[arg-type]


def inward(asked: Association, family: int, port: int) -> bytes:
    whole = "whole" if asked.sum == "partial" else asked.sum
    got = replace(
        asked,
        target=RIP[family],
        dport=port,
        ttl=asked.ttl - 1,
        sum=whole,
        target_mac=SERVER_MAC,
        source_mac=INSIDE_MAC,
    )
    return got.frame()


def outward(asked: Association, family: int, port: int) -> tuple[bytes, bytes]:
    """What the real server answers, and what the client gets of it."""
    said = Association(RIP[family], asked.source, port, asked.sport, chunk("INIT_ACK", b"odd length"))
    got = replace(
        said,
        source=VIP[family],
        sport=80,
        ttl=said.ttl - 1,
        target_mac=ROUTER_MAC,
        source_mac=OUTSIDE_MAC,
    )
    return said.frame(), got.frame()


SUMS = ["whole", "partial", "wrong"]


@families
@pytest.mark.parametrize("port", [80, 8080])
@pytest.mark.parametrize("check", SUMS)
def test_nat(director: Director, family: int, port: int, check: str) -> None:
    serve(director, family, Forward.MASQ, port)
    asked = request(family, sum=check)
    for _ in range(2):
        assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked, family, port))
    said, got = outward(asked, family, port)
    assert director.run(said) == (XDP_REDIRECT, got)
    assert director.counted() == {"forwarded": 3}


@given(
    body=st.binary(max_size=1400),
    sport=st.integers(1, 65535).filter(lambda port: port != 20),  # FTP's data port opens nothing
    port=st.integers(1, 65535),
    check=st.sampled_from(SUMS),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_checksum_follows_the_ports(
    director: Director, body: bytes, sport: int, port: int, check: str
) -> None:
    director.reset()
    serve(director, 4, Forward.MASQ, port)
    director.exchange(request(4, sport=sport).frame())
    asked = request(4, sport=sport, chunks=chunk("DATA", body), sum=check)
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked, 4, port))


@families
@pytest.mark.parametrize("check", SUMS)
def test_direct_routing(director: Director, family: int, check: str) -> None:
    serve(director, family, Forward.ROUTE)
    asked = request(family, sum=check)
    whole = "whole" if check == "partial" else check
    wanted = replace(asked, sum=whole, ttl=63, target_mac=SERVER_MAC, source_mac=INSIDE_MAC)
    assert director.run(asked.frame()) == (XDP_REDIRECT, wanted.frame())


@families
@pytest.mark.parametrize("check", SUMS)
def test_tunnel(director: Director, family: int, check: str) -> None:
    serve(director, family, Forward.TUNNEL)
    asked = request(family, sum=check)
    inner = replace(asked, sum="whole" if check == "partial" else check, ttl=63).packet()
    wanted = ip(DIP[family], RIP[family], IP_IN_IP[family], inner, ttl=63)
    assert director.run(asked.frame()) == (XDP_REDIRECT, ethernet(wanted, SERVER_MAC, INSIDE_MAC))


@pytest.mark.parametrize("length", [0, 1, 3, 47, 48, 49, 51, 52, 53, 1400])
def test_every_length_of_a_partial_checksum(director: Director, length: int) -> None:
    serve(director, 4, Forward.MASQ, 81)
    director.exchange(request(4).frame())
    asked = request(4, chunks=INIT + bytes(range(256)) * 6, sum="partial")
    asked = replace(asked, chunks=asked.chunks[: 4 + length])
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked, 4, 81))


@pytest.mark.parametrize("sloppy", [0, 1])
@pytest.mark.parametrize("name", CHUNKS)
def test_what_makes_a_connection(director: Director, name: str, sloppy: int) -> None:
    serve(director, 4, Forward.ROUTE)
    director.tables.settings.sysctl.sloppy_sctp = sloppy
    starts = name == "INIT" or (sloppy and name != "ABORT")
    verdict, _ = director.run(request(4, chunks=chunk(name)).frame())
    assert verdict == (XDP_REDIRECT if starts else XDP_PASS)
    assert len(director.connections()) == int(starts)


def test_no_chunk_no_connection(director: Director) -> None:
    serve(director, 4, Forward.ROUTE)
    director.tables.settings.sysctl.sloppy_sctp = 1
    for chunks in (b"", b"\x01", b"\x01\0\0"):
        assert director.run(request(4, chunks=chunks).frame())[0] == XDP_PASS
    assert director.connections() == []


def test_a_header_cut_short_is_left_alone(director: Director) -> None:
    serve(director, 4, Forward.ROUTE)
    director.exchange(request(4).frame())
    short = ethernet(ip(CLIENT[4], VIP[4], SCTP, request(4).segment()[:11]), b"\2" * 6, b"\4" * 6)
    assert director.run(short + bytes(30)) == (XDP_PASS, short + bytes(30))


def test_another_port_is_none_of_ours(director: Director) -> None:
    serve(director, 4, Forward.ROUTE)
    assert director.run(request(4, dport=81).frame())[0] == XDP_PASS
    assert director.counted() == {"not_ours": 1}


def test_an_init_on_a_closed_association_is_scheduled_afresh(director: Director) -> None:
    servers = [Server("10.19.0.11", method=Forward.ROUTE), Server("10.19.0.12", method=Forward.ROUTE)]
    director.service(VIP[4], SCTP, servers)
    director.exchange(request(4).frame())
    director.exchange(request(4, chunks=chunk("ABORT")).frame())
    (conn,) = director.connections()
    assert layout.SCTP_STATES[conn.state & 15] == "CLOSED"
    first = bytes(conn.daddr)
    director.exchange(request(4).frame())
    (conn,) = director.connections()
    assert bytes(conn.daddr) != first
    assert layout.SCTP_STATES[conn.state & 15] == "INIT1"


@pytest.mark.parametrize(
    ("chunks", "state"),
    [
        (chunk("COOKIE_ECHO", b"abc") + chunk("ABORT"), "CLOSED"),
        (chunk("COOKIE_ACK") + chunk("ABORT"), "CLOSED"),
        (chunk("COOKIE_ECHO", b"abc") + chunk("DATA"), "ESTABLISHED"),
        (chunk("COOKIE_ECHO", b"abcd", said=3) + chunk("ABORT"), "ESTABLISHED"),
        (chunk("COOKIE_ECHO", b"abcd", said=4000) + chunk("ABORT"), "ESTABLISHED"),
        (chunk("SACK") + chunk("ABORT"), "INIT1"),
    ],
)
def test_an_abort_behind_a_cookie_counts(director: Director, chunks: bytes, state: str) -> None:
    serve(director, 4, Forward.ROUTE)
    director.exchange(request(4).frame())
    director.exchange(request(4, chunks=chunks).frame())
    (conn,) = director.connections()
    assert layout.SCTP_STATES[conn.state & 15] == state
