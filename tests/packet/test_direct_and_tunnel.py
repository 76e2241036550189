"""DR and TUN: what leaves towards the real server, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import INSIDE_MAC, SERVER_MAC, XDP_REDIRECT, Director, Server
from tests.packet.frames import IP_IN_IP, TCP, UDP, Datagram, checksum, ethernet, ip
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
DIP = {4: "10.19.0.1", 6: "fd19::1"}

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
pairs = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])


def request(family: int, protocol: int = UDP, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def handed_on(asked: Datagram) -> Datagram:
    """The packet as a router leaves it: one hop less, and its checksum filled in."""
    whole = "whole" if asked.sum == "partial" else asked.sum
    return replace(asked, ttl=asked.ttl - 1, sum=whole)


def routed(asked: Datagram, tags: tuple[int, ...] = ()) -> bytes:
    return ethernet(handed_on(asked).packet(), SERVER_MAC, INSIDE_MAC, tags)


FIELDS: dict[str, dict[str, object]] = {
    "plain": {},
    "tos": {"tos": 0xFF},
    "least ttl": {"ttl": 2},
    "odd payload": {"payload": b"odd"},
    "one tag": {"tags": (5,)},
    "two tags": {"tags": (5, 6)},
    "partial sum": {"sum": "partial", "payload": bytes(range(200))},
}


@families
@protocols
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_direct_routing_changes_the_link_only(
    director: Director, family: int, protocol: int, fields: dict[str, object]
) -> None:
    director.service(VIP[family], protocol, [Server(RIP[family], method=Forward.ROUTE)])
    asked = request(family, protocol, **fields)
    for _ in range(2):
        assert director.run(asked.frame()) == (XDP_REDIRECT, routed(asked))
    assert director.counted() == {"forwarded": 2}


@pytest.mark.parametrize(
    "fields", [{"options": b"\x01" * 40}, {"identity": 9, "fragment": 0}, {"sum": "none"}]
)
def test_direct_routing_leaves_the_rest_alone(director: Director, fields: dict[str, object]) -> None:
    director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.ROUTE)])
    asked = request(4, UDP, **fields)
    assert director.run(asked.frame()) == (XDP_REDIRECT, routed(asked))


@pytest.mark.parametrize("tags", [(), (9,), (9, 10)])
@pytest.mark.parametrize("came", [(), (1,), (1, 2)])
@families
def test_direct_routing_changes_tags(
    director: Director, family: int, came: tuple[int, ...], tags: tuple[int, ...]
) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], method=Forward.ROUTE)])
    director.inside.tags = tags
    asked = request(family, tags=came)
    assert director.run(asked.frame()) == (XDP_REDIRECT, routed(asked, tags))


def wrapped(asked: Datagram, outside: int, inside: int, identity: int = 0) -> bytes:
    """The outer packet, as RFC 2003, RFC 2473 and RFC 6040 have it."""
    tos = asked.tos if asked.tos & 3 != 3 else asked.tos & ~3 | 2
    fragment = 0x4000 if inside == 4 and asked.fragment & 0x4000 else 0
    return ip(
        DIP[outside],
        RIP[outside],
        IP_IN_IP[inside],
        handed_on(asked).packet(),
        ttl=asked.ttl - 1,
        tos=tos,
        fragment=fragment,
        identity=identity,
    )


def without_identity(packet: bytes) -> bytes:
    """An IPv4 packet less its identification and the checksum over it, which must be right."""
    assert checksum(packet[:20]) == 0
    return packet[:4] + packet[6:10] + packet[12:]


TUNNEL_FIELDS = {
    **FIELDS,
    "tos ce": {"tos": 0x2B},
    "tos ect1": {"tos": 0x29},
    "long": {"payload": bytes(1300)},
}


@pairs
@protocols
@pytest.mark.parametrize("fields", TUNNEL_FIELDS.values(), ids=TUNNEL_FIELDS)
def test_tunnels_of_every_pair(
    director: Director, outside: int, inside: int, protocol: int, fields: dict[str, object]
) -> None:
    director.service(VIP[inside], protocol, [Server(RIP[outside], method=Forward.TUNNEL)])
    asked = request(inside, protocol, **fields)
    verdict, after = director.run(asked.frame())
    packet = wrapped(asked, outside, inside)
    wanted = ethernet(packet, SERVER_MAC, INSIDE_MAC)
    assert (verdict, after[:14]) == (XDP_REDIRECT, wanted[:14])
    if outside == 4 and inside == 6:
        assert without_identity(after[14:]) == without_identity(packet)
    else:
        assert after == wanted
    assert director.counted() == {"forwarded": 1}


def test_a_packet_that_may_be_fragmented_may_be_so_in_the_tunnel(director: Director) -> None:
    director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.TUNNEL)])
    asked = request(4, fragment=0, identity=77)
    seen = set()
    for _ in range(20):
        _, after = director.exchange(asked.frame())
        seen.add(after[18:20])
        assert without_identity(after[14:]) == without_identity(wrapped(asked, 4, 4))
    # Fragments of two packets must not be taken for those of one.
    assert len(seen) > 10


@pytest.mark.parametrize("tags", [(9,), (9, 10)])
@pytest.mark.parametrize("came", [(), (1,), (1, 2)])
@pairs
def test_tunnels_change_tags(
    director: Director, outside: int, inside: int, came: tuple[int, ...], tags: tuple[int, ...]
) -> None:
    director.service(VIP[inside], UDP, [Server(RIP[outside], method=Forward.TUNNEL)])
    director.inside.tags = tags
    asked = request(inside, tags=came)
    _, after = director.exchange(asked.frame())
    wanted = ethernet(wrapped(asked, outside, inside), SERVER_MAC, INSIDE_MAC, tags)
    link = 14 + 4 * len(tags)
    assert after[:link] == wanted[:link]
    if outside == 4 and inside == 6:
        assert without_identity(after[link:]) == without_identity(wanted[link:])
    else:
        assert after == wanted


def test_padding_does_not_go_into_the_tunnels_length(director: Director) -> None:
    director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.TUNNEL)])
    asked = request(4)
    _, after = director.exchange(asked.frame() + bytes(11))
    assert after == ethernet(wrapped(asked, 4, 4), SERVER_MAC, INSIDE_MAC) + bytes(11)


@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
@families
def test_answers_are_none_of_the_directors_business(director: Director, family: int, method: Forward) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], method=method)])
    asked = request(family)
    director.exchange(asked.frame())
    reply = replace(asked, source=asked.target, target=asked.source, sport=asked.dport, dport=asked.sport)
    assert director.run(reply.frame()) == (2, reply.frame())
    director.counted()
    assert director.index_size() == 1
