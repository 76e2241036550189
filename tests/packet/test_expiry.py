"""Time ends connections: both ends of FULLNAT's established ones are to be reset, by the helper."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet.director import Director
from tests.packet.frames import TCP, UDP, Datagram
from tests.packet.fullnat import CLIENT, RIP, VIP, answer, inward, local_of, serve
from xlvs.daemon import resets
from xlvs.dataplane import layout, layout_events, libbpf
from xlvs.dataplane.events import parse

pytestmark = pytest.mark.root
SECONDS = 60  # that the timer may take, on the slowest machine


@pytest.fixture(scope="module")
def _timed() -> Iterator[Director]:
    director = Director(64)
    yield director
    director.close()


@pytest.fixture
def timed(_timed: Director) -> Director:
    """A director of its own, for its timer runs."""
    _timed.reset()
    return _timed


def run_timer(director: Director) -> None:
    director.tables.settings.tick_ns = 5_000_000
    assert libbpf.test_run(director.plane.program_fd("xlvs_arm"), bytes(64))[0] == 0


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def established(director: Director, family: int = 4, protocol: int = TCP) -> tuple[Datagram, layout.ConnRow]:
    """A connection that has spoken both ways; the client's last segment."""
    serve(director, family, protocol)
    asked = Datagram(CLIENT[family], VIP[family], protocol=protocol, payload=b"")
    director.exchange(asked.frame())
    (conn,) = director.connections()
    director.exchange(answer(inward(asked, conn), sequence=76).frame())
    asked = replace(asked, flags="PA", payload=b"question", sequence=1001)
    director.exchange(asked.frame())
    director.exchange(answer(inward(asked, conn), flags="PA", sequence=77, payload=b"answer").frame())
    asked = replace(asked, flags="A", payload=b"", sequence=1009, acknowledged=83)
    director.exchange(asked.frame())
    return asked, conn


@pytest.mark.parametrize("family", [4, 6])
def test_the_helper_hears_of_it(timed: Director, family: int) -> None:
    asked, conn = established(timed, family)
    there, (local, port) = inward(asked, conn), local_of(conn)
    ring = libbpf.RingBuffer(timed.tables.fd("events"))
    ring.poll(0)
    timed.tables.settings.helper_seen = timed.now()
    conn.timeout = 0
    run_timer(timed)
    wait_for(lambda: not timed.connections())
    (event,) = (parse(record) for record in ring.poll(1))
    ring.close()
    assert event.kind == layout_events.EVENT_EXPIRED
    to_client, to_server = resets.of(layout.ConnRow.from_buffer_copy(event.frame))
    assert to_client == resets.Reset(
        ip_address(VIP[family]).packed, 80, ip_address(CLIENT[family]).packed, 40000, 83
    )
    assert to_server == resets.Reset(
        ip_address(local).packed, port, ip_address(RIP[family]).packed, 8080, there.sequence
    )
    assert timed.index_size() == 0
    assert timed.tables.settings.unreset == 0


def test_without_a_helper_it_is_counted(timed: Director) -> None:
    established(timed)[1].timeout = 0
    run_timer(timed)
    wait_for(lambda: not timed.connections())
    assert timed.tables.settings.unreset == 1


@pytest.mark.parametrize("case", ["udp", "over", "off"])
def test_others_end_without_a_word(timed: Director, case: str) -> None:
    """UDP knows no reset; who has closed needs none; expire_reset may be 0."""
    _, conn = established(timed, protocol=UDP if case == "udp" else TCP)
    if case == "over":
        conn.state = layout.TCP_STATES.index("TIME_WAIT") | layout.STATE_INACTIVE
        row = timed.tables.load_row(conn.dest)
        row.active, row.inactive = 0, 1
    timed.tables.settings.sysctl.expire_reset = case != "off"
    conn.timeout = 0
    run_timer(timed)
    wait_for(lambda: not timed.connections())
    assert timed.tables.settings.unreset == 0
    assert timed.loads(RIP[4]) == (0, 0)
