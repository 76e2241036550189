"""SYNPROXY: what the first ACK of a cookie sets in motion."""

from __future__ import annotations

import struct
import time

import pytest

from tests.packet.cookies import Offer
from tests.packet.director import XDP_DROP, XDP_PASS, Director, Server
from tests.packet.frames import TCP
from tests.packet.handshake import (
    ALWAYS,
    ANSWER_MAGIC,
    AUTO,
    CLIENT,
    CLOSE,
    ESTABLISHED,
    KEY,
    OFF,
    RIP,
    SYN_SENT,
    VIP,
    ack_of,
    cookie_of,
    half_open,
    opened,
    read,
    row_of,
    server_says,
    service_of,
    syn,
)
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

LONG_SECOND = 100_000  # jiffies: so that no test depends on how fast it runs
families = pytest.mark.parametrize("family", [4, 6])


@families
def test_the_servers_answer_goes_to_the_companion(director: Director, family: int) -> None:
    service_of(director, family)
    answer, asked = opened(director, syn(family, tcp_options=Offer(1460, 7, True).options()))
    (conn,) = director.connections()
    assert conn.state & 0xF == SYN_SENT
    assert half_open(director, family) == 1
    assert director.loads(RIP[family]) == (0, 1)
    said = server_says(asked, tcp_options=Offer(1460, 7, True).options())
    for _ in range(2):  # a repeated one is answered, too
        verdict, frame = director.run(said.frame())
        assert (verdict, director.counted()) == (XDP_PASS, {"handed_answer": 1})
        assert struct.unpack("<I", frame[:4])[0] == ANSWER_MAGIC
        assert frame[4:] == said.frame()
        break
    assert conn.state & 0xF == ESTABLISHED
    assert half_open(director, family) == 0
    assert director.loads(RIP[family]) == (1, 0)
    assert conn.seq_out == conn.seq_before == (answer.sequence - 90000) & 0xFFFFFFFF
    assert not conn.flags & (layout.CONN_OPENING | layout.CONN_SPECIAL)
    assert conn.flags & layout.CONN_SHIFTED
    assert conn.window_shift == 0


@pytest.mark.parametrize(
    ("client", "server", "shift", "special"),
    [
        (7, 7, 0, False),
        (7, 9, 2, True),
        (2, 0, -7, True),
        (7, None, -7, True),
        (None, None, 0, False),
        (0, 7, 0, False),
    ],
)
def test_other_windows_are_noted(
    director: Director, client: int | None, server: int | None, shift: int, special: bool
) -> None:
    service_of(director)
    _, asked = opened(director, syn(tcp_options=Offer(1460, client, True).options()))
    director.run(server_says(asked, tcp_options=Offer(1460, server, True).options()).frame())
    (conn,) = director.connections()
    assert conn.window_shift == shift
    assert bool(conn.flags & layout.CONN_SPECIAL) == special
    assert bool(conn.older & 0x80000000) == (client is not None and server is None and client > 0)


@families
def test_a_server_that_refuses(director: Director, family: int) -> None:
    service_of(director, family)
    answer, asked = opened(director, syn(family))
    stray = server_says(asked, "RA", acknowledged=asked.sequence + 2)
    assert director.run(stray.frame())[0] == XDP_DROP
    assert half_open(director, family) == 1
    director.counted()
    _, frame = director.exchange(server_says(asked, "RA", sequence=0).frame())
    assert director.counted() == {"server_refused": 1}
    reset = read(frame)
    assert (reset.source, reset.sport, reset.target) == (VIP[family], 80, CLIENT[family])
    assert (reset.sequence, reset.acknowledged, reset.flags) == (answer.sequence + 1, 5001, 0x14)
    (conn,) = director.connections()
    assert conn.state & 0xF == CLOSE
    assert half_open(director, family) == 0
    assert director.loads(RIP[family]) == (0, 1)
    cookie_of(director, syn(family))  # which begins anew
    assert not director.connections()
    assert director.loads(RIP[family]) == (0, 0)


