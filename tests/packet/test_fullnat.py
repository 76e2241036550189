"""FULLNAT: what goes in to the real server, what comes back to the client, byte for byte."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import CLIENT_MAC, TCP, UDP, Datagram, ethernet, icmp_error, sums_are_right
from tests.packet.fullnat import (
    CLIENT,
    LIP,
    PORT,
    RIP,
    SECOND,
    VIP,
    WHOLE,
    answer,
    define,
    inward,
    key_of,
    local_of,
    outward,
    pool,
    serve,
)
from tests.packet.sctp import SCTP, Association, chunk
from xlvs.dataplane import layout, migrate
from xlvs.dataplane.rows import swap16
from xlvs.model import Forward, Service, ServiceFlag

pytestmark = pytest.mark.root

MASK = 0xFFFFFFFF
families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


def request(family: int, protocol: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family], protocol=protocol), **fields)  # type: ignore[arg-type]


def only(director: Director) -> layout.ConnRow:
    (conn,) = director.connections()
    return conn


CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "no payload": {"payload": b""},
    "odd payload": {"payload": b"odd"},
    "long payload": {"payload": bytes(range(256)) * 5},
    "least ttl": {"ttl": 2},
    "tos": {"tos": 0xB9},
    "one tag": {"tags": (100,)},
    "two tags": {"tags": (100, 0x6007)},
    "partial sum": {"sum": "partial", "payload": bytes(range(251))},
    "partial sum of nothing": {"sum": "partial", "payload": b""},
    "last number": {"sequence": MASK},
    "high port": {"sport": 65535},
}


@families
@protocols
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_in_and_out(director: Director, family: int, protocol: int, fields: dict[str, object]) -> None:
    serve(director, family, protocol)
    asked = request(family, protocol, **fields)
    verdict, after = director.run(asked.frame())
    conn = only(director)
    there = inward(asked, conn)
    assert (verdict, after) == (XDP_REDIRECT, there.frame())
    assert there.source == LIP[family]
    assert there.sport >= 5000
    reply = answer(
        there, **{name: value for name, value in fields.items() if name in ("payload", "sum", "tags")}
    )
    assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply, asked, conn).frame())
    if protocol == TCP:  # the two numbers that they began with
        assert (conn.edge_in, conn.edge_out) == (asked.sequence, reply.sequence)
    more = replace(asked, flags="PA", sequence=asked.sequence + 1 & MASK, acknowledged=0xFFFFFFF1)
    assert director.run(more.frame()) == (XDP_REDIRECT, inward(more, conn).frame())
    reply = answer(inward(more, conn), flags="PA", sequence=0xFFFFFFF1)
    assert director.run(reply.frame()) == (XDP_REDIRECT, outward(reply, asked, conn).frame())
    more = replace(more, acknowledged=0xFFFFFFF1 + len(reply.payload) & MASK)
    assert director.run(more.frame()) == (XDP_REDIRECT, inward(more, conn).frame())
    assert director.counted() == {"forwarded": 5}
    assert conn.in_packets == 3
    if protocol == TCP and asked.payload:  # where resets are believed
        assert (conn.edge_in, conn.edge_out) == (more.acknowledged, reply.acknowledged)


@families
def test_numbers_begin_elsewhere_and_climb(director: Director, family: int) -> None:
    """A SYN said again has the same number; the next connection of that local port a higher one."""
    director.tables.settings.sysctl.local_port_low = director.tables.settings.sysctl.local_port_high = 7000
    serve(director, family, TCP)
    asked, said = request(family, TCP, sequence=1), []
    for _ in range(5):
        there = director.exchange(asked.frame())[1]
        assert director.exchange(asked.frame())[1] == there
        conn = only(director)
        said.append(asked.sequence + conn.seq_in & MASK)
        reset = answer(inward(asked, conn), flags="RA")
        director.exchange(reset.frame())  # over: the next SYN begins another (conn_reuse_mode)
        asked = replace(asked, sequence=asked.sequence * 77 + 12345 & MASK)
    steps = [later - earlier & MASK for earlier, later in itertools.pairwise(said)]
    assert all(0 < step < 1 << 30 for step in steps), steps


def test_a_connection_that_is_over_is_numbered_anew_where_it_stays(director: Director) -> None:
    """conn_reuse_mode 0: its server remembers the old one, and all that it had acknowledged."""
    director.tables.settings.sysctl.conn_reuse_mode = 0
    serve(director, 4, TCP)
    asked = request(4, TCP, payload=b"")
    director.exchange(asked.frame())
    conn = only(director)
    far = inward(asked, conn).sequence + (1 << 30) & MASK  # a great deal was sent
    director.exchange(answer(inward(asked, conn)).frame())
    director.exchange(replace(asked, flags="A").frame())
    director.exchange(replace(asked, flags="S", sequence=5).frame())  # it lives: nothing changes
    assert conn.seq_in == inward(asked, conn).sequence - asked.sequence & MASK
    director.exchange(answer(inward(asked, conn), flags="FA", acknowledged=far).frame())
    director.exchange(replace(asked, flags="FA").frame())
    again = replace(asked, sequence=5)
    after = director.exchange(again.frame())[1]
    assert after == inward(again, conn).frame()
    ahead = inward(again, conn).sequence - far & MASK
    assert 0 < ahead < 1 << 20
    assert director.exchange(again.frame())[1] == after


@families
def test_a_reset_without_acknowledgement_keeps_its_zero(director: Director, family: int) -> None:
    serve(director, family, TCP)
    asked = request(family, TCP)
    director.exchange(asked.frame())
    conn = only(director)
    reset = answer(inward(asked, conn), flags="R", acknowledged=0, payload=b"")
    assert director.exchange(reset.frame())[1] == outward(reset, asked, conn).frame()
    assert outward(reset, asked, conn).acknowledged == 0


@families
@protocols
def test_a_wrong_checksum_stays_wrong(director: Director, family: int, protocol: int) -> None:
    serve(director, family, protocol)
    frame = bytearray(request(family, protocol).frame())
    frame[-1] ^= 1
    _, after = director.exchange(bytes(frame))
    assert not sums_are_right(after[14:])


def test_two_clients_of_one_port_do_not_meet(director: Director) -> None:
    """Under NAT, the newest got the answers of both."""
    other = key_of(4, TCP, "10.80.0.9")
    define(director, Service(other, "rr", netmask=WHOLE[4]), [Server(RIP[4], PORT, Forward.FULLNAT)])
    pool(director, other, LIP[4])
    serve(director, 4, TCP)
    both = [request(4, TCP), request(4, TCP, target="10.80.0.9")]
    for asked in both:
        director.exchange(asked.frame())
    for asked, conn in zip(both, director.connections(), strict=True):
        reply = answer(inward(asked, conn))
        assert director.exchange(reply.frame())[1] == outward(reply, asked, conn).frame()


@families
@pytest.mark.parametrize("sum", ["whole", "partial", "wrong"])
def test_sctp(director: Director, family: int, sum: str) -> None:
    serve(director, family, SCTP)
    asked = Association(CLIENT[family], VIP[family], sum=sum)
    after = director.exchange(asked.frame())[1]
    conn = only(director)
    whole = "whole" if sum == "partial" else sum
    there = replace(
        asked, source=LIP[family], target=RIP[family], dport=PORT, ttl=63, sum=whole,
        target_mac=after[:6], source_mac=after[6:12],
    )  # fmt: skip
    assert after == there.frame()
    assert local_of(conn) == (LIP[family], asked.sport)  # kept where it is free: fragments need no new sum
    said = Association(RIP[family], LIP[family], PORT, asked.sport, chunk("INIT_ACK", b"odd length"), sum)
    after = director.exchange(said.frame())[1]
    back = replace(
        said, source=VIP[family], target=CLIENT[family], sport=80, ttl=63, sum=whole,
        target_mac=after[:6], source_mac=after[6:12],
    )  # fmt: skip
    assert after == back.frame()
    second = replace(asked, source=CLIENT[family][:-1] + "2")
    director.exchange(second.frame())
    ports = sorted(local_of(each)[1] for each in director.connections())
    assert len(set(ports)) == 2
    assert asked.sport in ports


@families
@protocols
def test_a_server_on_the_director_needs_no_local_address(
    director: Director, family: int, protocol: int
) -> None:
    director.host.local.add(ip_address(RIP[family]).packed)
    director.service(VIP[family], protocol, [Server(RIP[family], PORT, Forward.FULLNAT)])
    asked = request(family, protocol)
    got = replace(asked, target=RIP[family], dport=PORT)
    assert director.run(asked.frame()) == (XDP_PASS, got.frame())
    assert director.counted() == {"local": 1}


@families
@protocols
def test_a_reply_at_the_end_of_its_life(director: Director, family: int, protocol: int) -> None:
    """The real server is told by the address that it wrote to."""
    serve(director, family, protocol)
    asked = request(family, protocol)
    director.exchange(asked.frame())
    reply = answer(inward(asked, only(director)), ttl=1, source_mac=CLIENT_MAC)
    after = director.run(reply.frame())[1]
    kind = (11, 0) if family == 4 else (3, 0)
    error = icmp_error(LIP[family], RIP[family], *kind, 0, reply.packet())
    assert after == ethernet(error, reply.source_mac, reply.target_mac)


@families
def test_one_packet_scheduling_has_answers(director: Director, family: int) -> None:
    """Each packet is scheduled alone; its local port stands long enough for the answer."""
    key = key_of(family, UDP)
    service = Service(key, "rr", ServiceFlag.ONEPACKET, netmask=WHOLE[family])
    define(director, service, [Server(each, PORT, Forward.FULLNAT) for each in (RIP[family], SECOND[family])])
    pool(director, key, LIP[family])
    asked = request(family, UDP)
    heard = [director.exchange(asked.frame())[1] for _ in range(4)]
    conns = director.connections()
    assert len(conns) == director.index_size() == 4
    assert len({(*local_of(conn), bytes(conn.daddr)) for conn in conns}) == 4
    assert heard == [inward(asked, conn).frame() for conn in conns]
    for conn in conns:
        reply = answer(inward(asked, conn), payload=b"there you are")
        assert director.exchange(reply.frame())[1] == outward(reply, asked, conn).frame()
    found = {key for conn in conns for key, _ in migrate._keys(conn, 0)}
    assert len(found) == 4


@families
def test_a_persistent_client_stays(director: Director, family: int) -> None:
    key = key_of(family, TCP)
    define(
        director,
        Service(key, "rr", ServiceFlag.PERSISTENT, 300, WHOLE[family]),
        [Server(each, PORT, Forward.FULLNAT) for each in (RIP[family], SECOND[family])],
    )
    pool(director, key, LIP[family])
    for number in range(10):
        director.exchange(request(family, TCP, sport=1000 + number).frame())
    conns = [conn for conn in director.connections() if not conn.flags & layout.CONN_TEMPLATE]
    assert len(conns) == 10
    assert len({bytes(conn.daddr) for conn in conns}) == 1
    template = next(conn for conn in director.connections() if conn.flags & layout.CONN_TEMPLATE)
    assert template.controlled == 10


@families
@protocols
def test_no_pool(director: Director, family: int, protocol: int) -> None:
    """Nothing of what was begun is left."""
    director.service(VIP[family], protocol, [Server(RIP[family], PORT, Forward.FULLNAT)])
    assert director.run(request(family, protocol).frame())[0] == XDP_DROP
    assert director.counted() == {"drop_no_local": 1}
    assert director.connections() == []
    assert director.index_size() == 0
    assert director.loads(RIP[family]) == (0, 0)


@st.composite
def flows(draw: st.DrawFn) -> list[Datagram]:
    """A client's packets to the VIP, the first of them any that begins a connection."""
    family, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from([TCP, UDP]))
    source = str(draw(st.ip_addresses(v=4 if family == 4 else 6)))
    sport = draw(st.integers(1, 0xFFFF).filter(lambda port: port != 20))
    return [
        request(
            family,
            protocol,
            source=source,
            sport=sport,
            flags=draw(st.sampled_from(["S", "SP"] if not number else ["A", "PA", "FA", "R", "RA"])),
            sequence=draw(st.integers(0, MASK)),
            acknowledged=draw(st.integers(0, MASK)) if number else 0,
            payload=draw(st.binary(max_size=1300)),
            ttl=draw(st.integers(2, 255)),
            tos=draw(st.integers(0, 255)),
            sum=draw(st.sampled_from(["whole", "whole", "partial"])),
            tags=draw(st.sampled_from([(), (1,), (4094, 2)])),
        )
        for number in range(draw(st.integers(1, 4)))
    ]


@given(flows(), st.binary(max_size=1300), st.integers(0, MASK))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flow_in_and_out(director: Director, asked: list[Datagram], said: bytes, number: int) -> None:
    director.reset()
    serve(director, 6 if ":" in asked[0].source else 4, asked[0].protocol)
    for each in asked:
        _, after = director.exchange(each.frame())
        conn = only(director)
        there = inward(each, conn)
        if each.protocol == TCP and "A" not in each.flags:
            there = replace(there, acknowledged=each.acknowledged)
        assert after == there.frame()
        assert sums_are_right(after[14:])
        assert after.endswith(each.payload)
        flags = "PA" if len(asked) > 1 else "R"
        reply = answer(there, payload=said, sequence=number, flags=flags)
        _, after = director.exchange(reply.frame())
        assert after == outward(reply, each, conn).frame()
        assert sums_are_right(after[14:])
        assert after.endswith(said)
    assert swap16(conn.lport) >= 5000
