"""ICMP errors that the director sends: what, to whom, about how much of the packet, how often."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.packet.director import LOOPBACK, XDP_DROP, XDP_REDIRECT, XDP_TX, Director, Server
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
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
# RFC 792 and RFC 4443: type and code.
UNREACHABLE = {4: (3, 3), 6: (1, 4)}
TOO_BIG = {4: (3, 4), 6: (2, 0)}
EXCEEDED = {4: (11, 0), 6: (3, 0)}
# RFC 1812: the error has at most 576 bytes; RFC 4443: at most 1280.
QUOTED = {4: 576 - 20 - 8, 6: 1280 - 40 - 8}

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
methods = pytest.mark.parametrize("method", [Forward.MASQ, Forward.ROUTE, Forward.TUNNEL])


def request(family: int, protocol: int = UDP, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def told(asked: Datagram, kind: tuple[int, int], word: int, quoted: Datagram | None = None) -> bytes:
    """The error frame to the client about its packet."""
    family = 6 if ":" in asked.source else 4
    quote = (quoted or asked).packet()[: QUOTED[family]]
    error = icmp_error(asked.target, asked.source, *kind, word, quote, tos=asked.tos & 0x1E)
    return ethernet(error, CLIENT_MAC, DIRECTOR_MAC, asked.tags)


LENGTHS = {"short": b"", "odd": b"odd", "long": bytes(range(256)) * 4, "longest": bytes(range(251)) * 5}
TAGS = [(), (3,), (3, 4)]


@families
@protocols
@pytest.mark.parametrize("payload", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("tags", TAGS)
def test_nobody_serves(
    director: Director, family: int, protocol: int, payload: bytes, tags: tuple[int, ...]
) -> None:
    director.service(VIP[family], protocol, [])
    asked = request(family, protocol, payload=payload, tags=tags)
    assert director.run(asked.frame()) == (XDP_REDIRECT, told(asked, UNREACHABLE[family], 0))
    assert director.counted() == {"drop_no_destination": 1}
    assert director.connections() == []


@families
def test_weight_0_serves_nobody(director: Director, family: int) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], weight=0)])
    asked = request(family)
    assert director.run(asked.frame()) == (XDP_REDIRECT, told(asked, UNREACHABLE[family], 0))


def test_padding_is_not_quoted(director: Director) -> None:
    director.service(VIP[4], UDP, [])
    asked = request(4)
    assert director.run(asked.frame() + bytes(9))[1] == told(asked, UNREACHABLE[4], 0)


def test_where_the_device_can_it_goes_back_at_once(director: Director) -> None:
    director.service(VIP[4], UDP, [])
    row = layout.PortRow(flags=layout.PORT_XDP | layout.PORT_TX)
    libbpf.update(director.tables.fd("ports"), LOOPBACK.to_bytes(4, "little"), bytes(row))
    asked = request(4)
    assert director.run(asked.frame()) == (XDP_TX, told(asked, UNREACHABLE[4], 0))


@families
@methods
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("ttl", [0, 1])
def test_the_last_hop(
    director: Director, family: int, method: Forward, tags: tuple[int, ...], ttl: int
) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], method=method)])
    asked = request(family, ttl=ttl, tags=tags)
    assert director.run(asked.frame()) == (XDP_REDIRECT, told(asked, EXCEEDED[family], 0))
    assert director.counted() == {"drop_ttl": 1}


@families
@methods
@protocols
@pytest.mark.parametrize("tags", TAGS)
def test_a_byte_too_many(
    director: Director, family: int, method: Forward, protocol: int, tags: tuple[int, ...]
) -> None:
    director.service(VIP[family], protocol, [Server(RIP[family], method=method)])
    header = {4: 20, 6: 40}[family]
    room = 1400 - (header if method == Forward.TUNNEL else 0)
    director.inside.mtu = 1400
    fits = room - header - (20 if protocol == TCP else 8)
    asked = request(family, protocol, payload=bytes(fits + 1), tags=tags)
    # The TTL went down before sizes were compared: the quotation shows it, as a router's does.
    quoted = replace(asked, ttl=asked.ttl - 1)
    assert director.run(asked.frame()) == (XDP_REDIRECT, told(asked, TOO_BIG[family], room, quoted))
    assert director.counted() == {"drop_too_big": 1}
    assert director.run(replace(asked, payload=bytes(fits)).frame())[0] == XDP_REDIRECT
    assert director.counted() == {"forwarded": 1}


def test_ipv6_is_never_told_of_less_than_its_least_mtu(director: Director) -> None:
    director.service(VIP[6], UDP, [Server(RIP[6], method=Forward.TUNNEL)])
    director.inside.mtu = 1280
    asked = request(6, payload=bytes(1280 - 48))
    quoted = replace(asked, ttl=asked.ttl - 1)
    assert director.run(asked.frame())[1] == told(asked, TOO_BIG[6], 1280, quoted)


@families
def test_an_answer_too_big_for_the_client_is_told_to_the_server(director: Director, family: int) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], 8080)])
    director.exchange(request(family).frame())
    director.outside.mtu = 1300
    reply = Datagram(RIP[family], CLIENT[family], sport=8080, dport=40000, payload=bytes(1300))
    verdict, after = director.run(reply.frame())
    assert verdict == XDP_REDIRECT
    assert after[:12] == CLIENT_MAC + DIRECTOR_MAC
    kind, code, at = (*TOO_BIG[family], 34 if family == 4 else 54)
    assert (after[at], after[at + 1]) == (kind, code)
    assert int.from_bytes(after[at + 4 : at + 8], "big") == 1300
    assert director.counted() == {"forwarded": 1, "drop_too_big": 1}


def test_the_kernels_share_of_the_tos(director: Director) -> None:
    director.service(VIP[4], UDP, [])
    for tos in (0, 0x08, 0x10, 0xB8, 0xFF):
        asked = request(4, tos=tos)
        assert director.run(asked.frame())[1] == told(asked, UNREACHABLE[4], 0)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """The limit is one for each CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_there_is_a_limit(director: Director, one_cpu: None) -> None:
    director.service(VIP[4], UDP, [])
    settings = director.tables.settings
    settings.icmp_limit = 3
    settings.hz = 1 << 29  # a "second" that does not end meanwhile
    verdicts = [director.run(request(4).frame())[0] for _ in range(10)]
    assert verdicts == [XDP_REDIRECT] * 3 + [XDP_DROP] * 7
    assert director.counted() == {"drop_no_destination": 3, "drop_error_limited": 7}
    settings.hz = 1
    assert director.run(request(4).frame())[0] == XDP_REDIRECT


def test_the_reference_itself() -> None:
    """The builder's packets verify, and a flipped bit does not."""
    for family in (4, 6):
        for protocol in (TCP, UDP):
            packet = bytearray(request(family, protocol).packet())
            assert sums_are_right(bytes(packet))
            packet[-1] ^= 0x40
            assert not sums_are_right(bytes(packet))
