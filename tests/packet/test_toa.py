"""The client's address in a TCP option: in each segment of the client's until the server has opened."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet import options as tcp
from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, Datagram, ethernet, sums_are_right
from tests.packet.pieces import cut
from tests.packet.test_fragments import extended
from tests.packet.test_nat import CLIENT, INSIDE_PORT, RIP, VIP, answer, inward, outward, request
from xlvs.dataplane import layout, libbpf
from xlvs.model import ClientAddress, Forward, Service, ServiceKey

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
STAMPS = bytes([1, 1, tcp.TIMESTAMPS, 10]) + b"TIMEECHO"
SYN_OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes(8) + b"\x01\x03\x03\x07"
TOA_SIZE = {4: 8, 6: 20}


def serve(director: Director, family: int, port: int = 80) -> None:
    packed = ip_address(VIP[family]).packed
    key = ServiceKey(2 if family == 4 else 10, TCP, packed, port)
    mask = 0xFFFFFFFF if family == 4 else 128
    service = Service(key, scheduler="rr", netmask=mask, client_address=ClientAddress.TOA)
    director.define(service, [Server(RIP[family], INSIDE_PORT, Forward.MASQ)])


def segment(family: int, flags: str = "A", payload: bytes = b"", **fields: object) -> Datagram:
    return request(family, TCP, flags=flags, payload=payload, sequence=1001, **fields)


def told(asked: Datagram) -> Datagram:
    """What the real server gets while the connection is being opened."""
    left = tcp.without(asked.tcp_options, *tcp.CLAIMS)
    return replace(inward(asked), tcp_options=tcp.told(left, tcp.toa(asked.source, asked.sport)))


def begin(director: Director, family: int, **fields: object) -> Datagram:
    """The client's SYN; gives a segment of the server's, to be filled in."""
    asked = request(family, TCP, payload=b"", sequence=1000, tcp_options=SYN_OPTIONS, **fields)
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())
    return replace(answer(inward(asked)), sequence=5000, acknowledged=1001, tcp_options=b"")


@families
@pytest.mark.parametrize("sums", ["whole", "partial"])
@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("options", [b"", STAMPS], ids=["plain", "timestamps"])
def test_each_segment_tells_until_the_server_answers(
    director: Director, family: int, sums: str, tags: tuple[int, ...], options: bytes
) -> None:
    serve(director, family)
    reply = begin(director, family)
    director.exchange(reply.frame())
    for flags, payload in (("A", b""), ("PA", b"GET / HTTP/1.0\r\n\r\n"), ("FA", b"odd"), ("A", bytes(1300))):
        asked = segment(family, flags, payload, sum=sums, tags=tags, tcp_options=options)
        assert director.run(asked.frame()) == (XDP_REDIRECT, told(asked).frame())
    said = replace(reply, flags="A", acknowledged=1002)
    assert director.run(said.frame()) == (XDP_REDIRECT, outward(said).frame())
    asked = segment(family, "PA", b"more", sum=sums, tags=tags, tcp_options=options)
    assert director.run(asked.frame()) == (XDP_REDIRECT, inward(asked).frame())
    assert not director.connections()[0].flags & layout.CONN_OPENING


@families
@pytest.mark.parametrize(
    ("fields", "over"),
    [
        ({"flags": "A", "acknowledged": 1001}, False),
        ({"flags": "A", "acknowledged": 1000}, False),
        ({"flags": "A", "acknowledged": 1002}, True),
        ({"flags": "PA", "acknowledged": 1001, "payload": b"220 hello"}, True),
        ({"flags": "FA", "acknowledged": 1001}, True),
        ({"flags": "SA", "acknowledged": 1001, "payload": b"early"}, False),
        ({"flags": "RA", "acknowledged": 1002}, False),
    ],
    ids=["bare", "challenge", "more", "greeting", "end", "syn with data", "reset"],
)
def test_only_an_opened_server_ends_it(
    director: Director, family: int, fields: dict[str, object], over: bool
) -> None:
    serve(director, family)
    reply = replace(begin(director, family), payload=b"")
    director.exchange(reply.frame())
    director.exchange(replace(reply, **fields).frame())  # type: ignore[arg-type]
    asked = segment(family)
    assert director.exchange(asked.frame())[1] == (inward if over else told)(asked).frame()


@families
def test_a_client_cannot_end_it(director: Director, family: int) -> None:
    """It could then open the connection without its name in it."""
    serve(director, family)
    director.exchange(begin(director, family).frame())
    for sequence, acknowledged in ((1001, 9999), (1001, 5001), (77777, 4000), (0, 0x85001000)):
        director.exchange(segment(family, "PA", b"x", acknowledged=acknowledged).frame())
        last = replace(segment(family), sequence=sequence, acknowledged=5001)
        assert director.exchange(last.frame())[1] == told(last).frame()


@families
def test_syns_and_resets_tell_nothing(director: Director, family: int) -> None:
    serve(director, family)
    begin(director, family)
    asked = request(family, TCP, flags="S", payload=b"", tcp_options=SYN_OPTIONS)
    assert director.exchange(asked.frame())[1] == inward(asked).frame()
    for flags in ("R", "RA"):
        asked = segment(family, flags)
        assert director.exchange(asked.frame())[1] == inward(asked).frame()


@families
def test_data_before_the_name_is_not_asked_for(director: Director, family: int) -> None:
    """TCP Fast Open would give the application the connection with the SYN."""
    serve(director, family)
    cookie = bytes([tcp.FAST_OPEN, 10]) + bytes(range(8)) + b"\x01\x01"
    asked = request(family, TCP, flags="S", payload=b"GET", tcp_options=cookie)
    wanted = replace(inward(asked), tcp_options=b"\x01" * 12)
    assert director.exchange(asked.frame())[1] == wanted.frame()


@families
@pytest.mark.parametrize(
    ("mtu", "said", "heard4", "heard6"),
    [(1500, 1460, 1452, 1420), (1500, 9000, 1452, 1420), (1400, 1460, 1352, 1320), (1500, 536, 528, 516)],
)
def test_clients_leave_room_for_the_option(
    director: Director, family: int, mtu: int, said: int, heard4: int, heard6: int
) -> None:
    serve(director, family)
    director.inside.mtu = mtu
    reply = begin(director, family)
    option = b"\x01\x01\x02\x04" + said.to_bytes(2, "big") + b"\x04\x02"
    reply = replace(reply, tcp_options=option)
    heard = heard4 if family == 4 else heard6
    wanted = replace(outward(reply), tcp_options=option[:4] + heard.to_bytes(2, "big") + option[6:])
    assert director.run(reply.frame()) == (XDP_REDIRECT, wanted.frame())


@families
def test_what_would_be_too_long_goes_without(director: Director, family: int) -> None:
    serve(director, family)
    director.exchange(begin(director, family).frame())
    director.counted()
    room = 1500 - (40 if family == 4 else 60)
    fits = segment(family, "PA", bytes(room - TOA_SIZE[family]))
    assert director.exchange(fits.frame())[1] == told(fits).frame()
    for size in (room - TOA_SIZE[family] + 1, room):
        asked = segment(family, "PA", bytes(size))
        assert director.exchange(asked.frame())[1] == inward(asked).frame()
    assert director.counted() == {"forwarded": 3, "toa_left_out": 2}
    asked = segment(family, "PA", bytes(room + 1))
    _, after = director.run(asked.frame())
    counted = director.counted()
    assert counted == {"drop_too_big": 1, "toa_left_out": 1}
    if family == 4:
        assert after.endswith(replace(asked, ttl=63).packet()[:548])


@families
def test_trains_of_segments_go_without(director: Director, family: int) -> None:
    serve(director, family)
    director.exchange(begin(director, family).frame())
    row = layout.PortRow(flags=layout.PORT_XDP | layout.PORT_GENERIC, mtu=1500)
    libbpf.update(director.tables.fd("ports"), (1).to_bytes(4, "little"), bytes(row))
    asked = segment(family, payload=bytes(3000), sum="partial")
    director.counted()
    verdict, after = director.run(asked.frame())
    assert verdict == XDP_PASS
    assert after.endswith(asked.frame())
    assert director.counted() == {"handed_segments": 1, "toa_left_out": 1}


EDGES = [100, 200, 300, 400, 500, 600, 700, 800]
CROWDED = {
    "three blocks": STAMPS + b"\x01\x01" + tcp.sack(*EDGES[:6]),
    "four blocks": b"\x01\x01" + tcp.sack(*EDGES),
    "multipath": STAMPS + bytes([30, 20]) + bytes(18),
    "multipath without timestamps": bytes([30, 24]) + bytes(22) + b"\x01\x01" + tcp.sack(1, 2),
    "padding": b"\x01" * 30 + STAMPS[2:],
    "timestamps again and again": STAMPS[2:] * 4,
    "long timestamps": bytes([8, 38]) + bytes(36) + b"\x01\x01",
    "claims": b"\xfe\x08" + bytes(6) + STAMPS + tcp.sack(1, 2, 3, 4) + b"\x01\x01",
    "no blocks, longer timestamps": b"\x05\x02" + bytes([8, 19]) + bytes(17 + 3),
    "malformed": b"\x01" * 38 + b"\x1e\x00",
}


@families
@pytest.mark.parametrize("sums", ["whole", "partial"])
@pytest.mark.parametrize("options", CROWDED.values(), ids=CROWDED)
def test_other_options_make_room(director: Director, family: int, options: bytes, sums: str) -> None:
    serve(director, family)
    begin(director, family)
    for payload in (b"", b"text", b"odd"):
        asked = segment(family, payload=payload, tcp_options=options, sum=sums)
        assert director.exchange(asked.frame())[1] == told(asked).frame()


def test_what_stays_when_room_is_short(director: Director) -> None:
    """Byte for byte, once: timestamps always, then as many acknowledged blocks as fit."""
    serve(director, 6)
    begin(director, 6)
    asked = segment(6, tcp_options=STAMPS + b"\x01\x01" + tcp.sack(*EDGES[:6]))
    wanted = tcp.toa(CLIENT[6], 40000) + STAMPS[2:] + tcp.sack(100, 200)
    assert director.exchange(asked.frame())[1] == replace(inward(asked), tcp_options=wanted).frame()


def test_behind_extension_headers(director: Director) -> None:
    serve(director, 6)
    begin(director, 6)
    asked = segment(6, payload=b"text", tcp_options=STAMPS)
    _, after = director.exchange(ethernet(extended([0, 60], asked), DIRECTOR_MAC, CLIENT_MAC))
    assert after[14:] == extended([0, 60], told(asked))


@families
def test_fragments_go_without(director: Director, family: int) -> None:
    serve(director, family)
    begin(director, family)
    director.counted()
    asked = segment(family, "PA", bytes(400), fragment=0)
    for piece, then in zip(cut(asked.packet(), 200), cut(inward(asked).packet(), 200), strict=True):
        assert director.exchange(ethernet(piece, DIRECTOR_MAC, CLIENT_MAC))[1][14:] == then
    assert director.counted() == {"forwarded": 2, "toa_left_out": 1}


def test_another_kind(director: Director) -> None:
    serve(director, 4)
    begin(director, 4)
    director.tables.settings.sysctl.toa_kind = 200
    asked = segment(4, tcp_options=STAMPS)
    wanted = replace(inward(asked), tcp_options=tcp.toa(CLIENT[4], 40000, 200) + STAMPS)
    assert director.exchange(asked.frame())[1] == wanted.frame()


def test_a_last_hop_is_told_of_what_came(director: Director) -> None:
    serve(director, 4)
    begin(director, 4)
    asked = segment(4, ttl=1, tcp_options=STAMPS)
    _, after = director.run(asked.frame())
    assert after.endswith(asked.packet())


def test_the_director_as_server_needs_no_option(director: Director) -> None:
    director.host.local = {ip_address(RIP[4]).packed}
    serve(director, 4)
    for flags in ("S", "A"):
        asked = request(4, TCP, flags=flags)
        verdict, after = director.run(asked.frame())
        assert verdict == XDP_PASS
        assert after == replace(inward(asked), ttl=64, target_mac=DIRECTOR_MAC, source_mac=CLIENT_MAC).frame()


def test_a_connection_that_nobody_saw_begin_is_left_alone(director: Director) -> None:
    director.tables.settings.sysctl.sloppy_tcp = 1
    serve(director, 4)
    asked = segment(4, "PA", b"text", tcp_options=STAMPS)
    assert director.exchange(asked.frame())[1] == inward(asked).frame()


def test_control_connections_of_ftp_tell_too(director: Director) -> None:
    """Their program comes behind, and finds the client's commands and the server's replies."""
    serve(director, 4, 21)
    fields = {"dport": 21, "sequence": 1000}
    asked = request(4, TCP, payload=b"", tcp_options=SYN_OPTIONS, **fields)
    director.exchange(asked.frame())
    reply = replace(answer(inward(asked)), sequence=5000, acknowledged=1001, tcp_options=b"")
    director.exchange(reply.frame())
    asked = replace(segment(4, tcp_options=STAMPS), dport=21)
    assert director.exchange(asked.frame())[1] == told(asked).frame()
    director.exchange(replace(reply, flags="PA", sequence=5001, payload=b"220 hello\r\n").frame())
    asked = replace(segment(4, "PA", b"PASV\r\n"), dport=21)
    assert director.exchange(asked.frame())[1] == inward(asked).frame()
    said = replace(
        reply, flags="PA", sequence=5012, acknowledged=1007, payload=b"227 (10,19,0,11,195,81).\r\n"
    )
    assert b"227 (10,80,0,1,195,81).\r\n" in director.exchange(said.frame())[1]


@families
@pytest.mark.parametrize("options", [STAMPS, SYN_OPTIONS], ids=["plain", "odd"])
def test_a_connection_taken_up_again_tells_again(director: Director, family: int, options: bytes) -> None:
    """conn_reuse_mode 0 leaves the connection in place when the client's port comes again."""
    director.tables.settings.sysctl.conn_reuse_mode = 0
    serve(director, family)
    reply = replace(begin(director, family), payload=b"")
    director.exchange(reply.frame())
    director.exchange(replace(reply, flags="FA").frame())
    director.exchange(replace(reply, flags="R").frame())
    assert not director.connections()[0].flags & layout.CONN_OPENING
    asked = request(family, TCP, payload=b"", sequence=1000, tcp_options=options)
    director.exchange(asked.frame())
    asked = segment(family)
    assert director.exchange(asked.frame())[1] == told(asked).frame()