def test_the_syn_is_repeated_and_given_up(director: Director) -> None:
    service_of(director)
    hz = director.tables.settings.hz = LONG_SECOND
    answer, first = opened(director, syn(tcp_options=Offer(1400, 3, True).options()))
    (conn,) = director.connections()
    conn.timeout = 0x7FFFFFFF  # the seconds that are taken off below would make it too old for the sweep
    ack = ack_of(syn(), answer).frame()
    director.run(ack)
    assert director.counted() == {"drop_unanswered": 1}  # not more than one a second
    for _ in range(3):  # sysctl synproxy_retries
        conn.seen -= hz
        _, frame = director.exchange(ack)
        assert director.counted() == {"forwarded": 1}
        assert read(frame) == first
        director.run(ack)
        assert director.counted() == {"drop_unanswered": 1}
    conn.seen -= 7 * hz
    director.run(ack)
    assert director.counted() == {"drop_unanswered": 1}
    conn.seen -= hz
    _, frame = director.exchange(ack)
    assert director.counted() == {"server_refused": 1}
    assert read(frame).flags == 0x14
    assert half_open(director) == 0


def test_a_client_that_gives_up_first(director: Director) -> None:
    service_of(director)
    answer, asked = opened(director, syn())
    director.run(ack_of(syn(), answer, flags="R", sequence=9).frame())
    assert director.counted() == {"drop_unanswered": 1}
    _, frame = director.exchange(ack_of(syn(), answer, flags="R").frame())
    reset = read(frame)
    assert (reset.target, reset.flags, reset.sequence) == (RIP[4], 0x04, asked.sequence + 1)
    assert half_open(director) == 0


def test_a_client_that_begins_anew(director: Director) -> None:
    service_of(director)
    opened(director, syn())
    director.run(syn().frame())
    assert director.counted() == {"drop_unanswered": 1}
    cookie_of(director, syn(sequence=777777))
    assert not director.connections()
    assert half_open(director) == 0
    assert director.loads(RIP[4]) == (0, 0)


def test_a_server_with_an_old_connection_is_told(director: Director) -> None:
    service_of(director)
    _, asked = opened(director, syn())
    _, frame = director.exchange(server_says(asked, "A", acknowledged=424242).frame())
    reset = read(frame)
    assert (reset.target, reset.flags, reset.sequence) == (RIP[4], 0x04, 424242)
    assert half_open(director) == 1


def test_half_open_connections_are_limited(director: Director) -> None:
    service_of(director)
    director.tables.settings.sysctl.synproxy_half_open = 3
    cookies = [(syn(sport=port), cookie_of(director, syn(sport=port))) for port in range(1001, 1006)]
    for datagram, answer in cookies:
        director.run(ack_of(datagram, answer).frame())
    assert director.counted() == {"forwarded": 3, "drop_half_open": 2}
    assert half_open(director) == len(director.connections()) == 3
    settings = director.tables.settings
    for conn in director.connections():
        conn.timeout, conn.seen = 0, conn.seen - settings.hz & 0xFFFFFFFF
    settings.tick_ns = 5_000_000
    assert libbpf.test_run(director.plane.program_fd("xlvs_arm"), bytes(64))[0] == 0
    deadline = time.monotonic() + 60
    while director.connections() and time.monotonic() < deadline:
        time.sleep(0.01)
    settings.flags |= layout.MIGRATING  # keep the timer's hands off the next test
    assert half_open(director) == 0
    assert not director.connections()
    assert director.loads(RIP[4]) == (0, 0)


def test_nobody_there_is_said_by_a_reset(director: Director) -> None:
    service_of(director)
    answer = cookie_of(director, syn())
    director.tables.dest_row(0).weight = 0
    row = director.tables.row(
        "members",
        layout.MemberRow,
        director.tables.row("services", layout.ServiceRow, 0).members & 0xFFFFFFFF,
    )
    row.weight = 0
    _, frame = director.exchange(ack_of(syn(), answer).frame())
    assert director.counted() == {"drop_no_destination": 1}
    reset = read(frame)
    assert (reset.target, reset.flags, reset.sequence) == (CLIENT[4], 0x04, answer.sequence + 1)


