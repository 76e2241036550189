"""ICMP errors about the director's own tunnel packets: the client is told, the way's MTU is remembered."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import replace

import pytest

from tests.packet.director import OUTSIDE_MAC, ROUTER_MAC, XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, UDP, Datagram, ethernet, icmp_error, ip
from tests.packet.test_icmp import error
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
DIP = {4: "10.19.0.1", 6: "fd19::1"}
ROUTER = {4: "203.0.113.7", 6: "2001:db8::7"}
INSIDE = {4: 4, 6: 41}
TOO_BIG = {4: (3, 4), 6: (2, 0)}
QUOTED = {4: 576 - 28, 6: 1280 - 48}

pairs = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])
families = pytest.mark.parametrize("family", [4, 6])


def begin(director: Director, outside: int, inside: int, **fields: object) -> Datagram:
    director.service(VIP[inside], UDP, [Server(RIP[outside], 80, Forward.TUNNEL)])
    asked = replace(Datagram(CLIENT[inside], VIP[inside]), **fields)  # type: ignore[arg-type]
    director.exchange(asked.frame())
    director.counted()
    return asked


def outer(outside: int, inner: bytes, protocol: int | None = None) -> bytes:
    kind = INSIDE[inner[0] >> 4] if protocol is None else protocol
    return ip(DIP[outside], RIP[outside], kind, inner)


def link(packet: bytes) -> bytes:
    return ethernet(packet, DIRECTOR_MAC, CLIENT_MAC)


@pytest.fixture
def routed(director: Director, own_network: None) -> Director:
    """A machine with a way to the clients, for errors leave by routing."""
    lines = [
        "link add out type veth peer name peer",
        "link set out up address 02:00:00:00:00:d3",
        "link set peer up",
        "addr add 10.80.0.254/24 dev out",
        "addr add fd80::fe/64 dev out nodad",
        "route add 198.18.0.0/24 via 10.80.0.253",
        "route add fd18::/64 via fd80::fd",
        "neigh add 10.80.0.253 lladdr 02:00:00:00:00:a1 dev out",
        "neigh add fd80::fd lladdr 02:00:00:00:00:a1 dev out",
        "link set lo up",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with open(f"/proc/sys/net/{path}", "w") as sysctl:
            sysctl.write("1")
    ifindex = socket.if_nametoindex("out")
    row = layout.PortRow(flags=layout.PORT_XDP)
    libbpf.update(director.tables.fd("ports"), ifindex.to_bytes(4, "little"), bytes(row))
    return director


@pairs
def test_too_big(routed: Director, outside: int, inside: int) -> None:
    director = routed
    asked = begin(director, outside, inside)
    inner = replace(asked, ttl=63).packet()
    before = director.tables.counter_sums(layout.ROW_SERVICE)
    sent = error(ROUTER[outside], DIP[outside], *TOO_BIG[outside], 1380, outer(outside, inner))
    verdict, after = director.run(link(sent))
    assert verdict == XDP_REDIRECT, director.counted()
    # To IPVS the route that it used last has not changed yet: the next error will be right.
    room = 1500 - 20 if outside == 4 else 1380 - 40
    want = icmp_error(VIP[inside], CLIENT[inside], *TOO_BIG[inside], room, inner[: QUOTED[inside]])
    assert after == ethernet(want, ROUTER_MAC, OUTSIDE_MAC)
    assert director.counted() == {"told_client": 1}
    grown = [
        new - old for new, old in zip(director.tables.counter_sums(layout.ROW_SERVICE), before, strict=True)
    ]
    assert grown == [0, 0, 2, 0, len(inner) + len(want)]  # as IPVS: told, and seen leaving
    (key,) = libbpf.keys(director.tables.fd("path_mtus"), 16)
    path = layout.PathMtu.from_buffer_copy(libbpf.lookup(director.tables.fd("path_mtus"), key, 8) or b"")
    assert path.mtu == 1380
    left = path.until - director.now() & 0xFFFFFFFF  # jiffies come round five minutes after a boot
    assert 0 < left <= 600 * director.tables.settings.hz


def test_without_dont_fragment_the_client_need_not_know(director: Director) -> None:
    asked = begin(director, 4, 4, fragment=0)
    inner = replace(asked, ttl=63).packet()
    sent = error(ROUTER[4], DIP[4], 3, 4, 1380, outer(4, inner))
    assert director.run(link(sent))[0] == XDP_DROP
    assert director.counted() == {"told_client": 1}
    assert len(list(libbpf.keys(director.tables.fd("path_mtus"), 16))) == 1


@families
@pytest.mark.parametrize(("kind4", "kind6"), [((3, 1), (1, 3)), ((3, 0), (1, 0)), ((11, 0), (3, 0))])
def test_other_errors(routed: Director, family: int, kind4: tuple[int, int], kind6: tuple[int, int]) -> None:
    asked = begin(routed, family, family)
    inner = replace(asked, ttl=63).packet()
    kind = kind4 if family == 4 else kind6
    sent = error(ROUTER[family], DIP[family], *kind, 0, outer(family, inner))
    want = icmp_error(VIP[family], CLIENT[family], *kind, 0, inner[: QUOTED[family]])
    assert routed.run(link(sent)) == (XDP_REDIRECT, ethernet(want, ROUTER_MAC, OUTSIDE_MAC))


@families
def test_a_quotation_cut_short(routed: Director, family: int) -> None:
    """What the client gets quoted is what the router quoted of it."""
    asked = begin(routed, family, family)
    inner = replace(asked, ttl=63).packet()
    header = {4: 20, 6: 40}[family]
    short = outer(family, inner)[: 2 * header + 8]
    room = 1500 - 20 if family == 4 else 1380 - 40
    sent = error(ROUTER[family], DIP[family], *TOO_BIG[family], 1380, short)
    want = icmp_error(VIP[family], CLIENT[family], *TOO_BIG[family], room, inner[: header + 8])
    assert routed.run(link(sent)) == (XDP_REDIRECT, ethernet(want, ROUTER_MAC, OUTSIDE_MAC))


@families
def test_strangers_tunnels(director: Director, family: int) -> None:
    """To another end, of another connection, or no tunnel at all: the kernel's."""
    asked = begin(director, family, family)
    inner = replace(asked, ttl=63).packet()
    elsewhere = ip(DIP[family], RIP[family] + "1", INSIDE[family], inner)
    unknown = outer(family, replace(asked, sport=40001).packet())
    for quote in (elsewhere, unknown, outer(family, inner)[:30], outer(family, inner, 47)):
        frame = link(error(ROUTER[family], DIP[family], *TOO_BIG[family], 1380, quote))
        assert director.run(frame) == (XDP_PASS, frame)
    assert list(libbpf.keys(director.tables.fd("path_mtus"), 16)) == []


@families
def test_a_wrong_checksum_tells_nobody(director: Director, family: int) -> None:
    asked = begin(director, family, family)
    quote = outer(family, replace(asked, ttl=63).packet())
    frame = bytearray(link(error(ROUTER[family], DIP[family], *TOO_BIG[family], 1380, quote)))
    frame[-1] ^= 1
    assert director.run(bytes(frame))[0] == XDP_DROP
    assert director.counted() == {"drop_icmp_checksum": 1}
    assert list(libbpf.keys(director.tables.fd("path_mtus"), 16)) == []


def test_the_next_packet_sees_what_was_learnt(routed: Director) -> None:
    """A next hop that was believed is asked for again."""
    asked = begin(routed, 4, 4)
    inner = replace(asked, ttl=63).packet()
    before = routed.tables.dest_row(0).hop.checked
    routed.run(link(error(ROUTER[4], DIP[4], 3, 4, 1380, outer(4, inner))))
    assert (before - routed.tables.dest_row(0).hop.checked) & 0xFFFFFFFF > 0x10000000
    assert routed.counted() == {"told_client": 1}
