"""Fragments: all follow the first of their datagram; and IPv6 packets behind extension headers."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    Director,
    Server,
)
from tests.packet.frames import (
    CLIENT_MAC,
    DIRECTOR_MAC,
    ICMP,
    IP_IN_IP,
    TCP,
    UDP,
    Datagram,
    ethernet,
    icmp_error,
    ip,
    sums_are_right,
)
from tests.packet.pieces import cut, join
from xlvs.dataplane import layout, layout_events, libbpf
from xlvs.dataplane.events import Event, parse
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
PORT = 8080
LONG = bytes(range(256)) * 16

families = pytest.mark.parametrize("family", [4, 6])
methods = pytest.mark.parametrize("method", [Forward.MASQ, Forward.ROUTE, Forward.TUNNEL])


def serve(director: Director, family: int, method: Forward = Forward.MASQ, protocol: int = UDP) -> None:
    director.service(
        VIP[family], protocol, [Server(RIP[family], PORT if method == Forward.MASQ else 80, method)]
    )


def request(family: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], payload=LONG, fragment=0), **fields)  # type: ignore[arg-type]


def link(packet: bytes, tags: tuple[int, ...] = ()) -> bytes:
    return ethernet(packet, DIRECTOR_MAC, CLIENT_MAC, tags)


def frames_of(datagram: Datagram, *sizes: int, identity: int = 77) -> list[bytes]:
    return [link(piece, datagram.tags) for piece in cut(datagram.packet(), *sizes, identity=identity)]


def same(packet: bytes) -> bytes:
    """Without what putting together does not keep: IPv4's identification and header checksum."""
    return packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:] if packet[0] >> 4 == 4 else packet


@pytest.fixture
def helper(director: Director) -> Iterator[libbpf.RingBuffer]:
    """Somebody listens to events."""
    ring = libbpf.RingBuffer(director.tables.fd("events"))
    ring.poll(0)
    director.tables.settings.helper_seen = director.now()
    yield ring
    ring.close()


def events(ring: libbpf.RingBuffer) -> list[Event]:
    return [parse(record) for record in ring.poll(0)]


@families
@pytest.mark.parametrize("tags", [(), (5,)])
@pytest.mark.parametrize("protocol", [UDP, TCP], ids=["udp", "tcp"])
def test_nat_both_ways(director: Director, family: int, tags: tuple[int, ...], protocol: int) -> None:
    serve(director, family, protocol=protocol)
    asked = request(family, tags=tags, protocol=protocol)
    out = [director.exchange(frame)[1] for frame in frames_of(asked, 1400, 1400)]
    assert {frame[:12] for frame in out} == {SERVER_MAC + INSIDE_MAC}
    got = join([frame[14:] for frame in out])
    assert sums_are_right(got)
    want = replace(asked, target=RIP[family], dport=PORT, ttl=63, tags=())
    assert same(got) == same(want.packet())

    said = Datagram(
        RIP[family], CLIENT[family], PORT, 40000, protocol=protocol, flags="SA", payload=LONG, fragment=0
    )
    back = [director.exchange(frame)[1] for frame in frames_of(said, 1352, 1400, identity=1)]
    assert {frame[:12] for frame in back} == {ROUTER_MAC + OUTSIDE_MAC}
    got = join([frame[14:] for frame in back])
    assert sums_are_right(got)
    assert same(got) == same(replace(said, source=VIP[family], sport=80, ttl=63).packet())
    assert director.counted() == {"forwarded": 6}


@families
@methods
def test_datagrams_are_counted_as_one(director: Director, family: int, method: Forward) -> None:
    serve(director, family, method)
    asked = request(family)
    for frame in frames_of(asked, 1400, 1400):
        director.exchange(frame)
    (connection,) = director.connections()
    number = director.dest_number(RIP[family])
    sums = director.tables.counter_sums(layout.ROW_DEST + number)
    assert sums == [1, 1, 0, len(asked.packet()), 0]
    assert director.tables.counter_sums(layout.ROW_SERVICE) == sums
    assert connection.in_packets == 1