@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
def test_servers_that_answer_clients_themselves_are_not_asked(director: Director, method: Forward) -> None:
    director.tables.settings.cookie_key[:] = KEY
    row_of(director, director.service(VIP[4], TCP, [Server(RIP[4], 80, method)])).synproxy = ALWAYS
    answer = cookie_of(director, syn())
    _, frame = director.exchange(ack_of(syn(), answer).frame())
    assert read(frame).flags == 0x04
    assert not director.connections()


def test_deferred_until_payload(director: Director) -> None:
    service_of(director)
    director.tables.settings.sysctl.synproxy_defer = 1
    answer = cookie_of(director, syn())
    assert answer.window > 0
    director.run(ack_of(syn(), answer).frame())
    assert director.counted() == {"drop_deferred": 1}
    assert not director.connections()
    _, frame = director.exchange(ack_of(syn(), answer, payload=b"GET / HTTP/1.0\r\n\r\n").frame())
    asked = read(frame)
    assert (asked.flags, asked.payload) == (0x02, b"")
    assert len(director.connections()) == 1
    director.run(ack_of(syn(), answer, payload=b"GET / HTTP/1.0\r\n\r\n").frame())
    assert director.counted() == {"forwarded": 1, "drop_unanswered": 1}  # no helper: the client repeats it


def test_off_and_other_services_see_nothing_of_it(director: Director) -> None:
    service_of(director, mode=OFF)
    director.exchange(syn().frame())
    assert director.counted() == {"forwarded": 1}
    director.reset()
    row_of(director, director.service(VIP[4], TCP, [Server(RIP[4], 21)], port=21)).synproxy = ALWAYS
    director.exchange(syn(dport=21).frame())
    assert len(director.connections()) == 1


def test_at_need_cookies_begin_and_end_with_the_flood(director: Director) -> None:
    row = service_of(director, mode=AUTO)
    settings = director.tables.settings
    settings.hz = LONG_SECOND
    settings.sysctl.synproxy_rate = 20
    ports = iter(range(2000, 60000))
    guarded = 0

    def flood(count: int) -> dict[str, int]:
        """So many SYNs within a second that begins with them."""
        while True:
            row.syns, row.guarded_until = 0, guarded
            director.counted()
            second = director.now() >> 10
            for _ in range(count):
                director.run(syn(sport=next(ports)).frame())
            if director.now() >> 10 == second:
                return director.counted()

    assert flood(19) == {"forwarded": 19}
    assert flood(25) == {"forwarded": 19, "cookie_sent": 6}
    assert 9 * settings.hz < (row.guarded_until - director.now()) & 0xFFFFFFFF <= 10 * settings.hz + 1
    guarded = director.now() + 5 * settings.hz
    assert flood(9) == {"cookie_sent": 9}
    assert row.guarded_until == guarded
    flood(10)  # while they are sent, half as many keep them going
    assert row.guarded_until > guarded
    guarded = director.now() - 1 or 1
    assert flood(19) == {"forwarded": 19}


def test_at_need_cookies_are_good_when_they_are_not_sent_any_more(director: Director) -> None:
    row = service_of(director, mode=AUTO)
    director.tables.settings.hz = LONG_SECOND
    row.guarded_until = director.now() + LONG_SECOND
    answer = cookie_of(director, syn())
    row.guarded_until = 0
    director.exchange(ack_of(syn(), answer).frame())
    director.counted()
    director.run(ack_of(syn(sport=998), answer).frame())  # what is none goes its usual way
    assert director.counted() == {"pass_no_connection": 1}
    director.tables.settings.sysctl.sloppy_tcp = 1
    director.exchange(ack_of(syn(sport=998), answer).frame())
    assert len(director.connections()) == 2
