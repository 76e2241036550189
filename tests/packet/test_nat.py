"""NAT: what goes in to the real server, what comes back to the client, byte for byte."""

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
    XDP_REDIRECT,
    Director,
    Server,
)
from tests.packet.frames import TCP, UDP, Datagram, sums_are_right
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
INSIDE_PORT = 8080
NO_OPERATIONS = b"\x01" * 12

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


def serve(director: Director, family: int, protocol: int) -> None:
    director.service(VIP[family], protocol, [Server(RIP[family], INSIDE_PORT, Forward.MASQ)])


def request(family: int, protocol: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def inward(datagram: Datagram) -> Datagram:
    """What the real server must get."""
    return replace(
        datagram,
        target=RIP[6 if ":" in datagram.source else 4],
        dport=INSIDE_PORT,
        ttl=datagram.ttl - 1,
        sum="whole",
        tags=(),
        target_mac=SERVER_MAC,
        source_mac=INSIDE_MAC,
    )


def answer(datagram: Datagram, **fields: object) -> Datagram:
    """What the real server says to what it got."""
    turned = replace(
        datagram,
        source=datagram.target,
        target=datagram.source,
        sport=datagram.dport,
        dport=datagram.sport,
        source_mac=datagram.target_mac,
        target_mac=datagram.source_mac,
        flags="SA",
        ttl=64,
    )
    return replace(turned, **fields)  # type: ignore[arg-type]


def outward(datagram: Datagram) -> Datagram:
    """What the client must get."""
    return replace(
        datagram,
        source=VIP[6 if ":" in datagram.source else 4],
        sport=80,
        ttl=datagram.ttl - 1,
        sum="whole",
        tags=(),
        target_mac=ROUTER_MAC,
        source_mac=OUTSIDE_MAC,
    )


CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "no payload": {"payload": b""},
    "odd payload": {"payload": b"odd"},
    "long payload": {"payload": bytes(range(256)) * 5},
    "least ttl": {"ttl": 2},
    "tos": {"tos": 0xB9},
    "one tag": {"tags": (100,)},
    "two tags": {"tags": (100, 0x6007)},
    "partial sum": {"sum": "partial", "payload": bytes(range(251))},
    "partial sum of 64": {"sum": "partial", "payload": bytes(64)},
    "partial sum of nothing": {"sum": "partial", "payload": b""},
    "no port as high": {"sport": 65535},
}


@families
@protocols
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_in_and_out(director: Director, family: int, protocol: int, fields: dict[str, object]) -> None:
    serve(director, family, protocol)
    asked = request(family, protocol, **fields)
    there = inward(asked)
    assert director.run(asked.frame()) == (XDP_REDIRECT, there.frame())
    reply = answer(there, **{name: value for name, value in fields.items() if name not in ("sport", "ttl")})
    assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply).frame())
    assert director.counted() == {"forwarded": 2}
    assert [conn.in_packets for conn in director.connections()] == [1]


@protocols
@pytest.mark.parametrize("options", [4, 12, 40])
def test_ip_options_stay(director: Director, protocol: int, options: int) -> None:
    serve(director, 4, protocol)
    asked = request(4, protocol, options=(b"\x01" * options))
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())
    reply = answer(inward(asked))
    assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply).frame())


@pytest.mark.parametrize("fields", [{"fragment": 0, "identity": 4711}, {"identity": 1}])
def test_the_other_fields_stay(director: Director, fields: dict[str, object]) -> None:
    serve(director, 4, UDP)
    asked = request(4, UDP, **fields)
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())


@families
def test_a_datagram_without_checksum_gets_one(director: Director, family: int) -> None:
    """As IPVS does; over IPv6 none is allowed to be without."""
    serve(director, family, UDP)
    asked = request(family, UDP, sum="none")
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())