@families
def test_direct_routing_changes_the_link_only(director: Director, family: int) -> None:
    serve(director, family, Forward.ROUTE)
    asked = request(family)
    for frame, piece in zip(
        frames_of(asked, 1400, 1400), cut(replace(asked, ttl=63).packet(), 1400, 1400), strict=True
    ):
        assert director.exchange(frame)[1] == ethernet(piece, SERVER_MAC, INSIDE_MAC)


@pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])
def test_each_goes_through_the_tunnel(director: Director, outside: int, inside: int) -> None:
    director.service(VIP[inside], UDP, [Server(RIP[outside], 80, Forward.TUNNEL)])
    asked = request(inside)
    outer = {4: 20, 6: 40}[outside]
    out = []
    for frame in frames_of(asked, 1400, 1400):
        after = director.exchange(frame)[1][14:]
        assert after[9 if outside == 4 else 6] == IP_IN_IP[inside]
        out.append(after[outer:])
    assert same(join(out)) == same(replace(asked, ttl=63).packet())


def test_a_datagram_without_checksum_stays_without(director: Director) -> None:
    serve(director, 4)
    asked = request(4, sum="none")
    out = [director.exchange(frame)[1][14:] for frame in frames_of(asked, 1400, 1400)]
    assert same(join(out)) == same(replace(asked, target=RIP[4], dport=PORT, ttl=63).packet())


@families
def test_later_ones_wait_for_the_first(director: Director, helper: libbpf.RingBuffer, family: int) -> None:
    serve(director, family)
    asked = request(family)
    first, *rest = frames_of(asked, 1000, 1000, 1000, 1000)
    for frame in reversed(rest):
        assert director.run(frame)[0] == XDP_DROP
    assert director.counted() == {"handed_early": 4}
    held = events(helper)
    assert [(each.kind, each.frame) for each in held] == [
        (layout_events.EVENT_EARLY, frame) for frame in rest[::-1]
    ]
    out = [director.exchange(first)[1][14:]]
    (call,) = events(helper)
    assert call.kind == layout_events.EVENT_FIRST
    assert libbpf.lookup(director.tables.fd("datagrams"), call.frame, 20)
    out += [director.exchange(each.frame)[1][14:] for each in held]
    assert same(join(out)) == same(replace(asked, target=RIP[family], dport=PORT, ttl=63).packet())


@families
def test_without_a_helper_they_are_dropped(director: Director, family: int) -> None:
    serve(director, family)
    for frame in frames_of(request(family), 1000)[1:]:
        assert director.run(frame)[0] == XDP_DROP
    assert director.counted() == {"drop_no_helper": 1}


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Limits are for each CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_the_helper_gets_so_many_and_no_more(
    director: Director, helper: libbpf.RingBuffer, one_cpu: None
) -> None:
    serve(director, 4)
    director.tables.settings.hz = 1 << 29  # a "second" that does not end meanwhile
    later = frames_of(request(4, payload=bytes(100)), 96)[1]
    for _ in range(4200):
        director.run(later)
        helper.poll(0)
    assert director.counted() == {"handed_early": 4096, "drop_early_limited": 104}


@families
def test_strangers_fragments_are_the_kernels(
    director: Director, helper: libbpf.RingBuffer, family: int
) -> None:
    """Of addresses that no service has: not held, not touched, whichever comes first."""
    serve(director, family)
    other = {4: "10.80.0.2", 6: "fd80::2"}[family]
    for frame in frames_of(request(family, target=other), 1000, 1000)[::-1]:
        assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {"not_ours": 3}
    assert events(helper) == []


@families
def test_other_ports_of_the_vip_are_the_kernels(
    director: Director, helper: libbpf.RingBuffer, family: int
) -> None:
    serve(director, family)
    first, *rest = frames_of(request(family, dport=81), 1000, 1000)
    assert director.run(rest[1])[0] == XDP_DROP  # nobody can know yet
    for frame in (first, *rest):
        assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {"handed_early": 1, "not_ours": 3}
    assert director.connections() == []


