"""Limits of new connections, and lists of clients: what a service's defence refuses."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cost import Scales
from bench.frames import Load
from tests.packet import fullnat, options
from tests.packet.director import INSIDE_MAC, SERVER_MAC, XDP_DROP, XDP_PASS, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, UDP, Datagram, ethernet, ip
from tests.packet.sctp import Association, chunk
from xlvs.dataplane import bulk, clients, layout, libbpf
from xlvs.model import AF_INET, Defence, DefenceEntry, Forward, MarkRule, Service, ServiceKey

pytestmark = pytest.mark.root
SCTP = 132
VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.{}", 6: "fd18:0:0:{}::1"}  # each another client to limits
RIP = {4: "10.19.0.11", 6: "fd19::11"}
SECOND = 1 << 32  # of a bucket

Prefixes = dict[tuple[bytes, int], bool]


def prefixes(deny: str = "", allow: str = "") -> Prefixes:
    return {
        (each.network_address.packed, each.prefixlen): allowed
        for text, allowed in ((deny, False), (allow, True))
        for each in map(ip_network, text.split())
    }


@pytest.fixture
def still(director: Director) -> Director:
    """Time stands still for limits: a second has as many jiffies as there are."""
    director.tables.settings.hz = 0xFFFFFFFF
    return director


def serve(
    director: Director, version: int = 4, protocol: int = TCP, method: Forward = Forward.MASQ
) -> ServiceKey:
    port = 80 if method is Forward.ROUTE else 8080
    return director.service(VIP[version], protocol, [Server(RIP[version], port, method)])


def defend(director: Director, key: ServiceKey, **fields: object) -> None:
    change = director.transaction()
    change.set_defence(key, replace(change.defence(key), **fields))  # type: ignore[arg-type]
    director.tables.apply(change.changes())


def entry(director: Director, key: ServiceKey) -> DefenceEntry:
    (found,) = (each for each in clients.entries(director.tables) if each.key == key)
    return found


def begin(client: int, version: int = 4, protocol: int = TCP, sport: int = 1000) -> bytes:
    source = CLIENT[version].format(client)
    if protocol == SCTP:
        return Association(source, VIP[version], sport, 80, chunk("INIT", bytes(16))).frame()
    return Datagram(source, VIP[version], sport, 80, protocol).frame()


def outcomes(director: Director, *frames: bytes) -> list[str]:
    found = []
    for frame in frames:
        verdict, _ = director.run(frame)
        (name,) = director.counted()
        assert (verdict == XDP_DROP) == name.startswith("drop_"), name
        found.append(name)
    return found


# -- limits --------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_a_service_takes_its_limit_at_once_and_no_more(still: Director, version: int, protocol: int) -> None:
    key = serve(still, version, protocol)
    defend(still, key, limit=5)
    frames = [begin(1 + number, version, protocol) for number in range(8)]
    assert outcomes(still, *frames) == ["forwarded"] * 5 + ["drop_service_limit"] * 3
    assert len(still.connections()) == 5
    assert (entry(still, key).over_limit, entry(still, key).over_source_limit) == (3, 0)
    # Who has a connection does not suffer.
    assert outcomes(still, *frames[:5]) == ["forwarded"] * 5
    defend(still, key, limit=0)
    assert outcomes(still, *frames) == ["forwarded"] * 8
    assert clients.entries(still.tables) == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_each_client_has_a_limit_of_its_own(still: Director, version: int, protocol: int) -> None:
    key = serve(still, version, protocol)
    defend(still, key, source_limit=2)
    for client in (1, 2):
        frames = [begin(client, version, protocol, 1000 + number) for number in range(4)]
        assert outcomes(still, *frames) == ["forwarded"] * 2 + ["drop_source_limit"] * 2
    assert (entry(still, key).over_limit, entry(still, key).over_source_limit) == (0, 4)


def test_an_ipv6_client_is_a_network_of_64_bits(still: Director) -> None:
    key = serve(still, 6)
    defend(still, key, source_limit=1)
    one, same, other = ("fd18:0:0:1::1", "fd18:0:0:1:ffff::2", "fd18:0:0:2::1")
    frames = [Datagram(source, VIP[6], protocol=TCP).frame() for source in (one, same, other)]
    assert outcomes(still, *frames) == ["forwarded", "drop_source_limit", "forwarded"]


def test_services_do_not_share_clients(still: Director) -> None:
    for protocol in (TCP, UDP):
        defend(still, serve(still, 4, protocol), source_limit=1)
    frames = [begin(1, 4, protocol, sport) for protocol in (TCP, UDP) for sport in (1, 2)]
    assert outcomes(still, *frames) == ["forwarded", "drop_source_limit"] * 2


def test_one_client_does_not_use_up_the_service(still: Director) -> None:
    defend(still, serve(still), limit=3, source_limit=1)
    flood = [begin(1, sport=1000 + number) for number in range(6)]
    assert outcomes(still, *flood) == ["forwarded"] + ["drop_source_limit"] * 5
    assert outcomes(still, begin(2), begin(3), begin(4)) == ["forwarded"] * 2 + ["drop_service_limit"]


def test_a_flood_over_the_services_limit_writes_nothing_about_its_sources(still: Director) -> None:
    defend(still, serve(still), limit=1, source_limit=1)
    outcomes(still, *(begin(client) for client in range(1, 9)))
    assert len(list(libbpf.keys(still.tables.fd("sources"), 16))) == 1


def test_what_begins_nothing_takes_nothing(still: Director) -> None:
    defend(still, serve(still), limit=1, source_limit=1)
    stray = [Datagram(CLIENT[4].format(1), VIP[4], protocol=TCP, flags=flags).frame() for flags in "AFR"]
    assert outcomes(still, *stray) == ["pass_no_connection"] * 3
    assert outcomes(still, begin(1), begin(2)) == ["forwarded", "drop_service_limit"]


def test_a_connection_that_is_replaced_counts_as_a_new_one(still: Director) -> None:
    defend(still, serve(still), limit=2)
    assert outcomes(still, begin(1)) == ["forwarded"]
    for state in (layout.TCP_STATES.index("TIME_WAIT"), layout.TCP_STATES.index("CLOSE")):
        (row,) = still.connections()
        row.state = state
        expected = "forwarded" if state == layout.TCP_STATES.index("TIME_WAIT") else "drop_service_limit"
        assert outcomes(still, begin(1)) == [expected]


# Powers of two, and times of 1/64 second: no rounding, so that the model is exact.
@given(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.lists(st.one_of(st.none(), st.integers(0, 96)), max_size=40),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_limit_is_a_token_bucket(
    still: Director, limit: int, events: list[int | None], by_source: bool
) -> None:
    """Connections (None) and time that passes (in 64ths of a second), against the textbook's bucket."""
    still.reset()
    still.tables.settings.hz = 0xFFFFFFFF
    key = serve(still)
    defend(still, key, **({"source_limit": limit} if by_source else {"limit": limit}))
    tokens, port = float(limit), 1000
    for event in events:
        if event is None:
            expected = "forwarded" if tokens >= 1 else f"drop_{'source' if by_source else 'service'}_limit"
            assert outcomes(still, begin(1, sport=port)) == [expected]
            tokens -= tokens >= 1
            port += 1
        else:
            tokens = min(limit, tokens + event / 64 * limit)
            pass_time(still, event * (SECOND // 64))


def pass_time(director: Director, amount: int) -> None:
    """As if so much time had gone by: what is spent moves into the past."""
    row = director.tables.service_row(0)
    if row.syn_bucket:
        row.syn_bucket -= amount
    sources = director.tables.fd("sources")
    for key in list(libbpf.keys(sources, 16)):
        spent = int.from_bytes(libbpf.lookup(sources, key, 8) or b"", "little") - amount
        libbpf.update(sources, key, (spent % (1 << 64)).to_bytes(8, "little"))


def test_a_limit_holds_on_two_cpus_at_once(still: Director) -> None:
    """New flows as fast as both CPUs make them: exactly as many as the limit lets in."""
    key = serve(still, method=Forward.ROUTE)
    defend(still, key, limit=500)
    still._fill_caches()
    still.counted()
    entry_program = still.plane.program_fd("xlvs_known")
    scales = [Scales() for _ in range(2)]

    def flood(number: int) -> None:
        load = Load(CLIENT_MAC, DIRECTOR_MAC, VIP[4], 80, TCP, fresh=True)
        load.write(scales[number]._frames, 0, first=number << 20)
        scales[number].weigh(entry_program, "lo", 20_000)

    workers = [threading.Thread(target=flood, args=(number,)) for number in range(2)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for each in scales:
            each.close()
    seen = still.counted()
    assert len(still.connections()) == seen["forwarded"] == 500
    assert sum(seen.values()) == 40_000
    assert entry(still, key).over_limit == seen["drop_service_limit"] == 39_500


# -- lists ---------------------------------------------------------------------


def test_deny_allow_and_the_longest_prefix(director: Director) -> None:
    key = serve(director)
    denied = prefixes("198.18.0.0/24", "198.18.0.7/32")
    defend(director, key, clients=denied)
    assert outcomes(director, begin(1), begin(7), begin(1)) == ["drop_denied", "forwarded", "drop_denied"]
    # An exception from what is denied makes no allow list: everybody else is served.
    stranger = Datagram("203.0.113.1", VIP[4], protocol=TCP)
    assert outcomes(director, stranger.frame()) == ["forwarded"]
    found = entry(director, key)
    assert found.packets == {prefix: 1 if allowed else 2 for prefix, allowed in denied.items()}
    assert found.others is None
    # What stays goes on counting; a prefix allowed by itself shuts all others out.
    defend(director, key, clients={**denied, **prefixes(allow="192.0.2.0/24")})
    assert outcomes(director, replace(stranger, sport=7).frame(), begin(1)) == ["drop_denied"] * 2
    found = entry(director, key)
    assert found.others == 1
    assert found.packets[ip_address("198.18.0.0").packed, 24] == 3
    friend = replace(stranger, source="192.0.2.200").frame()
    assert outcomes(director, friend, begin(7, sport=2)) == ["forwarded"] * 2


def test_connections_that_exist_go_on_unless_every_packet_is_checked(director: Director) -> None:
    key = serve(director)
    known = replace(Datagram(CLIENT[4].format(1), VIP[4], 1000, protocol=TCP), flags="A").frame()
    assert outcomes(director, begin(1), begin(2)) == ["forwarded"] * 2
    defend(director, key, clients=prefixes("198.18.0.1"))
    assert outcomes(director, known, begin(1, sport=7)) == ["forwarded", "drop_denied"]
    defend(director, key, every_packet=True)
    assert director.tables.dest_row(0).flags & layout.DEST_SPECIAL
    answer = Datagram(RIP[4], CLIENT[4].format(1), 8080, 1000, TCP, flags="A").frame()
    assert outcomes(director, known, begin(2), answer) == ["drop_denied", "forwarded", "forwarded"]
    # A server that comes later has its connections checked, too.
    director.add(key, Server("10.19.0.12", 8080))
    assert director.tables.dest_row(1).flags & layout.DEST_SPECIAL
    defend(director, key, every_packet=False)
    assert not any(director.tables.dest_row(number).flags & layout.DEST_SPECIAL for number in (0, 1))
    assert outcomes(director, known) == ["forwarded"]


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
@pytest.mark.parametrize("version", [4, 6])
def test_every_transport_is_checked(director: Director, version: int, protocol: int) -> None:
    key = serve(director, version, protocol)
    assert outcomes(director, begin(1, version, protocol)) == ["forwarded"]
    nobody = prefixes("0.0.0.0/0" if version == 4 else "::/0")
    defend(director, key, clients=nobody, every_packet=True)
    assert outcomes(director, begin(1, version, protocol), begin(2, version, protocol)) == ["drop_denied"] * 2


def test_fragments_of_a_connection_are_checked(director: Director) -> None:
    key = serve(director, 4, UDP, Forward.ROUTE)
    segment = Datagram(CLIENT[4].format(1), VIP[4], payload=bytes(992)).segment()

    def fragments() -> list[bytes]:
        return [
            ethernet(
                ip(CLIENT[4].format(1), VIP[4], UDP, data, fragment=word, identity=77),
                DIRECTOR_MAC,
                CLIENT_MAC,
            )
            for data, word in ((segment[:600], 0x2000), (segment[600:], 75))
        ]

    assert outcomes(director, *fragments()) == ["forwarded"] * 2
    defend(director, key, clients=prefixes("198.18.0.0/16"), every_packet=True)
    assert outcomes(director, *fragments()) == ["drop_denied"] * 2


def test_what_is_denied_is_refused_before_anything_else(director: Director) -> None:
    """Packets of no connection, too, which the kernel would answer."""
    key = serve(director)
    defend(director, key, clients=prefixes("198.18.0.1"), limit=1)
    strays = [Datagram(CLIENT[4].format(1), VIP[4], protocol=TCP, flags=flags).frame() for flags in "SAFR"]
    assert outcomes(director, *strays) == ["drop_denied"] * 4
    assert outcomes(director, begin(2)) == ["forwarded"]


def test_services_by_mark_and_of_every_port(director: Director) -> None:
    marked = Service(ServiceKey(AF_INET, 0, b"", 0, 9), "rr")
    director.define(marked, [Server(RIP[4], 0)])
    change = director.transaction()
    change.set_marks([MarkRule(9, AF_INET, ip_address(VIP[4]).packed, 32)])
    change.set_defence(marked.key, Defence(clients=prefixes("198.18.0.1")))
    director.tables.apply(change.changes())
    assert outcomes(director, begin(1), begin(2)) == ["drop_denied", "forwarded"]


def test_rows_vanish_with_the_service(director: Director) -> None:
    key, other = serve(director), serve(director, 4, UDP)
    for each in (key, other):
        defend(director, each, clients=prefixes("198.18.0.0/16", "10.0.0.0/8"), limit=7)
    assert len(bulk.entries(director.tables.fd("clients"), 24, 16)[0]) == 2 * 3 * 24
    change = director.transaction()
    service = Service(key, "rr")
    change.delete_service(key)
    change.add_service(service)
    director.tables.apply(change.changes())
    assert [each.key for each in clients.entries(director.tables)] == [other]
    assert set(clients.read_all(director.tables)) == {1}
    change = director.transaction()
    change.flush()
    director.tables.apply(change.changes())
    assert clients.read_all(director.tables) == {}
    # A new service in the same row begins with nothing.
    again = serve(director)
    assert director.transaction().defence(again) == Defence()
    assert outcomes(director, begin(1)) == ["forwarded"]


def test_an_edited_service_keeps_its_defence(director: Director) -> None:
    key = serve(director)
    wanted = Defence(100, 10, True, prefixes("198.18.0.0/16", "198.18.1.0/24"))
    defend(director, key, limit=100, source_limit=10, every_packet=True, clients=wanted.clients)
    change = director.transaction()
    change.edit_service(Service(key, "wlc"))
    director.tables.apply(change.changes())
    director.add(key, Server("10.19.0.13", 8080))
    assert director.transaction().defence(key) == wanted
    assert outcomes(director, begin(1)) == ["drop_denied"]


SPACE = {4: "198.18.{}.{}", 6: "fd18::{}:{}"}


def random_prefix(chooser: random.Random, version: int) -> tuple[bytes, int]:
    size = 32 if version == 4 else 128
    address = random_client(chooser, version)
    bits = chooser.choice((0, 8, size - 16, size - 10, size - 2, size - 1, size))
    network = ip_network((address, bits), strict=False)
    return network.network_address.packed, bits


def random_client(chooser: random.Random, version: int) -> bytes:
    return ip_address(SPACE[version].format(chooser.randrange(4), chooser.randrange(8))).packed


def test_random_lists_one_in_place_of_the_other(director: Director) -> None:
    """Every client gets what the lists come to when worked out the long way; packets are counted."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    keys = {version: serve(director, version, UDP) for version in (4, 6)}
    sport = 1024
    for _ in range(30):
        version = chooser.choice((4, 6))
        key = keys[version]
        wanted = {
            random_prefix(chooser, version): chooser.random() < 0.5 for _ in range(chooser.randrange(12))
        }
        defend(director, key, clients=wanted)
        assert director.transaction().defence(key).clients == wanted
        before = packets(director, key)
        expected: Counter[object] = Counter()
        for _ in range(20):
            client, sport = random_client(chooser, version), sport + 1
            frame = Datagram(str(ip_address(client)), VIP[version], sport, 80).frame()
            verdict, _ = director.run(frame)
            served = clients.allows(wanted, client)
            assert (verdict != XDP_DROP) == served, f"seed {seed}: {ip_address(client)} by {wanted}"
            assert verdict != XDP_PASS
            expected[decider(wanted, client)] += 1
        assert packets(director, key) - before == +Counter(
            {name: count for name, count in expected.items() if name is not None}
        )
        director.forget_connections()


def packets(director: Director, key: ServiceKey) -> Counter[object]:
    for each in clients.entries(director.tables):
        if each.key == key:
            found: Counter[object] = Counter(dict(each.packets))
            return found + Counter({"others": each.others or 0})
    return Counter()


def decider(wanted: Prefixes, client: bytes) -> object:
    """Which prefix decides: the longest; else the rule for all others, where there is one."""
    holding = [
        (bits, address) for address, bits in wanted if ip_address(client) in ip_network((address, bits))
    ]
    if holding:
        bits, address = max(holding)
        return address, bits
    return "others" if clients.denies_others(wanted) else None


@pytest.mark.parametrize("version", [4, 6])
def test_claims_are_blanked_where_every_packet_is_checked(director: Director, version: int) -> None:
    """Found by the hostile frames: NAT's options were looked at on the fast way only."""
    key = serve(director, version)
    denied = prefixes("203.0.113.0/24" if version == 4 else "2001:db8::/32")
    defend(director, key, clients=denied, every_packet=True)
    client = CLIENT[version].format(1)
    claim = options.toa("192.0.2.66" if version == 4 else "2001:db8:66::66", 666)
    forged = Datagram(client, VIP[version], protocol=TCP, tcp_options=options.padded(claim), payload=b"")
    for flags in ("S", "A", "PA"):
        said = replace(forged, flags=flags)
        _, after = director.exchange(said.frame())
        blank = replace(said, tcp_options=options.padded(bytes([options.NOP]) * len(claim)))
        there = replace(blank, target=RIP[version], dport=8080, ttl=63)
        assert after == replace(there, source_mac=INSIDE_MAC, target_mac=SERVER_MAC).frame()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_fullnat_whose_packets_are_all_checked_is_the_same(
    director: Director, family: int, protocol: int
) -> None:
    """On the way that is not the fast one packets come out the same, both ways."""
    key = fullnat.serve(director, family, protocol)
    denied = prefixes("203.0.113.0/24" if family == 4 else "2001:db8::/32")
    defend(director, key, clients=denied, every_packet=True)
    asked = Datagram(fullnat.CLIENT[family], fullnat.VIP[family], protocol=protocol, payload=b"")
    _, after = director.exchange(asked.frame())
    (conn,) = director.connections()
    there = fullnat.inward(asked, conn)
    assert after == there.frame()
    # The handshake ends, data is acknowledged: from then on there are no options to change.
    said = fullnat.answer(there)
    assert director.exchange(said.frame())[1] == fullnat.outward(said, asked, conn).frame()
    data = replace(
        asked, flags="PA", payload=b"data", sequence=asked.sequence + 1, acknowledged=said.sequence + 1
    )
    there = fullnat.inward(data, conn)
    assert director.exchange(data.frame())[1] == there.frame()
    said = fullnat.answer(there, flags="A", sequence=said.sequence + 1)
    for _ in range(2):
        assert director.exchange(said.frame())[1] == fullnat.outward(said, data, conn).frame()
    director.counted()
    defend(director, key, clients=prefixes("0.0.0.0/0" if family == 4 else "::/0"))
    assert outcomes(director, data.frame(), said.frame()) == ["drop_denied", "forwarded"]