@families
def test_a_checksum_that_comes_out_as_zero_is_sent_as_ones(director: Director, family: int) -> None:
    """0 would say that there is none (RFC 768)."""
    serve(director, family, UDP)
    wanted = inward(request(family, UDP))
    for low in range(0x10000):
        payload = low.to_bytes(2, "big")
        if replace(wanted, payload=payload).segment()[6:8] == b"\xff\xff":
            break
    asked = request(family, UDP, payload=payload)
    there = inward(asked)
    assert director.run(asked.frame()) == (XDP_REDIRECT, there.frame())
    assert there.segment()[6:8] == b"\xff\xff"


@families
@protocols
def test_a_wrong_checksum_stays_wrong(director: Director, family: int, protocol: int) -> None:
    """A director must not vouch for what was damaged on the way to it."""
    serve(director, family, protocol)
    frame = bytearray(request(family, protocol).frame())
    frame[-1] ^= 1
    _, after = director.exchange(bytes(frame))
    assert not sums_are_right(after[14:])


def test_a_damaged_ip_header_is_left_to_the_kernel(director: Director) -> None:
    serve(director, 4, UDP)
    frame = bytearray(request(4, UDP).frame())
    frame[24] ^= 1
    assert director.run(bytes(frame)) == (2, bytes(frame))
    assert director.connections() == []


@pytest.mark.parametrize("tags", [(7,), (7, 8)])
@families
def test_tags_of_the_way_out_are_pushed(director: Director, family: int, tags: tuple[int, ...]) -> None:
    serve(director, family, UDP)
    director.inside.tags = tags
    asked = request(family, UDP, tags=(100,))
    wanted = replace(inward(asked), tags=tags)
    assert director.run(asked.frame()) == (XDP_REDIRECT, wanted.frame())


def test_padding_of_short_frames_is_kept_and_not_counted(director: Director) -> None:
    serve(director, 4, UDP)
    asked = request(4, UDP)
    assert director.run(asked.frame() + bytes(20)) == (XDP_REDIRECT, inward(asked).frame() + bytes(20))
    assert director.tables.counter_sums(0)[3] == len(asked.packet())


def test_two_clients_do_not_meet(director: Director) -> None:
    serve(director, 4, TCP)
    for number in range(1, 200):
        asked = request(4, TCP, source=f"198.18.7.{number}", sport=1000 + number)
        assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())
    for number in range(1, 200):
        there = inward(request(4, TCP, source=f"198.18.7.{number}", sport=1000 + number))
        reply = answer(there)
        assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply).frame())
    assert len(director.connections()) == 199


@st.composite
def datagrams(draw: st.DrawFn) -> Datagram:
    """Any valid request to the VIP."""
    family = draw(st.sampled_from([4, 6]))
    address = draw(st.ip_addresses(v=4 if family == 4 else 6))
    extra: dict[str, object] = {}
    if family == 4:
        extra["identity"] = draw(st.integers(0, 0xFFFF))
        extra["fragment"] = draw(st.sampled_from([0, 0x4000]))
        extra["options"] = b"\x01" * (4 * draw(st.integers(0, 10)))
    return request(
        family,
        draw(st.sampled_from([TCP, UDP])),
        source=str(address),
        sport=draw(st.integers(1, 0xFFFF).filter(lambda port: port != 20)),  # no data port of FTP's
        flags=draw(st.sampled_from(["S", "SP"])),
        sequence=draw(st.integers(0, 0xFFFFFFFF)),
        payload=draw(st.binary(max_size=1300)),
        ttl=draw(st.integers(2, 255)),
        tos=draw(st.integers(0, 255)),
        sum=draw(st.sampled_from(["whole", "whole", "partial"])),
        tags=draw(st.sampled_from([(), (1,), (4094, 2)])),
        **extra,
    )


@given(datagrams(), st.binary(max_size=1300))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flow_in_and_out(director: Director, asked: Datagram, said: bytes) -> None:
    director.reset()
    serve(director, 6 if ":" in asked.source else 4, asked.protocol)
    _, after = director.exchange(asked.frame())
    there = inward(asked)
    assert after == there.frame()
    assert sums_are_right(after[14:])
    assert after.endswith(asked.payload)
    reply = answer(there, payload=said)
    _, after = director.exchange(reply.frame())
    assert after == outward(reply).frame()
    assert sums_are_right(after[14:])
    assert after.endswith(said)
