"""Local addresses and ports: none is given twice, all are found, and what runs dry is counted."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet.director import XDP_DROP, XDP_REDIRECT, Director
from tests.packet.frames import TCP, UDP, Datagram
from tests.packet.fullnat import LIP, PORT, RIP, SECOND, VIP, answer, inward, local_of, pool, serve, without
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import swap16

pytestmark = pytest.mark.root

MANY = 20_000  # connections on one address to two real servers
LOCALS = [f"10.19.0.{200 + n}" for n in range(10)]
# On 6.1 in QEMU, which emulates every instruction, there is time for fewer.
FEWER = 20 if "IPVS_GUEST" in os.environ else 1


@pytest.fixture(scope="module")
def _large() -> Iterator[Director]:
    director = Director(1 << 15)
    yield director
    director.close()


@pytest.fixture
def large(_large: Director) -> Director:
    """A director with room for many connections; next hops are in place before the first."""
    _large.reset()
    return _large


def client(number: int, protocol: int = TCP, **fields: object) -> Datagram:
    """The first packet of a client of its own, which says who it is."""
    asked = Datagram(
        f"198.18.{number >> 8 & 255}.{number & 255}", VIP[4], 1024 + number % 60000, 80, protocol
    )
    return replace(asked, payload=str(number).encode(), **fields)  # type: ignore[arg-type]


def ports(director: Director, low: int, high: int) -> None:
    """The range of local ports."""
    director.tables.settings.sysctl.local_port_low = low
    director.tables.settings.sysctl.local_port_high = high


def quick(director: Director, frame: bytes) -> tuple[int, bytes]:
    """As Director.run, but for the caches, which are looked after by the caller."""
    verdict, after, _ = libbpf.test_run(director.plane.program_fd("xlvs_known"), frame)
    return verdict, after


def hop_inside(director: Director) -> None:
    for number in range(director.tables.settings.dests_high):
        director.inside.write(director.tables.dest_row(number).hop, director.now())


def keys(director: Director) -> list[tuple[bytes, bytes, int, int]]:
    """Who answers whom, of every connection."""
    return [(bytes(conn.daddr), bytes(conn.laddr), conn.dport, conn.lport) for conn in director.connections()]


def test_many_connections_on_one_address(large: Director) -> None:
    """All of them work, and none is crossed: each answer finds the client that it is for."""
    serve(large, 4, TCP, [RIP[4], SECOND[4]])
    hop_inside(large)
    count = MANY // FEWER
    for number in range(count):
        verdict, after = quick(large, client(number).frame())
        assert verdict == XDP_REDIRECT
        assert after.endswith(str(number).encode())
    conns = large.connections()
    assert len(conns) == count == len(set(keys(large)))
    assert {bytes(conn.laddr)[:4] for conn in conns} == {ip_address(LIP[4]).packed}
    assert Counter(bytes(conn.daddr)[:4] for conn in conns) == {
        ip_address(each).packed: count // 2 for each in (RIP[4], SECOND[4])
    }
    shared = Counter(local_of(conn) for conn in conns)
    assert max(shared.values()) == 2  # one port, both servers
    now = large.now()
    for conn in conns:
        large.outside.write(conn.back, now)
        who = str(ip_address(bytes(conn.caddr)[:4]))
        said = answer(inward(Datagram(who, VIP[4], swap16(conn.cport), 80, TCP), conn), payload=who.encode())
        verdict, after = quick(large, said.frame())
        assert verdict == XDP_REDIRECT
        assert after.endswith(who.encode())
        assert (after[30:34], after[36:38]) == (bytes(conn.caddr)[:4], swap16(conn.cport).to_bytes(2, "big"))
    assert large.counted() == {"forwarded": 2 * count}


def test_the_last_port_is_found(director: Director) -> None:
    """A small pool is used to the end, then refuses, and goes on with what becomes free."""
    ports(director, 6000, 6015)
    serve(director, 4, TCP)
    for number in range(16):
        director.exchange(client(number).frame())
    assert sorted(local_of(conn)[1] for conn in director.connections()) == list(range(6000, 6016))
    director.counted()
    for number in range(100, 150):
        assert director.run(client(number).frame())[0] == XDP_DROP
    assert director.counted() == {"drop_no_local": 50}
    assert len(director.connections()) == 16
    assert director.index_size() == 32
    assert director.loads(RIP[4]) == (16, 0)
    over = director.connections()[7]
    number = int.from_bytes(bytes(over.caddr)[2:4], "big")
    director.exchange(answer(inward(client(number), over), flags="RA").frame())
    freed = local_of(over)
    director.exchange(client(number, sequence=5).frame())  # the same client again: the old one goes
    assert freed in {local_of(conn) for conn in director.connections()}
    assert len(director.connections()) == 16


def test_each_server_has_every_port(director: Director) -> None:
    """An address and port in use towards one real server is free towards the others."""
    ports(director, 6000, 6000)
    servers = [f"10.19.0.{11 + n}" for n in range(5)]
    serve(director, 4, UDP, servers)
    for number in range(5):
        director.exchange(client(number, UDP).frame())
    assert {local_of(conn) for conn in director.connections()} == {(LIP[4], 6000)}
    assert len({bytes(conn.daddr) for conn in director.connections()}) == 5
    assert director.run(client(9, UDP).frame())[0] == XDP_DROP


def test_addresses_take_turns(director: Director) -> None:
    serve(director, 4, TCP, locals=LOCALS)
    for number in range(30):
        director.exchange(client(number).frame())
    used = Counter(local_of(conn)[0] for conn in director.connections())
    assert used == dict.fromkeys(LOCALS, 3)


def test_a_full_address_is_passed_over(director: Director) -> None:
    ports(director, 6000, 6003)
    serve(director, 4, TCP, locals=LOCALS[:3])
    for number in range(12):
        director.exchange(client(number).frame())
    assert len(set(map(local_of, director.connections()))) == 12
    rows = [director.tables.row("locals", layout.LocalRow, number) for number in range(3)]
    assert all(row.conflicts for row in rows), "ports that were taken are counted"


def test_backwards_ranges_have_no_port(director: Director) -> None:
    ports(director, 7000, 6999)
    serve(director, 4, TCP)
    assert director.run(client(1).frame())[0] == XDP_DROP
    assert director.counted() == {"drop_no_local": 1}


def test_ports_lie_anywhere(director: Director) -> None:
    """Clients that come one after the other get no ports in a row, and the whole range is used."""
    serve(director, 4, TCP)
    for number in range(500):
        director.exchange(client(number).frame())
    found = [local_of(conn)[1] for conn in director.connections()]
    assert len({port // 4096 for port in found}) >= 14
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(found)) < 10


def test_addresses_come_and_go(large: Director) -> None:
    """What is taken away is given to nobody new, and serves those who have it."""
    key = serve(large, 4, TCP, [RIP[4], SECOND[4]], LOCALS[:1])
    hop_inside(large)
    chance, here = random.Random(4), set(LOCALS[:1])
    for turn in range(60):
        change = chance.choice(LOCALS)
        if change in here and len(here) > 1:
            without(large, key, change)
            here.discard(change)
        elif change not in here:
            pool(large, key, change)
            here.add(change)
        before = set(large.live_slots())
        for number in range(turn * 40, turn * 40 + 40):
            assert quick(large, client(number).frame())[0] == XDP_REDIRECT
        new = {local_of(large.conn_row(slot))[0] for slot in set(large.live_slots()) - before}
        assert new <= here
    conns, now = large.connections(), large.now()
    assert len(conns) == 2400 == len(set(keys(large)))
    for conn in conns:
        large.outside.write(conn.back, now)
        asked = Datagram(str(ip_address(bytes(conn.caddr)[:4])), VIP[4], swap16(conn.cport), 80, TCP)
        assert quick(large, answer(inward(asked, conn)).frame())[1][30:34] == bytes(conn.caddr)[:4]


def test_two_processors_and_changing_pools(large: Director) -> None:
    """Both make connections at once while addresses come and go: nobody gets what another has."""
    ports(large, 6000, 6999)
    key = serve(large, 4, TCP, [RIP[4], SECOND[4]], LOCALS[:2])
    hop_inside(large)
    frames = [[client(2 * n + worker).frame() for n in range(4000 // FEWER)] for worker in range(2)]
    verdicts: list[Counter[int]] = [Counter(), Counter()]

    def work(worker: int) -> None:
        for frame in frames[worker]:
            verdicts[worker][quick(large, frame)[0]] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for each in workers:
        each.start()
    while any(each.is_alive() for each in workers):
        pool(large, key, LOCALS[2])
        without(large, key, LOCALS[2])
    for each in workers:
        each.join()
    made = len(large.connections())
    counted = large.counted()
    assert made == verdicts[0][XDP_REDIRECT] + verdicts[1][XDP_REDIRECT] == counted["forwarded"]
    assert counted.get("drop_no_local", 0) == verdicts[0][XDP_DROP] + verdicts[1][XDP_DROP]
    assert made == len(set(keys(large))) == large.index_size() // 2
    assert made > 3900 // FEWER
    assert all(port in range(6000, 7000) and PORT for _, port in map(local_of, large.connections()))


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_a_race_for_one_connection_takes_one_port(director: Director, protocol: int) -> None:
    """The same first packet on two processors at once, over and over."""
    serve(director, 4, protocol)
    hop_inside(director)
    for number in range(200 // FEWER):
        frame = client(number, protocol).frame()
        begin = threading.Barrier(2)

        def work(frame: bytes = frame, begin: threading.Barrier = begin) -> None:
            begin.wait()
            quick(director, frame)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
    assert len(director.connections()) == 200 // FEWER
    assert director.index_size() == 400 // FEWER