@pytest.mark.parametrize("port", [0, 21])
def test_services_that_stand_in_for_others_want_no_strangers_either(director: Director, port: int) -> None:
    """Beside a service of every port of another address, or of FTP, which may be asked for more."""
    serve(director, 4)
    director.service("10.80.0.9", TCP, [Server(RIP[4], port)], port=port)
    director.counted()
    for frame in frames_of(request(4, dport=54), 1000, 1000):
        assert director.run(frame) == (XDP_PASS, frame)
    assert set(director.counted()) == {"not_ours"}


def test_a_deleted_service_wants_no_fragments(director: Director) -> None:
    key = director.service(VIP[4], UDP, [Server(RIP[4], PORT)])
    other = director.service(VIP[4], UDP, [Server(RIP[4], PORT)], port=53)
    addresses = director.tables.fd("addresses")
    assert len(list(libbpf.keys(addresses, 20))) == 3
    for each in (key, other):
        change = director.transaction()
        change.delete_service(each)
        director.tables.apply(change.changes())
        if each == key:
            assert len(list(libbpf.keys(addresses, 20))) == 3
    assert list(libbpf.keys(addresses, 20)) == []
    frame = frames_of(request(4), 1000)[1]
    assert director.run(frame) == (XDP_PASS, frame)


@families
def test_two_datagrams_do_not_mix(director: Director, family: int) -> None:
    for port, server in ((80, "1"), (81, "2")):
        director.service(VIP[family], UDP, [Server(RIP[family][:-1] + server, PORT)], port=port)
    one, two = request(family), request(family, dport=81, sport=40001)
    frames = zip(frames_of(one, 1400, 1400, identity=1), frames_of(two, 1400, 1400, identity=2), strict=True)
    out: tuple[list[bytes], list[bytes]] = ([], [])
    for pair in frames:
        for number, frame in enumerate(pair):
            out[number].append(director.exchange(frame)[1][14:])
    for server, asked, got in zip("12", (one, two), out, strict=True):
        want = replace(asked, target=RIP[family][:-1] + server, dport=PORT, ttl=63)
        assert same(join(got)) == same(want.packet())


def test_first_fragments_that_differ_spoil_their_datagram(director: Director) -> None:
    for port in (80, 81):
        director.service(VIP[4], UDP, [Server(RIP[4], PORT)], port=port)
    director.tables.settings.hz = 1 << 24  # little time passes
    one, two = (frames_of(request(4, dport=port), 1000) for port in (80, 81))
    director.exchange(one[0])
    director.exchange(one[0])  # repeated on the wire: the same
    assert director.run(two[0])[0] == XDP_DROP
    assert director.run(one[1])[0] == XDP_DROP
    assert director.counted() == {"forwarded": 2, "drop_fragment": 2}


def test_an_identification_comes_round_again(director: Director) -> None:
    for port in (80, 81):
        director.service(VIP[4], UDP, [Server(RIP[4], PORT)], port=port)
    director.tables.settings.hz = 20  # a jiffy is more than a twentieth of such a second
    director.exchange(frames_of(request(4), 1000)[0])
    start = director.now()
    while director.now() == start:
        pass
    for frame in frames_of(request(4, dport=81), 1000):
        director.exchange(frame)


