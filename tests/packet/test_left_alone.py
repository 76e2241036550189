"""What the data plane leaves to the kernel: untouched, and counted as what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, UDP, Datagram, ethernet, ip
from xlvs.dataplane import layout, libbpf

pytestmark = pytest.mark.root
TC_ACT_UNSPEC, TC_ACT_SHOT = 0xFFFFFFFF, 2  # linux/pkt_cls.h

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}


@pytest.fixture
def serving(director: Director) -> Director:
    for family in (4, 6):
        for protocol in (TCP, UDP):
            director.service(VIP[family], protocol, [Server(RIP[family], 8080)])
    return director


def request(family: int, protocol: int = UDP, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def link(packet: bytes, ethertype: int | None = None) -> bytes:
    return ethernet(packet, DIRECTOR_MAC, CLIENT_MAC, (), ethertype)


def passes(director: Director, frame: bytes, outcome: str) -> None:
    assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {outcome: 1}
    assert director.connections() == []


STRANGERS = {
    "other address": request(4, target="10.80.0.2").frame(),
    "other port": request(4, dport=81).frame(),
    "other address 6": request(6, target="fd80::2").frame(),
    "from the service's port": request(4, sport=80, dport=40000).frame(),
    "icmp": link(ip(CLIENT[4], VIP[4], 1, b"\x08\x00\xf7\xff\0\0\0\0")),
    "icmp6": link(ip(CLIENT[6], VIP[6], 58, b"\x80\x00\0\0\0\0\0\0")),
    "sctp": link(ip(CLIENT[4], VIP[4], 132, request(4).segment())),
    "gre": link(ip(CLIENT[4], VIP[4], 47, bytes(20))),
    "arp": link(bytes(28), 0x0806),
    "802.3 length": link(bytes(64), 0x0040),
    "three tags": ethernet(link(request(4).packet())[14:], DIRECTOR_MAC, CLIENT_MAC, (1, 2), 0x8100)
    + bytes(4),
    "ipv4 as ipv6": link(request(4).packet(), 0x86DD),
    "ipv6 as ipv4": link(request(6).packet(), 0x0800),
}


@pytest.mark.parametrize("frame", STRANGERS.values(), ids=STRANGERS)
def test_strangers(serving: Director, frame: bytes) -> None:
    passes(serving, frame, "not_ours")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_cut_off_anywhere(serving: Director, family: int, protocol: int) -> None:
    """Frames that end before they say they do: none is forwarded, none is read beyond its end."""
    whole = request(family, protocol, payload=b"").frame()
    for length in range(14, len(whole)):
        frame = whole[:length]
        assert serving.run(frame) == (XDP_PASS, frame), length
    assert serving.counted() == {"not_ours": len(whole) - 14}
    assert serving.connections() == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("protocol", "header"), [(TCP, 20), (UDP, 8)])
def test_the_ip_header_says_that_the_transport_header_is_cut(
    serving: Director, family: int, protocol: int, header: int
) -> None:
    segment = request(family, protocol, payload=b"").segment()
    for length in range(header):
        frame = link(ip(CLIENT[family], VIP[family], protocol, segment[:length]))
        assert serving.run(frame) == (XDP_PASS, frame), length
    assert serving.connections() == []


@pytest.mark.parametrize("length", [0, 19, 27, 36, 65535])
def test_an_ipv4_length_that_cannot_be(serving: Director, length: int) -> None:
    segment = request(4).segment()
    frame = link(ip(CLIENT[4], VIP[4], UDP, segment, length=length))
    assert serving.run(frame) == (XDP_PASS, frame)
    assert serving.connections() == []


@pytest.mark.parametrize("first", [0x44, 0x40, 0x35, 0x65, 0x4F])
def test_an_ipv4_header_that_cannot_be(serving: Director, first: int) -> None:
    packet = request(4).packet()
    frame = link(bytes([first]) + packet[1:], 0x0800)
    assert serving.run(frame) == (XDP_PASS, frame)
    assert serving.connections() == []


@pytest.mark.parametrize("flags", ["A", "F", "R", "SR", "PA", "FA", "RA", ""])
@pytest.mark.parametrize("family", [4, 6])
def test_tcp_that_opens_nothing(serving: Director, family: int, flags: str) -> None:
    passes(serving, request(family, TCP, flags=flags).frame(), "pass_no_connection")


def test_unknown_tcp_waits_while_tables_are_moved(serving: Director) -> None:
    """Its connection may be on its way from one table to the other: the sender will repeat it."""
    serving.tables.settings.flags |= layout.MIGRATING
    frame = request(4, TCP, flags="A").frame()
    assert serving.run(frame)[0] == XDP_DROP
    assert serving.counted() == {"drop_migrating": 1}


def on_ingress(director: Director, frame: bytes) -> int:
    """The tc companion's verdict on a frame that XDP has not seen."""
    verdict, _, _ = libbpf.test_run(director.plane.program_fd("xlvs_ingress"), frame)
    return verdict


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_ours_waits_while_xdp_is_off(serving: Director, family: int) -> None:
    """A change of mode: the director's own stack must not see, and reset, clients' packets."""
    serving.run(request(family, TCP, flags="S").frame())
    ours = [request(family, TCP, flags="A").frame(), request(family, UDP, sport=7).frame()]
    reply = Datagram(RIP[family], CLIENT[family], 8080, request(family).sport, TCP, flags="A").frame()
    strangers = [STRANGERS["other port"], STRANGERS["other address 6"], STRANGERS["arp"]]
    assert {on_ingress(serving, frame) for frame in [*ours, reply, *strangers]} == {TC_ACT_UNSPEC}
    serving.tables.settings.flags |= layout.HOLD
    assert [on_ingress(serving, frame) for frame in [*ours, reply]] == [TC_ACT_SHOT] * 3
    assert [on_ingress(serving, frame) for frame in strangers] == [TC_ACT_UNSPEC] * 3
    assert serving.counted()["drop_migrating"] == 3
