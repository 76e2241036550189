"""The connection table: what finds whom, when it is full, when what it names is gone."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
families = pytest.mark.parametrize("family", [4, 6])


def request(family: int, protocol: int = UDP, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def answer(family: int, **fields: object) -> Datagram:
    return replace(Datagram(RIP[family], CLIENT[family], 8080, 40000), **fields)  # type: ignore[arg-type]


def index_key(datagram: Datagram) -> bytes:
    """struct xlvs_key4 or xlvs_key6: source, destination, ports, protocol."""
    ends = ip_address(datagram.source).packed + ip_address(datagram.target).packed
    return ends + struct.pack("!HHB3x", datagram.sport, datagram.dport, datagram.protocol)


def put_key(director: Director, datagram: Datagram, ref: int) -> None:
    name = "conn_index6" if ":" in datagram.source else "conn_index4"
    libbpf.update(director.tables.fd(name), index_key(datagram), ref.to_bytes(4, "little"))


def key_ref(director: Director, datagram: Datagram) -> int | None:
    name = "conn_index6" if ":" in datagram.source else "conn_index4"
    found = libbpf.lookup(director.tables.fd(name), index_key(datagram), 4)
    return None if found is None else int.from_bytes(found, "little")


def serve(director: Director, family: int, protocol: int = UDP) -> None:
    director.service(VIP[family], protocol, [Server(RIP[family], 8080)])


@families
def test_keys_of_both_directions_name_the_slot(director: Director, family: int) -> None:
    serve(director, family)
    director.exchange(request(family).frame())
    (slot,) = director.live_slots()
    assert key_ref(director, request(family)) == slot
    assert key_ref(director, answer(family)) == slot | layout.REF_REPLY
    assert director.index_size() == 2


@families
def test_a_key_left_behind_is_no_connection_of_anybody_else(director: Director, family: int) -> None:
    """A recycled slot: the key is there, but the slot is another flow's now."""
    serve(director, family)
    director.exchange(request(family).frame())
    (slot,) = director.live_slots()
    other = request(family, sport=50000)
    for stale in (other, answer(family, dport=50000), request(family, target=RIP[family], dport=9)):
        for ref in (slot, slot | layout.REF_REPLY):
            put_key(director, stale, ref)
    assert director.run(answer(family, dport=50000).frame())[0] == XDP_PASS
    assert director.run(request(family, target=RIP[family], dport=9).frame())[0] == XDP_PASS
    director.exchange(other.frame())
    assert len(director.connections()) == 2
    found = key_ref(director, other)
    assert found is not None
    assert found != slot
    assert director.conn_row(found).cport == layout_port(50000)