def test_packets_without_a_connection_stay_out(director: Director) -> None:
    serve(director, 4)
    assert director.run(segment(4).frame())[0] in (XDP_PASS, XDP_DROP)
    assert director.connections() == []


@given(
    tcp.option_areas,
    st.binary(max_size=1200),
    st.sampled_from(["A", "PA", "FA"]),
    st.sampled_from(["whole", "whole", "partial"]),
    st.sampled_from([(), (1,), (2, 3)]),
    st.sampled_from([4, 6]),
    st.integers(1, 65535).filter(lambda port: port != 20),  # which FTP has to itself
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_segment(
    director: Director,
    options: bytes,
    payload: bytes,
    flags: str,
    sums: str,
    tags: tuple[int, ...],
    family: int,
    sport: int,
) -> None:
    director.reset()
    serve(director, family)
    begin(director, family, sport=sport)
    asked = segment(family, flags, payload, tcp_options=options, sum=sums, tags=tags, sport=sport)
    _, after = director.exchange(asked.frame())
    assert after == told(asked).frame()
    assert sums_are_right(after[14:])
    header = 14 + (20 if family == 4 else 40)
    area = after[header + 20 : header + (after[header + 12] >> 4) * 4]
    claims = [area[at : at + size] for kind, at, size in tcp.walk(area) if kind in tcp.CLAIMS]
    assert claims == [tcp.toa(asked.source, sport)]
