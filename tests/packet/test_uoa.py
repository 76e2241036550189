"""UDP under FULLNAT: the client's address in an option of the IP header, and forged ones gone."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import UDP, Datagram, ethernet, ip, sums_are_right
from tests.packet.fullnat import CLIENT, LIP, PORT, RIP, VIP, answer, inward, outward, pool
from tests.packet.pieces import cut
from xlvs.dataplane import layout, libbpf
from xlvs.model import ClientAddress, Forward, Service, ServiceFlag, ServiceKey

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
FIRST = 4  # datagrams that tell whatever becomes of them (UOA_FIRST in bpf/uoa.h)
NUMBER, NOBODY = 31, 30
NOP, TIMESTAMP, OPTIONS = 1, 68, 60  # an IPv4 option's number, and a header's


def serve(
    director: Director,
    family: int,
    told: ClientAddress = ClientAddress.TOA,
    method: Forward = Forward.FULLNAT,
    flags: ServiceFlag = ServiceFlag(0),
) -> None:
    key = ServiceKey(2 if family == 4 else 10, UDP, ip_address(VIP[family]).packed, 80)
    mask = 0xFFFFFFFF if family == 4 else 128
    service = Service(key, "rr", flags, netmask=mask, client_address=told)
    director.define(service, [Server(RIP[family], PORT, method)])
    if method == Forward.FULLNAT:
        pool(director, key, LIP[family])
    director.tables.settings.scan_chunk = 0  # an earlier test's timer may still run


def request(family: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family]), **fields)  # type: ignore[arg-type]


def only(director: Director) -> layout.ConnRow:
    (conn,) = director.connections()
    return conn


def option(address: str, port: int) -> bytes:
    """Of an IPv4 header."""
    packed = ip_address(address).packed
    return struct.pack("!BBH", NUMBER, 4 + len(packed), port) + packed


def header(address: str, port: int, number: int = NUMBER) -> bytes:
    """A whole header of IPv6's destination options with it."""
    packed = ip_address(address).packed
    body = struct.pack("!BBH", number, 2 + len(packed), port) + packed
    body += b"\1\0"
    return bytes((UDP, (2 + len(body)) // 8 - 1)) + body


def with_headers(datagram: Datagram, headers: bytes) -> bytes:
    """An IPv6 packet with such headers, each a destination options header, before its datagram."""
    following = OPTIONS if headers else UDP
    body = headers + datagram.segment()
    return ip(datagram.source, datagram.target, following, body, ttl=datagram.ttl, tos=datagram.tos)


def told(asked: Datagram, there: Datagram) -> bytes:
    """The frame that the real server must get where it is told."""
    if there.target == RIP[4]:
        return replace(there, options=there.options + option(asked.source, asked.sport)).frame()
    packet = with_headers(there, header(asked.source, asked.sport))
    return ethernet(packet, there.target_mac, there.source_mac)


@families
@pytest.mark.parametrize("sums", ["whole", "partial"])
@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("size", [0, 1, 512, 1448])
def test_the_first_datagrams_tell(
    director: Director, family: int, sums: str, tags: tuple[int, ...], size: int
) -> None:
    serve(director, family)
    for number in range(FIRST + 2):
        asked = request(family, sum=sums, tags=tags, payload=bytes([number]) * (size - 40 * (family == 6)))
        verdict, after = director.run(asked.frame())
        there = inward(asked, only(director))
        want = told(asked, there) if number < FIRST else there.frame()
        assert (verdict, after) == (XDP_REDIRECT, want)
        assert sums_are_right(after[14:]) or family == 6
    assert director.counted() == {"forwarded": FIRST + 2}
    assert not only(director).flags & layout.CONN_OPENING


@families
def test_an_answer_ends_it_and_time_begins_it_again(director: Director, family: int) -> None:
    serve(director, family)
    asked = request(family)
    assert director.exchange(asked.frame())[1] == told(asked, inward(asked, only(director)))
    conn = only(director)
    said = answer(inward(asked, conn))
    assert director.exchange(said.frame())[1] == outward(said, asked, conn).frame()
    for _ in range(3):
        assert director.exchange(asked.frame())[1] == inward(asked, conn).frame()
    for _ in range(3):
        sweep(director)
        assert director.exchange(asked.frame())[1] == told(asked, inward(asked, conn))
        director.exchange(said.frame())
        assert director.exchange(asked.frame())[1] == inward(asked, conn).frame()


def sweep(director: Director) -> None:
    """What the timer does about each second to connections that are used."""
    conn = only(director)
    assert conn.flags & layout.CONN_TOA
    conn.flags |= layout.CONN_OPENING


@families
def test_the_longest_that_fits(director: Director, family: int) -> None:
    """One byte more than there is room for goes without, and is counted."""
    serve(director, family)
    most = 1500 - (28 + 8 if family == 4 else 48 + 24)
    for size, fits in ((most, True), (most + 1, False), (1500 - (28 if family == 4 else 48), False)):
        asked = request(family, payload=bytes(size))
        after = director.exchange(asked.frame())[1]
        there = inward(asked, only(director))
        assert after == (told(asked, there) if fits else there.frame())
        assert director.counted() == {"forwarded": 1} | ({} if fits else {"toa_left_out": 1})


@families
def test_where_the_way_is_not_known_yet(director: Director, family: int) -> None:
    """The neighbour is not resolved: what fits any network is told, and goes to the companion."""
    serve(director, family)
    director.inside.flags, director.inside.mtu = 1, 0  # XLVS_HOP_COMPANION_NEIGHBOUR
    most = 1280 - (28 + 8 if family == 4 else 48 + 24)
    for size, fits in ((most, True), (most + 1, False)):
        asked = request(family, payload=bytes(size))
        for _ in range(1000):  # such an answer is believed within its jiffy only
            director.forget_connections()
            verdict, after = director.run(asked.frame())
            if verdict == XDP_PASS:
                break
        there = inward(asked, only(director))
        want = told(asked, there) if fits else there.frame()
        ready = 24  # bytes of struct xlvs_ready in front
        assert (verdict, after[ready + 14 :]) == (XDP_PASS, want[14:])


@pytest.mark.parametrize("size", [4, 32, 36, 40])
def test_beside_other_options(director: Director, size: int) -> None:
    serve(director, 4)
    there_are = bytes((TIMESTAMP, size, 5, 0)) + bytes(size - 4)
    asked = request(4, options=there_are)
    after = director.exchange(asked.frame())[1]
    there = inward(asked, only(director))
    assert after == (told(asked, there) if size + 8 <= 40 else there.frame())
    assert sums_are_right(after[14:])


@pytest.mark.parametrize(
    "methods", [(ClientAddress.NONE, Forward.FULLNAT), (ClientAddress.TOA, Forward.MASQ)], ids=["none", "nat"]
)
@families
def test_nobody_is_told(director: Director, family: int, methods: tuple[ClientAddress, Forward]) -> None:
    chosen, method = methods
    serve(director, family, chosen, method)
    for _ in range(3):
        after = director.exchange(request(family).frame())[1]
        assert after[14:][6 if family == 6 else 0] == (UDP if family == 6 else 0x45)
    assert not only(director).flags & (layout.CONN_OPENING | layout.CONN_TOA)


CLAIM = option("192.0.2.66", 666)


@pytest.mark.parametrize("chosen", [ClientAddress.NONE, ClientAddress.TOA])
@pytest.mark.parametrize(
    ("options", "left"),
    [
        (CLAIM, bytes((NOP,)) * 8),
        (bytes((NOP,)) * 32 + CLAIM, bytes((NOP,)) * 40),
        (bytes((130, 4, 0, 0)) + CLAIM, bytes((130, 4, 0, 0)) + bytes((NOP,)) * 8),
        (CLAIM + CLAIM, bytes((NOP,)) * 16),
        (option("2001:db8::66", 666), bytes((NOP,)) * 20),
        (bytes((NUMBER, 4, 9, 9)), bytes((NOP,)) * 4),
        # Behind what every receiver stops at, nobody reads it; nor this whole packet.
        (bytes((0, 0, 0, 0)) + CLAIM, bytes((0, 0, 0, 0)) + CLAIM),
        (bytes((NUMBER, 1, 0, 0)), bytes((NUMBER, 1, 0, 0))),
        (bytes((NUMBER, 40, 0, 0)), bytes((NUMBER, 40, 0, 0))),
    ],
)
def test_claims_of_clients_go_no_further(
    director: Director, chosen: ClientAddress, options: bytes, left: bytes
) -> None:
    """In the first datagram and later; what is not ours stays."""
    serve(director, 4, chosen)
    for number in range(FIRST + 2):
        asked = request(4, options=options)
        after = director.exchange(asked.frame())[1]
        there = replace(inward(asked, only(director)), options=left)
        tells = chosen == ClientAddress.TOA and number < FIRST and len(left) <= 32
        assert after == (told(asked, there) if tells else there.frame())
        assert sums_are_right(after[14:])


@pytest.mark.parametrize("chosen", [ClientAddress.NONE, ClientAddress.TOA])
@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (header("2001:db8::66", 666), header("2001:db8::66", 666, NOBODY)),
        (
            bytes((OPTIONS, 0, 1, 4)) + bytes(4) + header("2001:db8::66", 666),
            bytes((OPTIONS, 0, 1, 4)) + bytes(4) + header("2001:db8::66", 666, NOBODY),
        ),
        (
            bytes((UDP, 1, 0, NUMBER, 6)) + bytes(6) + bytes((0, NUMBER, 0, 0, 0)),
            bytes((UDP, 1, 0, NOBODY, 6)) + bytes(6) + bytes((0, NOBODY, 0, 0, 0)),
        ),
        (bytes((UDP, 0, 5, 2, 0, 0, 0, 0)), bytes((UDP, 0, 5, 2, 0, 0, 0, 0))),
    ],
    ids=["alone", "in the second header", "twice, padded", "another's"],
)
def test_claims_in_destination_options(
    director: Director, chosen: ClientAddress, headers: bytes, left: bytes
) -> None:
    serve(director, 6, chosen)
    for _ in range(FIRST + 2):
        asked = request(6)
        frame = ethernet(with_headers(asked, headers), asked.target_mac, asked.source_mac)
        after = director.exchange(frame)[1]
        there = inward(asked, only(director))
        assert after == ethernet(with_headers(there, left), there.target_mac, there.source_mac)


