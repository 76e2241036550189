"""What else decides about a new connection: marks, thresholds, the sysctls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import swap16
from xlvs.model import Forward, Service, ServiceFlag, ServiceKey

pytestmark = pytest.mark.root

CLIENT, VIP, OTHER_VIP = "198.18.0.1", "10.80.0.1", "10.80.7.1"
RIPS = ["10.19.0.11", "10.19.0.12", "10.19.0.13"]


def syn(sport: int = 40000, **fields: object) -> bytes:
    return replace(Datagram(CLIENT, VIP, sport, protocol=TCP), **fields).frame()  # type: ignore[arg-type]


def chosen(director: Director, frame: bytes) -> str:
    _, after = director.exchange(frame)
    return str(ip_address(after[30:34] if after[14] >> 4 == 4 else after[38:54]))


def mark(director: Director, rules: Sequence[tuple[str, int, tuple[int, int], int]]) -> None:
    """Rules in order: prefix, protocol (0: any), ports, mark. Every prefix gets all that cover it."""
    networks = [ip_network(rule[0]) for rule in rules]
    memory, at = director.tables.memory("mark_rules"), 0
    for network in set(networks):
        first = at
        for (_, protocol, ports, value), other in zip(rules, networks, strict=True):
            if other.version == network.version and network.subnet_of(other):  # type: ignore[arg-type]
                row = layout.MarkRule(value, *ports, protocol)
                memory[at * 16 : at * 16 + 16] = bytes(row)
                at += 1
        key = layout.MarkPrefix(32 + network.prefixlen, 2 if network.version == 4 else 10)
        key.address = layout.wire_address(network.network_address.packed)
        libbpf.update(
            director.tables.fd("mark_prefixes"),
            bytes(key),
            (first | (at - first) << 32).to_bytes(8, "little"),
        )


def by_mark(director: Director, value: int, family: int = 2, **fields: object) -> ServiceKey:
    key = ServiceKey(family, 0, b"", 0, value)
    mask = 0xFFFFFFFF if family == 2 else 128
    servers = [Server(each, 0) for each in RIPS] if family == 2 else [Server("fd19::11", 0)]
    director.define(replace(Service(key, "rr", netmask=mask), **fields), servers)  # type: ignore[arg-type]
    return key


def test_a_mark_groups_ports_and_addresses(director: Director) -> None:
    mark(director, [("10.80.0.0/16", TCP, (80, 80), 7), ("10.80.0.0/16", 0, (443, 450), 7)])
    by_mark(director, 7)
    frames = [syn(1), syn(2, dport=443), syn(3, target=OTHER_VIP, dport=450)]
    assert [chosen(director, frame) for frame in frames] == RIPS[::-1]
    rows = director.connections()
    assert sorted(swap16(row.dport) for row in rows) == [80, 443, 450]
    assert {row.fwmark for row in rows} == {7}
    director.counted()
    assert director.run(syn(4, dport=81))[0] == XDP_PASS
    assert director.run(Datagram(CLIENT, VIP, 5, 80, UDP).frame())[0] == XDP_PASS
    assert director.counted() == {"not_ours": 2}


def test_the_last_rule_that_matches_wins_and_prefixes_add_up(director: Director) -> None:
    rules = [
        ("10.0.0.0/8", 0, (0, 65535), 1),
        (f"{VIP}/32", TCP, (80, 80), 2),
        ("10.80.0.0/16", TCP, (1, 79), 3),
    ]
    mark(director, rules)
    for value in (1, 2, 3):
        by_mark(director, value)
    for port, value in ((80, 2), (79, 3), (81, 1)):
        director.exchange(syn(1000 + port, dport=port))
        assert {row.fwmark for row in director.connections() if swap16(row.vport) == port} == {value}


def test_a_mark_comes_before_the_address(director: Director) -> None:
    mark(director, [(f"{VIP}/32", TCP, (80, 80), 9)])
    director.service(VIP, TCP, [Server("10.19.0.99")])
    assert chosen(director, syn(1)) == "10.19.0.99"
    by_mark(director, 9)
    assert chosen(director, syn(2)) in RIPS
    assert chosen(director, syn(1)) == "10.19.0.99"  # a known connection is asked for no mark


def test_marks_of_ipv6_are_apart(director: Director) -> None:
    mark(director, [("fd80::/64", TCP, (80, 80), 4), ("10.0.0.0/8", TCP, (80, 80), 4)])
    by_mark(director, 4, family=10)
    assert chosen(director, Datagram("fd18::1", "fd80::5", protocol=TCP).frame()) == "fd19::11"
    assert director.run(syn())[0] == XDP_PASS


def test_persistence_by_mark_spans_ports_and_addresses(director: Director) -> None:
    mark(director, [("10.80.0.0/16", 0, (0, 65535), 5)])
    by_mark(director, 5, flags=ServiceFlag.PERSISTENT, timeout=60)
    assert (
        len({chosen(director, syn(n, dport=n, target=VIP if n % 2 else OTHER_VIP)) for n in range(80, 90)})
        == 1
    )
    (template,) = (row for row in director.connections() if row.flags & layout.CONN_TEMPLATE)
    assert template.protocol == 0
    assert bytes(template.vaddr) == (5).to_bytes(4, "big") + bytes(12)


def limited(director: Director, upper: int, lower: int = 0) -> ServiceKey:
    return director.service(VIP, TCP, [Server(RIPS[0], upper=upper, lower=lower)])


def overloaded(director: Director) -> bool:
    flags: int = director.tables.load_row(director.dest_number(RIPS[0])).flags
    return bool(flags & layout.LOAD_OVERLOADED)


def close(director: Director, sport: int) -> None:
    """End a connection in CLOSE: by a SYN with a RST, which ends the old one and opens none."""
    (slot,) = (s for s in director.live_slots() if swap16(director.conn_row(s).cport) == sport)
    row = director.conn_row(slot)
    row.state = layout.TCP_STATES.index("CLOSE") | (row.state & layout.STATE_INACTIVE)
    director.run(syn(sport, flags="RS"))


@pytest.mark.parametrize(
    ("upper", "lower", "ends_at"), [(4, 0, 2), (4, 3, 2), (4, 1, 0), (8, 0, 5), (1, 0, 0)]
)
def test_an_overloaded_server_rests_until_it_is_below_its_lower_threshold(
    director: Director, upper: int, lower: int, ends_at: int
) -> None:
    """Without a lower threshold: until less than three quarters of the upper are left."""
    limited(director, upper, lower)
    for number in range(upper):
        assert not overloaded(director)
        director.exchange(syn(number + 1))
    director.counted()
    director.run(syn(60000))
    assert director.counted() == {"drop_no_destination": 1}
    for left in range(upper - 1, -1, -1):
        assert overloaded(director), left
        close(director, left + 1)
        assert sum(director.loads(RIPS[0])) == left
        if left == ends_at:
            break
    assert not overloaded(director)
    director.exchange(syn(60000))


@pytest.mark.parametrize(("upper", "still"), [(0, False), (5, False), (3, True), (2, True)])
def test_a_threshold_out_of_the_way_ends_overload(director: Director, upper: int, still: bool) -> None:
    key = limited(director, 3)
    for number in range(3):
        director.exchange(syn(number + 1))
    director.edit(key, Server(RIPS[0], upper=upper))
    assert overloaded(director) is still


def opened(director: Director, state: str, method: Forward = Forward.ROUTE) -> layout.ConnRow:
    director.service(VIP, TCP, [Server(RIPS[0], method=method), Server(RIPS[1], method=method)])
    director.exchange(syn())
    (conn,) = director.connections()
    conn.state = layout.TCP_STATES.index(state)
    return conn


@pytest.mark.parametrize(
    ("mode", "state", "method", "again"),
    [
        (1, "TIME_WAIT", Forward.MASQ, True),
        (0, "TIME_WAIT", Forward.MASQ, False),
        (2, "CLOSE", Forward.ROUTE, True),
        (1, "FIN_WAIT", Forward.ROUTE, False),
        (3, "FIN_WAIT", Forward.ROUTE, True),
        (3, "FIN_WAIT", Forward.MASQ, False),
        (1, "ESTABLISHED", Forward.MASQ, False),
    ],
)
def test_conn_reuse_mode(director: Director, mode: int, state: str, method: Forward, again: bool) -> None:
    director.tables.settings.sysctl.conn_reuse_mode = mode
    old = opened(director, state, method).dest
    director.exchange(syn())
    (conn,) = director.connections()
    assert (conn.dest != old) is again


@pytest.mark.parametrize("expire", [0, 1])
def test_expire_nodest_conn(director: Director, expire: int) -> None:
    director.tables.settings.sysctl.expire_nodest_conn = expire
    key = director.service(VIP, TCP, [Server(RIPS[0]), Server(RIPS[1])])
    first = chosen(director, syn())
    director.remove(key, Server(first))
    director.counted()
    verdict, _ = director.run(syn(flags="A"))
    if not expire:
        assert (verdict, director.counted()) == (XDP_DROP, {"drop_destination_gone": 1})
        return
    assert (verdict, director.counted()) == (XDP_PASS, {"pass_no_connection": 1})
    assert not director.connections()
    assert chosen(director, syn()) != first


@pytest.mark.parametrize("expire", [0, 1])
def test_a_syn_to_a_quiesced_server(director: Director, expire: int) -> None:
    director.tables.settings.sysctl.expire_nodest_conn = expire
    key = director.service(VIP, TCP, [Server(RIPS[0]), Server(RIPS[1])])
    first = chosen(director, syn())
    director.edit(key, Server(first, weight=0))
    assert (chosen(director, syn()) != first) is bool(expire)


@pytest.mark.parametrize(
    ("sloppy", "flags", "verdict"), [(0, "A", XDP_PASS), (1, "A", XDP_REDIRECT), (1, "R", XDP_PASS)]
)
def test_sloppy_tcp(director: Director, sloppy: int, flags: str, verdict: int) -> None:
    director.tables.settings.sysctl.sloppy_tcp = sloppy
    director.service(VIP, TCP, [Server(RIPS[0])])
    assert director.run(syn(flags=flags))[0] == verdict


def test_drop_packet_turns_every_so_manyth_away(director: Director) -> None:
    director.tables.settings.drop_rate = 3
    director.service(VIP, TCP, [Server(RIPS[0])])
    verdicts = [director.run(syn(number + 1))[0] for number in range(9)]
    # The counter begins at 0: the first one is unlucky, then every third (ip_vs_todrop).
    assert verdicts == [XDP_DROP, XDP_REDIRECT, XDP_REDIRECT] * 3
    assert director.counted()["drop_unlucky"] == 3


def test_secure_tcp_holds_half_open_connections(director: Director) -> None:
    director.tables.settings.secure_states = 1
    director.service(VIP, TCP, [Server(RIPS[0])])
    director.exchange(syn())
    (conn,) = director.connections()
    director.exchange(syn(flags="A"))
    assert layout.TCP_STATES[conn.state & 0xF] == "SYN_RECV"
    director.exchange(Datagram(RIPS[0], CLIENT, 80, 40000, TCP, "SA").frame())
    assert layout.TCP_STATES[conn.state & 0xF] == "SYNACK"


def test_data_connections_of_ftp_servers_are_not_scheduled(director: Director) -> None:
    director.service(VIP, TCP, [Server(RIPS[0])])
    director.counted()
    assert director.run(syn(20))[0] == XDP_PASS
    assert director.counted() == {"pass_no_connection": 1}