def test_entries_grow_old(director: Director) -> None:
    serve(director, 4)
    first, later = frames_of(request(4), 1000)
    director.exchange(first)
    (key,) = libbpf.keys(director.tables.fd("datagrams"), 40)
    row = layout_events.DatagramRow.from_buffer_copy(
        libbpf.lookup(director.tables.fd("datagrams"), key, 20) or b""
    )
    row.seen = (director.now() - 30 * director.tables.settings.hz) & 0xFFFFFFFF
    libbpf.update(director.tables.fd("datagrams"), key, bytes(row))
    assert director.run(later)[0] == XDP_DROP
    assert director.counted() == {"forwarded": 1, "drop_no_helper": 1}


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (ip(CLIENT[4], VIP[4], UDP, b"", fragment=1), "no data"),
        (ip(CLIENT[4], VIP[4], UDP, bytes(9), fragment=0x2001), "data that is no multiple of eight"),
        (ip(CLIENT[4], VIP[4], UDP, bytes(1000), fragment=0x1FFF), "beyond 65,535 bytes"),
        (ip(CLIENT[4], VIP[4], TCP, bytes(16), fragment=0x2000), "a TCP header in two (RFC 1858)"),
        (ip(CLIENT[4], VIP[4], UDP, b"", fragment=0x2000), "nothing first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_fragments(director: Director, helper: libbpf.RingBuffer, piece: bytes, why: str) -> None:
    serve(director, 4)
    serve(director, 4, protocol=TCP)
    assert director.run(link(piece))[0] == XDP_DROP
    assert director.counted() == {"drop_fragment": 1}
    assert events(helper) == []


def test_tcp_that_opens_nothing_is_the_kernels(director: Director) -> None:
    serve(director, 4, protocol=TCP)
    for frame in frames_of(request(4, protocol=TCP, flags="A"), 1000, 1000):
        assert director.run(frame) == (XDP_PASS, frame)


def test_icmp_errors_in_fragments(director: Director) -> None:
    serve(director, 4)
    director.exchange(request(4, payload=b"x").frame())
    quote = Datagram(VIP[4], CLIENT[4], 80, 40000, payload=bytes(1000), fragment=0).packet()
    error = icmp_error(CLIENT[4], VIP[4], 3, 3, 0, quote)
    out = [director.exchange(link(piece))[1][14:] for piece in cut(error, 400, 400)]
    inner = Datagram(RIP[4], CLIENT[4], PORT, 40000, payload=bytes(1000), fragment=0).packet()
    inner = inner[:26] + quote[26:]  # the quoted UDP checksum stays
    want = icmp_error(CLIENT[4], RIP[4], 3, 3, 0, inner)
    got = join(out)
    assert same(got)[9:] == same(want)[9:]


def test_echoes_in_fragments_are_the_kernels(director: Director) -> None:
    serve(director, 4)
    echo = ip(CLIENT[4], VIP[4], ICMP, b"\x08\x00" + bytes(2000), fragment=0)
    for piece in cut(echo, 1000):
        frame = link(piece)
        assert director.run(frame) == (XDP_PASS, frame)


# -- IPv6's extension headers -----------------------------------------------------------------

PADDING = bytes((1, 4, 0, 0, 0, 0))  # an option that fills eight bytes (RFC 8200, 4.2)
CHAINS = {
    "hop by hop": [0],
    "routing": [43],
    "destination": [60],
    "all": [0, 60, 43, 60],
    "many": [60] * 8,
}


def extended(chain: list[int], asked: Datagram) -> bytes:
    """The packet with extension headers of eight bytes before its transport header."""
    packet = asked.packet()
    content, following = packet[40:], packet[6]
    for header in reversed(chain):
        content = bytes((following, 0)) + PADDING + content
        following = header
    return ip(asked.source, asked.target, following, content, ttl=asked.ttl)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("protocol", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize("kind", ["whole", "partial"])
@methods
def test_extension_headers(
    director: Director, chain: list[int], protocol: int, kind: str, method: Forward
) -> None:
    serve(director, 6, method, protocol)
    asked = request(6, protocol=protocol, payload=b"payload", sum=kind)
    after = director.exchange(link(extended(chain, asked)))[1][14:]
    want = replace(asked, ttl=63, sum="whole")
    if method == Forward.MASQ:
        want = replace(want, target=RIP[6], dport=PORT)
    assert after[40 if method == Forward.TUNNEL else 0 :] == extended(chain, want)
    assert director.counted() == {"forwarded": 1}
    sums = director.tables.counter_sums(layout.ROW_SERVICE)
    assert sums == [1, 1, 0, len(extended(chain, asked)), 0]


def test_answers_with_extension_headers(director: Director) -> None:
    serve(director, 6)
    director.exchange(request(6, payload=b"x").frame())
    said = Datagram(RIP[6], CLIENT[6], PORT, 40000, payload=b"answer")
    after = director.exchange(link(extended([60], said)))[1][14:]
    assert after == extended([60], replace(said, source=VIP[6], sport=80, ttl=63))


def test_more_extension_headers_than_reason_allows(director: Director) -> None:
    serve(director, 6)
    frame = link(extended([60] * 9, request(6, payload=b"x")))
    assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {"pass_extension": 1}


def test_fragments_behind_extension_headers(director: Director) -> None:
    serve(director, 6)
    asked = request(6)
    pieces = cut(extended([0], asked), 1400, 1400, before=48)
    out = [director.exchange(link(piece))[1][14:] for piece in pieces]
    assert join(out, before=48) == extended([0], replace(asked, target=RIP[6], dport=PORT, ttl=63))


def test_atomic_fragments_are_whole(director: Director) -> None:
    """RFC 6946: alone, whatever others of its identification are around."""
    serve(director, 6)
    asked = request(6, payload=b"alone")
    (piece,) = cut(asked.packet())
    after = director.exchange(link(piece))[1][14:]
    assert after == cut(replace(asked, target=RIP[6], dport=PORT, ttl=63).packet())[0]
    assert list(libbpf.keys(director.tables.fd("datagrams"), 40)) == []


# -- too long for the way on -------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True])
def test_what_may_be_cut_goes_to_the_helper(
    director: Director, helper: libbpf.RingBuffer, later: bool
) -> None:
    """IPv4 without don't-fragment: the parts are counted, not the whole."""
    serve(director, 4)
    frames = frames_of(request(4, payload=bytes(2400)), 1200)
    if later:
        director.exchange(frames[0])
        events(helper)
    before = director.tables.counter_sums(layout.ROW_SERVICE)
    director.inside.mtu = 1000
    assert director.run(frames[later])[0] == XDP_DROP
    (event,) = events(helper)
    assert (event.kind, event.value, event.frame) == (layout_events.EVENT_SPLIT, 1000, frames[later])
    after = director.tables.counter_sums(layout.ROW_SERVICE)
    assert after[1:] == before[1:]
    assert director.counted()["handed_split"] == 1


def test_a_whole_packet_that_may_be_cut(director: Director, helper: libbpf.RingBuffer) -> None:
    serve(director, 4)
    director.inside.mtu = 1000
    frame = request(4, payload=bytes(1200)).frame()
    assert director.run(frame)[0] == XDP_DROP
    (event,) = events(helper)
    assert (event.kind, event.value, event.frame) == (layout_events.EVENT_SPLIT, 1000, frame)
    assert director.tables.counter_sums(layout.ROW_SERVICE) == [1, 0, 0, 0, 0]


def test_tunnels_cut_all_where_pmtu_disc_is_off(director: Director, helper: libbpf.RingBuffer) -> None:
    serve(director, 4, Forward.TUNNEL)
    director.inside.mtu = 1000
    asked = request(4, payload=bytes(1200), fragment=0x4000)
    director.tables.settings.sysctl.pmtu_disc = 1
    assert director.run(asked.frame())[0] == XDP_REDIRECT
    director.tables.settings.sysctl.pmtu_disc = 0
    assert director.run(asked.frame())[0] == XDP_DROP
    assert director.counted() == {"drop_too_big": 1, "handed_split": 1}


def test_without_a_helper_the_sender_is_told(director: Director) -> None:
    serve(director, 4)
    director.inside.mtu = 1000
    verdict, after = director.run(request(4, payload=bytes(1200)).frame())
    assert verdict == XDP_REDIRECT
    assert after[14 + 20 : 14 + 22] == bytes((3, 4))
    assert struct.unpack_from("!H", after, 14 + 26)[0] == 1000
