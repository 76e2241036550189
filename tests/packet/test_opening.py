"""What clients claim in TCP's options goes no further, wherever they put it; all else stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet import options as tcp
from tests.packet.director import XDP_DROP, XDP_REDIRECT, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, Datagram, ethernet, sums_are_right
from tests.packet.pieces import cut
from tests.packet.test_fragments import extended
from tests.packet.test_nat import RIP, VIP, answer, inward, outward, request, serve
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
FORGED = tcp.toa("203.0.113.66", 6666)
LONG = tcp.toa("2001:db8::66", 6666)
OLD = tcp.toa("203.0.113.66", 6666, tcp.TOA_OLD)
STAMPS = bytes([1, 1, tcp.TIMESTAMPS, 10]) + b"TIMEECHO"

LAYOUTS = {
    "alone": FORGED,
    "the old kind": OLD,
    "of IPv6": LONG,
    "behind timestamps": STAMPS + FORGED,
    "before timestamps": FORGED + STAMPS,
    "at an odd place": b"\x01" + FORGED + b"\x01\x01\x01",
    "twice": FORGED + OLD + FORGED,
    "the whole room": FORGED * 5,
    "of length two": b"\xfe\x02\xc8\x02",
    "of forty bytes": b"\xfe\x28" + bytes(38),
    "behind another's bytes that look like it": bytes([30, 8]) + b"\xfe\x06" + bytes(4) + FORGED,
    "timestamps of the wrong size": bytes([1, 1, tcp.TIMESTAMPS, 2]) + FORGED,
}


def stripped(datagram: Datagram) -> Datagram:
    return replace(inward(datagram), tcp_options=tcp.without(datagram.tcp_options, *tcp.CLAIMS))


@families
@pytest.mark.parametrize("flags", ["S", "A", "PA", "FA", "R"])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_claims_become_no_operations(director: Director, family: int, flags: str, options: bytes) -> None:
    serve(director, family, TCP)
    if flags != "S":
        director.exchange(request(family, TCP, payload=b"").frame())
    asked = request(family, TCP, flags=flags, tcp_options=options)
    for sums in ("whole", "partial"):
        sent = replace(asked, sum=sums)
        assert director.run(sent.frame()) == (XDP_REDIRECT, stripped(sent).frame())


MALFORMED = {
    "length zero": b"\xfe\x00\xfe\x08" + bytes(8),
    "length one": b"\xfe\x01\xfe\x08" + bytes(8),
    "beyond the header": b"\x01\x01\xfe\x08" + bytes(4),
    "no length": b"\x01\x01\x01\xfe",
    "behind the end of list": b"\x00\x01\x01\x01" + FORGED,
    "behind an impossible one": b"\x1e\x00\x01\x01" + FORGED,
    "nothing but ends": bytes(40),
}


@families
@pytest.mark.parametrize("options", MALFORMED.values(), ids=MALFORMED)
def test_what_no_receiver_reads_stays(director: Director, family: int, options: bytes) -> None:
    serve(director, family, TCP)
    asked = request(family, TCP, tcp_options=options)
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())


def test_the_operators_kind_goes_too(director: Director) -> None:
    serve(director, 4, TCP)
    asked = request(4, TCP, tcp_options=bytes([77, 8]) + bytes(6) + FORGED + STAMPS)
    assert director.exchange(asked.frame())[1] == stripped(asked).frame()
    director.tables.settings.sysctl.toa_kind = 77
    wanted = replace(inward(asked), tcp_options=b"\x01" * 16 + STAMPS)
    assert director.exchange(asked.frame())[1] == wanted.frame()


@families
def test_servers_may_say_what_they_like(director: Director, family: int) -> None:
    serve(director, family, TCP)
    there = inward(request(family, TCP))
    director.exchange(request(family, TCP).frame())
    reply = answer(there, tcp_options=FORGED + STAMPS)
    assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply).frame())


@families
@pytest.mark.parametrize("tags", [(), (9,), (9, 10)])
def test_tags_and_ip_options(director: Director, family: int, tags: tuple[int, ...]) -> None:
    serve(director, family, TCP)
    more = {"options": b"\x01" * 40} if family == 4 else {}
    asked = request(family, TCP, tcp_options=STAMPS + FORGED, tags=tags, **more)
    assert director.run(asked.frame()) == (XDP_REDIRECT, stripped(asked).frame())


def test_the_server_may_be_the_director(director: Director) -> None:
    """Also with the last TTL, which is no reason to refuse a packet that has arrived."""
    director.host.local = {bytes([10, 19, 0, 11])}
    serve(director, 4, TCP)
    for ttl in (64, 1):
        asked = request(4, TCP, tcp_options=FORGED, ttl=ttl)
        verdict, after = director.run(asked.frame())
        assert verdict == 2
        assert director.counted() == {"local": 1}
        wanted = replace(stripped(asked), ttl=ttl, target_mac=DIRECTOR_MAC, source_mac=CLIENT_MAC)
        assert after == wanted.frame()


@pytest.mark.parametrize("chain", [[0], [60], [43, 60], [0, 60, 60]])
def test_behind_extension_headers(director: Director, chain: list[int]) -> None:
    serve(director, 6, TCP)
    asked = request(6, TCP, tcp_options=STAMPS + FORGED)
    _, after = director.exchange(ethernet(extended(chain, asked), DIRECTOR_MAC, CLIENT_MAC))
    wanted = extended(chain, stripped(asked))
    assert after[14:] == wanted


@families
def test_in_fragments(director: Director, family: int) -> None:
    serve(director, family, TCP)
    asked = request(family, TCP, flags="S", tcp_options=STAMPS + FORGED, payload=bytes(400), fragment=0)
    pieces = cut(asked.packet(), 200)
    wanted = cut(stripped(asked).packet(), 200)
    for piece, then in zip(pieces, wanted, strict=True):
        frame = ethernet(piece, DIRECTOR_MAC, CLIENT_MAC)
        assert director.exchange(frame)[1][14:] == then


@families
def test_a_header_in_two_fragments_goes_no_further(director: Director, family: int) -> None:
    """Options in the second one would come through unread (RFC 1858)."""
    serve(director, family, TCP)
    asked = request(family, TCP, flags="S", tcp_options=STAMPS + FORGED, payload=bytes(400), fragment=0)
    for size in (24, 32):
        director.counted()
        first, second = cut(asked.packet(), size, identity=size)
        assert director.run(ethernet(first, DIRECTOR_MAC, CLIENT_MAC))[0] == XDP_DROP
        assert director.run(ethernet(second, DIRECTOR_MAC, CLIENT_MAC))[0] == XDP_DROP
        assert director.counted() == {"drop_fragment": 2}


@families
def test_fragments_over_the_header_go_no_further(director: Director, family: int) -> None:
    """Put together, they might bring options in that nobody has read (RFC 3128)."""
    serve(director, family, TCP)
    asked = request(family, TCP, flags="S", tcp_options=STAMPS, payload=bytes(400), fragment=0)
    director.exchange(ethernet(cut(asked.packet(), 200)[0], DIRECTOR_MAC, CLIENT_MAC))
    director.counted()
    for offset in (8, 24, 56):
        over = cut(asked.packet(), offset, 16)[1]
        assert director.run(ethernet(over, DIRECTOR_MAC, CLIENT_MAC))[0] == XDP_DROP
    assert director.counted() == {"drop_fragment": 3}
    beyond = cut(asked.packet(), 64, 16)[1]
    assert director.run(ethernet(beyond, DIRECTOR_MAC, CLIENT_MAC))[0] == XDP_REDIRECT


@families
def test_in_control_connections_of_ftp(director: Director, family: int) -> None:
    director.service(VIP[family], TCP, [Server(RIP[family], 21, Forward.MASQ)], port=21)
    for flags, payload in (("S", b""), ("A", b""), ("PA", b"USER me\r\n")):
        asked = request(family, TCP, dport=21, flags=flags, payload=payload, tcp_options=STAMPS + FORGED)
        assert director.exchange(asked.frame())[1] == replace(stripped(asked), dport=21).frame()


def test_in_trains_of_segments(director: Director) -> None:
    """The companion translates those, but cannot look for claims."""
    serve(director, 4, TCP)
    director.exchange(request(4, TCP).frame())
    row = layout.PortRow(flags=layout.PORT_XDP | layout.PORT_GENERIC, mtu=1500)
    libbpf.update(director.tables.fd("ports"), (1).to_bytes(4, "little"), bytes(row))
    asked = request(4, TCP, flags="A", payload=bytes(3000), tcp_options=STAMPS + FORGED, sum="partial")
    verdict, after = director.run(asked.frame())
    assert verdict == 2
    assert director.counted()["handed_segments"] == 1
    wanted = replace(asked, tcp_options=tcp.without(asked.tcp_options, *tcp.CLAIMS))
    assert after[-len(wanted.frame()) :] == wanted.frame()


@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
def test_other_methods_leave_options_alone(director: Director, method: Forward) -> None:
    """There the source is the client itself, whom real servers believe nothing of the kind."""
    director.service(VIP[4], TCP, [Server(RIP[4], 80, method)])
    asked = request(4, TCP, tcp_options=FORGED)
    assert asked.segment() in director.exchange(asked.frame())[1]


def test_a_wrong_checksum_stays_wrong(director: Director) -> None:
    serve(director, 4, TCP)
    frame = bytearray(request(4, TCP, tcp_options=FORGED).frame())
    frame[-1] ^= 1
    assert not sums_are_right(director.exchange(bytes(frame))[1][14:])


def test_headers_of_impossible_length_are_the_servers_to_drop(director: Director) -> None:
    serve(director, 4, TCP)
    asked = request(4, TCP, payload=b"\xfe\x08" * 4)
    for words in (0, 4, 15):
        frame = bytearray(asked.frame())
        frame[46] = words << 4
        _, after = director.exchange(bytes(frame))
        assert after[34 + 20 :] == bytes(frame)[34 + 20 :]
        assert after[46] == words << 4


@given(
    tcp.option_areas,
    st.sampled_from(["S", "A", "PA", "F"]),
    st.sampled_from(["whole", "partial"]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_options(director: Director, options: bytes, flags: str, sums: str, v6: bool) -> None:
    director.reset()
    family = 6 if v6 else 4
    serve(director, family, TCP)
    director.exchange(request(family, TCP).frame())
    asked = request(family, TCP, flags=flags, tcp_options=options, sum=sums)
    _, after = director.exchange(asked.frame())
    assert after == stripped(asked).frame()
    arrived = after[-len(asked.payload) - len(options) : -len(asked.payload)]
    assert not [kind for kind, _, _ in tcp.walk(arrived) if kind in tcp.CLAIMS]