@pytest.mark.parametrize("chosen", [ClientAddress.NONE, ClientAddress.TOA])
def test_claims_in_fragments(director: Director, chosen: ClientAddress) -> None:
    serve(director, 4, chosen)
    asked = request(4, payload=bytes(range(256)) * 8, options=CLAIM, fragment=0)
    pieces = [
        director.exchange(ethernet(piece, asked.target_mac, asked.source_mac))[1][14:]
        for piece in cut(asked.packet(), 800, 800)
    ]
    assert pieces[0][20:28] == bytes((NOP,)) * 8
    assert all(sums_are_right(piece) or piece for piece in pieces)
    asked = request(4)
    director.exchange(asked.frame())


def test_one_packet_scheduling_tells_and_strips_too(director: Director) -> None:
    serve(director, 4, flags=ServiceFlag.ONEPACKET)
    asked = request(4, options=CLAIM)
    after = director.exchange(asked.frame())[1]
    conn = next(iter(director.connections()))
    assert after == told(asked, replace(inward(asked, conn), options=bytes((NOP,)) * 8))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.sampled_from([4, 6]), st.booleans())
def test_hostile_headers(director: Director, options: bytes, family: int, twice: bool) -> None:
    """Whatever stands there, no option of ours that a receiver would read comes through but our own."""
    director.reset()
    serve(director, family)
    asked = request(family)
    if family == 4:
        options += bytes(-len(options) % 4)
        frame = replace(asked, options=options).frame()
    else:
        options = bytes((UDP, 0)) + options
        options += bytes(-len(options) % 8)
        options = bytes((UDP, len(options) // 8 - 1)) + options[2:]
        frame = ethernet(with_headers(asked, options), asked.target_mac, asked.source_mac)
    for _ in range(1 + twice):
        verdict, after = director.run(frame)
        if verdict != XDP_REDIRECT:
            assert director.counted() in ({"drop_malformed": 1}, {"not_ours": 1}, {"pass_extension": 1})
            continue
        director.counted()
        packet = after[14:]
        found = claims4(packet[20 : (packet[0] & 15) * 4]) if family == 4 else claims6(packet[40:])
        mine = option(asked.source, asked.sport)
        assert found in ([], [mine[2:]]) if family == 4 else found == []
        if family == 4:
            assert sums_are_right(packet)


def claims4(options: bytes) -> list[bytes]:
    """What a receiver reads there, up to where it would stop."""
    found, at = [], 0
    while at < len(options) and options[at]:
        if options[at] == NOP:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            break
        if options[at] == NUMBER:
            found.append(options[at + 2 : at + options[at + 1]])
        at += options[at + 1]
    return found


def claims6(headers: bytes) -> list[bytes]:
    """The same in one destination options header."""
    options, found, at = headers[2 : 8 + headers[1] * 8], [], 0
    while at < len(options):
        if not options[at]:
            at += 1
            continue
        if at + 1 >= len(options) or at + 2 + options[at + 1] > len(options):
            break
        if options[at] == NUMBER:
            found.append(options[at + 2 : at + 2 + options[at + 1]])
        at += 2 + options[at + 1]
    return found


def test_the_timer_asks_for_it_again(director: Director) -> None:
    """Connections that were used lately, of UDP, whose server is told."""
    serve(director, 4)
    asked = request(4)
    for _ in range(FIRST + 1):
        director.exchange(asked.frame())
    assert not only(director).flags & layout.CONN_OPENING
    director.tables.settings.scan_chunk = director.slots
    assert libbpf.test_run(director.plane.program_fd("xlvs_arm"), bytes(64))[0] == 0
    deadline = time.monotonic() + 60
    while not only(director).flags & layout.CONN_OPENING and time.monotonic() < deadline:
        time.sleep(0.01)
    director.tables.settings.flags |= layout.MIGRATING  # keep the timer's hands off the next test
    assert director.exchange(asked.frame())[1] == told(asked, inward(asked, only(director)))