def layout_port(port: int) -> int:
    """A port as the rows have it."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


@families
def test_a_key_of_a_free_slot_is_taken_over(director: Director, family: int) -> None:
    serve(director, family)
    put_key(director, request(family), 5)
    put_key(director, answer(family), 6 | layout.REF_REPLY)
    director.exchange(request(family).frame())
    (slot,) = director.live_slots()
    assert key_ref(director, request(family)) == slot
    assert key_ref(director, answer(family)) == slot | layout.REF_REPLY
    assert director.exchange(answer(family).frame())


def test_a_key_beyond_the_table_is_a_miss(director: Director) -> None:
    serve(director, 4)
    put_key(director, request(4, target="10.80.0.99"), director.slots + 7)
    assert director.run(request(4, target="10.80.0.99").frame())[0] == XDP_PASS


def test_while_the_old_connection_is_being_removed_the_packet_is_dropped(director: Director) -> None:
    """DYING: its keys still stand. The sender repeats what matters."""
    serve(director, 4)
    director.exchange(request(4).frame())
    (conn,) = director.connections()
    conn.phase = conn.phase & ~layout.PHASE | layout.DYING
    assert director.run(request(4).frame())[0] == XDP_DROP
    assert director.counted() == {"forwarded": 1, "drop_race": 1}
    assert director.loads(RIP[4]) == (0, 1)


def test_a_full_table_refuses_new_flows_and_keeps_the_old(director: Director) -> None:
    serve(director, 4)
    director.exchange(request(4).frame())
    for slot in range(director.slots):
        row = director.conn_row(slot)
        if row.phase & layout.PHASE == layout.FREE:
            row.phase |= layout.CLAIMED
    assert director.run(request(4, sport=50000).frame())[0] == XDP_DROP
    assert director.run(request(4).frame())[0] == XDP_REDIRECT
    assert director.counted() == {"forwarded": 2, "drop_table_full": 1}
    assert director.index_size() == 2
    assert director.loads(RIP[4]) == (0, 1)


def test_most_of_the_table_can_be_filled(director: Director) -> None:
    """64 probes find a free slot nearly always up to nine tenths."""
    director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.ROUTE)])
    wanted = director.slots * 9 // 10
    director.cached = True
    for number in range(wanted):
        director.run(request(4, source=f"198.18.{number >> 8}.{number & 255}").frame())
    assert len(director.connections()) > 0.99 * wanted
    assert director.index_size() == len(director.connections())


def test_taken_slots_side_by_side_are_got_over(director: Director) -> None:
    """As connections that came after each other take them: a quarter is free, and found each time."""
    director.service(VIP[4], UDP, [Server(RIP[4], method=Forward.ROUTE)])
    for slot in range(director.slots * 3 // 4):
        director.conn_row(slot).phase |= layout.CLAIMED
    for number in range(4000):
        director.forget_where_to_look()
        asked = request(4, source=f"198.18.{number >> 8}.{number & 255}")
        director.exchange(asked.frame())
        libbpf.delete(director.tables.fd("conn_index4"), index_key(asked))
        for conn in director.connections():
            conn.phase &= ~layout.PHASE
    assert director.counted() == {"forwarded": 4000}


def test_a_slot_is_freed_as_another_generation(director: Director) -> None:
    director.service(VIP[4], TCP, [Server(RIP[4], method=Forward.ROUTE)])
    phases = set()
    for _ in range(5):
        director.exchange(request(4, TCP).frame())
        (slot,) = director.live_slots()
        phases.add((slot, director.conn_row(slot).phase))
        director.exchange(request(4, TCP, flags="R").frame())
        director.conn_row(slot).state = layout.TCP_STATES.index("TIME_WAIT") | layout.STATE_INACTIVE
    assert len(phases) == 5


@families
def test_a_destination_that_was_deleted(director: Director, family: int) -> None:
    """No packet goes there any more; what it still says goes out, as in IPVS."""
    server = Server(RIP[family], 8080)
    key = director.service(VIP[family], UDP, [server, Server("10.19.0.12" if family == 4 else "fd19::12")])
    for sport in (40000, 40001):
        director.exchange(request(family, sport=sport).frame())
    mine = next(conn.cport for conn in director.connections() if conn.dport == layout_port(8080))
    director.remove(key, server)
    sport = layout_port(mine)
    assert director.run(request(family, sport=sport).frame())[0] == XDP_DROP
    assert director.run(answer(family, dport=sport).frame())[0] == XDP_REDIRECT
    assert director.counted() == {"forwarded": 3, "drop_destination_gone": 1}


def test_a_destination_added_again_finds_its_connections(director: Director) -> None:
    server = Server(RIP[4], 8080)
    key = director.service(VIP[4], UDP, [server])
    director.exchange(request(4).frame())
    director.remove(key, server)
    director.add(key, server)
    director.exchange(request(4).frame())
    assert director.loads(RIP[4]) == (0, 1)
    assert len(director.connections()) == 1


def test_packets_and_bytes_are_counted_both_ways_for_service_and_destination(director: Director) -> None:
    serve(director, 4)
    asked, said = request(4, payload=bytes(100)), answer(4, payload=bytes(333))
    for _ in range(3):
        director.exchange(asked.frame())
    for _ in range(2):
        director.exchange(said.frame())
    wanted = [1, 3, 2, 3 * len(asked.packet()), 2 * len(said.packet())]
    assert director.tables.counter_sums(layout.ROW_SERVICE) == wanted
    assert director.tables.counter_sums(layout.ROW_DEST + director.dest_number(RIP[4])) == wanted


def test_a_server_on_the_director_itself_gets_it_from_the_kernel(director: Director) -> None:
    director.host.local.add(ip_address("10.9.0.1").packed)
    director.service(VIP[4], UDP, [Server("10.9.0.1", 8080)])
    asked = request(4)
    wanted = replace(asked, target="10.9.0.1", dport=8080)
    assert director.run(asked.frame()) == (XDP_PASS, wanted.frame())
    assert director.counted() == {"local": 1}


def test_last_seen_moves_only_every_quarter_second(director: Director) -> None:
    serve(director, 4)
    director.exchange(request(4).frame())
    (conn,) = director.connections()
    hz = director.tables.settings.hz
    for late, moved in ((hz // 8, False), (hz // 2, True)):
        conn.seen = before = director.now() - late & 0xFFFFFFFF
        director.exchange(request(4).frame())
        assert (conn.seen != before) is moved


def test_expiry_frees_slot_keys_and_counters(director: Director) -> None:
    serve(director, 4)
    for sport in (40000, 40001):
        director.exchange(request(4, sport=sport).frame())
    settings = director.tables.settings
    stays, goes = sorted(director.connections(), key=lambda conn: layout_port(conn.cport))
    settings.tick_ns = 5_000_000
    settings.scan_chunk = director.slots
    goes.timeout = 0
    goes.seen = director.now() - settings.hz & 0xFFFFFFFF
    assert libbpf.test_run(director.plane.program_fd("xlvs_arm"), bytes(64))[0] == 0
    deadline = time.monotonic() + 60
    while len(director.connections()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    settings.flags |= layout.MIGRATING  # keep the timer's hands off the next test
    assert [conn.cport for conn in director.connections()] == [stays.cport]
    assert goes.phase & layout.PHASE == layout.FREE
    assert director.index_size() == 2
    assert director.loads(RIP[4]) == (0, 1)
