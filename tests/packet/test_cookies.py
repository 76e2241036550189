"""SYN cookies: what they carry, and for whom they are good."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.cookies import SIZES, Offer, cookie_for, counter
from tests.packet.director import XDP_DROP, Director
from tests.packet.frames import Datagram, checksum
from tests.packet.handshake import (
    CLIENT,
    KEY,
    RIP,
    Seen,
    ack_of,
    cookie_of,
    opened,
    read,
    server_says,
    service_of,
    syn,
)
from xlvs.dataplane import libbpf

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])


@families
@pytest.mark.parametrize("tags", [(), (7,), (100, 7)], ids=["plain", "vlan", "qinq"])
@pytest.mark.parametrize("sum", ["whole", "partial"])
def test_a_syn_is_answered_in_place(director: Director, family: int, tags: tuple[int, ...], sum: str) -> None:
    service_of(director, family)
    offer = Offer(1460, 7, True)
    answer = cookie_of(director, syn(family, tags=tags, sum=sum, tcp_options=offer.options()))
    mss = 1460 if family == 4 else 1440
    assert answer.options == struct.pack("!HH", 0x0204, mss) + bytes.fromhex("01030307") + bytes.fromhex(
        "01010402"
    )
    assert answer.window == 0
    assert not director.connections()


@families
@pytest.mark.parametrize("port", [80, 443])
def test_a_cookie_is_good_for_the_clients_own_number_only(director: Director, family: int, port: int) -> None:
    """Whatever the port: one whose second byte is above 127 once left the number out of the hash."""
    service_of(director, family, port=port)
    datagram = syn(family, dport=port)
    answer = cookie_of(director, datagram)
    other = replace(datagram, sequence=datagram.sequence + 100_000)
    director.run(ack_of(other, answer).frame())
    assert director.counted() == {"pass_cookie": 1}
    director.exchange(ack_of(datagram, answer).frame())
    assert director.counted() == {"forwarded": 1}


@families
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mss=st.integers(1, 65535) | st.sampled_from([0, 535, 536, 1219, 1220, 1440, 1459, 1460]),
    scale=st.none() | st.integers(0, 255),
    sack=st.booleans(),
    stamps=st.booleans(),
    isn=st.integers(0, 0xFFFFFFFF),
    port=st.integers(1, 65535).filter(lambda port: port != 20),
)
def test_cookies_carry_what_the_client_offered(
    director: Director,
    family: int,
    mss: int,
    scale: int | None,
    sack: bool,
    stamps: bool,
    isn: int,
    port: int,
) -> None:
    director.reset()
    service_of(director, family)
    offer = Offer(mss, scale, sack)
    datagram = syn(family, sequence=isn, sport=port, tcp_options=offer.options(stamps))
    first = counter(director)
    answer, asked = opened(director, datagram)
    expected = offer.within(family)
    periods = {first, counter(director)}
    assert answer.sequence in {cookie_for(KEY, datagram, expected, period) for period in periods}
    told = None if expected.scale is None else 7
    assert Offer.read(answer.options) == Offer(1460 if family == 4 else 1440, told, sack)
    assert Offer.read(asked.options) == expected
    assert (asked.sequence, asked.flags) == (isn, 0x02)
    ends = (asked.source, asked.target, asked.sport, asked.dport)
    assert ends == (CLIENT[family], RIP[family], port, 80)


@families
def test_only_cookies_of_now_and_just_before_are_good(director: Director, family: int) -> None:
    service_of(director, family)
    for age, good in ((0, True), (1, True), (2, False), (3, False), (-1, False), (1 << 20, False)):
        director.forget_connections()
        datagram = syn(family, sport=41000 + abs(age) % 1000)
        # The period may end while the test runs: then everything is one older.
        for _ in range(2):
            before = counter(director)
            director.counted()
            cookie = cookie_for(KEY, datagram, Offer(SIZES[family][3], 4, True), before - age)
            answer = replace(read_answer(datagram), sequence=cookie)
            director.run(ack_of(datagram, answer).frame())
            counted = director.counted()
            if counter(director) == before:
                break
        assert counted == ({"forwarded": 1} if good else {"pass_cookie": 1}), age
        assert len(director.connections()) == good


def read_answer(datagram: Datagram) -> Seen:
    return Seen(datagram.target, datagram.source, 80, datagram.sport, 0, 0, 0x12, 0, b"", b"", (b"", b""), ())


@families
def test_cookies_are_good_for_one_attempt_alone(director: Director, family: int) -> None:
    service_of(director, family)
    datagram = syn(family, tcp_options=Offer(1400, 4, True).options())
    answer = cookie_of(director, datagram)
    other = "198.18.0.2" if family == 4 else "fd18::2"
    right = ack_of(datagram, answer)
    wrong = [
        replace(right, source=other),
        replace(right, sport=40001),
        replace(right, sequence=datagram.sequence + 2),
        *(replace(right, acknowledged=(answer.sequence ^ 1 << bit) + 1 & 0xFFFFFFFF) for bit in range(32)),
        replace(right, flags="SA"),
        replace(right, flags="F"),
    ]
    for forged in wrong:
        director.run(forged.frame())
    assert director.counted() == {"pass_cookie": len(wrong)}
    director.run(replace(right, flags="RA").frame())
    assert director.counted() == {"pass_no_connection": 1}
    assert not director.connections()
    director.tables.settings.sysctl.tcp_drop_entry = 1
    for forged in wrong:
        assert director.run(forged.frame())[0] == XDP_DROP
    assert director.counted() == {"drop_cookie": len(wrong)}
    director.exchange(right.frame())
    assert len(director.connections()) == 1


def test_another_key_makes_other_cookies(director: Director) -> None:
    service_of(director)
    answer = cookie_of(director, syn())
    for number in range(4):
        key = list(KEY)
        key[number] ^= 1
        director.tables.settings.cookie_key[:] = key
        director.run(ack_of(syn(), answer).frame())
        assert director.counted() == {"pass_cookie": 1}


def test_the_ack_lost_a_probe_of_the_closed_window_will_do(director: Director) -> None:
    service_of(director)
    answer = cookie_of(director, syn())
    probe = ack_of(syn(), answer, sequence=5000)  # one below, as Linux does
    _, frame = director.exchange(probe.frame())
    assert read(frame).sequence == 5000
    director.forget_connections()
    director.exchange(ack_of(syn(), answer, payload=b"x").frame())  # as others do
    assert len(director.connections()) == 1


def test_a_hundred_thousand_random_syns_leave_nothing_behind(director: Director) -> None:
    service_of(director)
    rng = random.Random(4)
    before = (director.index_size(), list(director.live_slots()))
    packed = bytearray(syn(tcp_options=Offer(1460, 7, True).options()).frame())
    entry = director.plane.program_fd("xlvs_known")
    for _ in range(100_000):
        packed[26:30], packed[34:36] = rng.randbytes(4), rng.randbytes(2)
        packed[38:42] = rng.randbytes(4)
        packed[24:26] = b"\0\0"
        packed[24:26] = checksum(bytes(packed[14:34])).to_bytes(2, "big")
        libbpf.test_run(entry, bytes(packed))
    counted = director.counted()
    assert counted.pop("cookie_sent") > 99_000
    assert set(counted) <= {"pass_no_connection", "forwarded"}  # from port 20: FTP's data
    assert (director.index_size(), list(director.live_slots())) == before


@families
def test_frames_too_short_or_too_long_for_the_answer(director: Director, family: int) -> None:
    service_of(director, family)
    for payload in (b"", b"fast open" * 100):
        answer = cookie_of(director, syn(family, payload=payload))
        assert answer.payload == b""
    if family == 4:
        assert cookie_of(director, syn(options=b"\x01" * 40)).acknowledged == 5001


@pytest.mark.parametrize(
    "options",
    ["0204", "020405b4", "02ff", "0200", "0301", "030a", "fe", "01010101", "00ffffff", "0402020405b403030e"],
)
def test_malformed_options_offer_nothing_more(director: Director, options: str) -> None:
    service_of(director)
    raw = bytes.fromhex(options)
    raw += b"\x01" * (-len(raw) % 4)
    answer = cookie_of(director, syn(tcp_options=raw))
    _, frame = director.exchange(ack_of(syn(), answer).frame())
    assert Offer.read(read(frame).options) == Offer.read(raw).within(4)


def test_sysctls_say_what_clients_are_told(director: Director) -> None:
    service_of(director)
    sysctl = director.tables.settings.sysctl
    offer = Offer(1460, 9, True).options()
    sysctl.synproxy_mss, sysctl.synproxy_wscale, sysctl.synproxy_sack = 1234, 3, 0
    answer = cookie_of(director, syn(tcp_options=offer))
    assert Offer.read(answer.options) == Offer(1234, 3, False)
    _, frame = director.exchange(ack_of(syn(), answer).frame())
    assert Offer.read(read(frame).options) == Offer(1460, 9, False)
    sysctl.synproxy_wscale = 0
    assert Offer.read(cookie_of(director, syn(sport=2, tcp_options=offer)).options).scale == 0


@families
def test_toa_takes_its_room(director: Director, family: int) -> None:
    row = service_of(director, family)
    row.client_address = 1
    told = Offer.read(cookie_of(director, syn(family)).options).mss
    assert told == (1452 if family == 4 else 1420)


def test_clients_are_told_what_the_servers_said(director: Director) -> None:
    row = service_of(director)
    offer = Offer(1460, 7, True).options()
    _, asked = opened(director, syn(tcp_options=offer))
    director.run(server_says(asked, tcp_options=Offer(1360, 9, True).options()).frame())
    assert Offer.read(cookie_of(director, syn(sport=2, tcp_options=offer)).options) == Offer(1360, 9, True)
    first = cookie_of(director, syn(sport=3, tcp_options=offer))
    # Another offer is believed only when nobody has an older one than the last any more.
    _, asked = opened(director, syn(sport=4, tcp_options=offer))
    director.run(server_says(asked, tcp_options=Offer(1400, None, False).options()).frame())
    assert Offer.read(cookie_of(director, syn(sport=2, tcp_options=offer)).options) == Offer(1360, 9, True)
    row.offer_changed -= 141 * director.tables.settings.hz
    _, asked = opened(director, syn(sport=5, tcp_options=offer))
    director.run(server_says(asked, tcp_options=Offer(1400, None, False).options()).frame())
    assert Offer.read(cookie_of(director, syn(sport=2, tcp_options=offer)).options) == Offer(
        1400, None, False
    )
    director.exchange(ack_of(syn(sport=3), first).frame())
    conn = next(conn for conn in director.connections() if conn.cport == struct.unpack("<H", b"\0\3")[0])
    assert conn.older >> 24 & 15 == 9  # as this client was told
