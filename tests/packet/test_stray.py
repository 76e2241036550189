"""tcp_drop_entry, udp_drop_entry, frag_drop_entry: what is nobody's is dropped, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, UDP, Datagram, ethernet, ip
from xlvs.dataplane import layout
from xlvs.model import AF_INET, AF_INET6, Forward, MarkRule, Service, ServiceFlag, ServiceKey

pytestmark = pytest.mark.root
VIP = {4: "10.80.0.1", 6: "fd80::1"}
OTHER = {4: "10.81.0.1", 6: "fd81::1"}  # of no service
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
FAMILY = {4: AF_INET, 6: AF_INET6}
# Whatever begins no connection.
BEGINS_NOTHING = ["A", "F", "FA", "R", "RA", "PA", "SR", ""]


@pytest.fixture
def strict(director: Director) -> Director:
    """Services of TCP and UDP, and all three sysctls on."""
    for version in (4, 6):
        for protocol in (TCP, UDP):
            director.service(VIP[version], protocol, [Server(RIP[version], 8080)])
    sysctl = director.tables.settings.sysctl
    sysctl.tcp_drop_entry = sysctl.udp_drop_entry = sysctl.frag_drop_entry = 1
    return director


def packet(version: int, protocol: int = TCP, **fields: object) -> Datagram:
    base = Datagram(CLIENT[version], VIP[version], protocol=protocol)
    return replace(base, **fields)  # type: ignore[arg-type]


def outcome(director: Director, frame: bytes) -> tuple[int, str]:
    """The verdict, and the one outcome that was counted; what is left to the kernel is untouched."""
    verdict, after = director.run(frame)
    if verdict == XDP_PASS:
        assert after == frame
    (name,) = director.counted()
    return verdict, name


@contextmanager
def no_trace(director: Director) -> Iterator[None]:
    """No connection, no key, nothing remembered of a datagram."""
    before = director.index_size(), len(director.connections())
    yield
    assert (director.index_size(), len(director.connections())) == before


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", BEGINS_NOTHING)
def test_tcp_that_begins_nothing_is_dropped(strict: Director, version: int, flags: str) -> None:
    with no_trace(strict):
        assert outcome(strict, packet(version, flags=flags).frame()) == (XDP_DROP, "drop_stray_tcp")
    strict.tables.settings.sysctl.tcp_drop_entry = 0
    assert outcome(strict, packet(version, flags=flags).frame()) == (XDP_PASS, "pass_no_connection")


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_of_a_connection_and_of_no_service_goes_its_way(strict: Director, version: int) -> None:
    assert outcome(strict, packet(version, flags="A", dport=81).frame()) == (XDP_PASS, "not_ours")
    assert outcome(strict, packet(version, flags="A", target=OTHER[version]).frame())[0] == XDP_PASS
    for flags in ("S", "A", "PA", "FA", "A", "R"):
        strict.exchange(packet(version, flags=flags).frame())
    assert set(strict.counted()) == {"forwarded"}


def test_a_syn_ack_begins_a_connection_as_in_ipvs(strict: Director) -> None:
    strict.exchange(packet(4, flags="SA").frame())


@pytest.mark.parametrize("flags", ["A", "PA", "F", ""])
def test_with_sloppy_tcp_all_but_resets_begin_connections(strict: Director, flags: str) -> None:
    strict.tables.settings.sysctl.sloppy_tcp = 1
    strict.exchange(packet(4, flags=flags).frame())
    assert strict.counted() == {"forwarded": 1}
    assert outcome(strict, packet(4, flags="R", sport=7).frame()) == (XDP_DROP, "drop_stray_tcp")


def test_a_connection_that_is_being_moved_may_come_back(strict: Director) -> None:
    strict.tables.settings.flags |= layout.MIGRATING
    assert outcome(strict, packet(4, flags="A").frame()) == (XDP_DROP, "drop_migrating")


def test_a_third_packet_with_a_cookie_is_not_dropped_unread(strict: Director) -> None:
    """Of a service with SYNPROXY: the program of new connections looks at it first."""
    row = strict.tables.find_service(ip_address(VIP[4]).packed.ljust(16, b"\0") + b"\0\x50\x06\x02")
    assert row is not None
    strict.tables.service_row(row).synproxy = 1
    assert outcome(strict, packet(4, flags="A").frame()) == (XDP_DROP, "drop_cookie")


@pytest.mark.parametrize("version", [4, 6])
def test_services_by_mark_and_of_every_port(director: Director, version: int) -> None:
    director.tables.settings.sysctl.tcp_drop_entry = 1
    family, mask = FAMILY[version], 0xFFFFFFFF if version == 4 else 128
    marked = Service(ServiceKey(family, 0, b"", 0, 5), "rr", netmask=mask)
    director.define(marked, [Server(RIP[version], 0)])
    change = director.transaction()
    address = ip_address(OTHER[version]).packed
    change.set_marks([MarkRule(5, family, address, 8 * len(address), TCP, 90, 90)])
    director.tables.apply(change.changes())
    every = ServiceKey(family, TCP, ip_address(VIP[version]).packed, 0)
    director.define(Service(every, "rr", ServiceFlag.PERSISTENT, 300, mask), [Server(RIP[version], 0)])
    marks = packet(version, target=OTHER[version], dport=90)
    for begun in (packet(version, dport=1234), marks):
        with no_trace(director):
            stray = replace(begun, flags="A").frame()
            assert outcome(director, stray) == (XDP_DROP, "drop_stray_tcp")
        director.exchange(begun.frame())
        director.exchange(replace(begun, flags="A").frame())
        director.counted()
    unmarked = replace(marks, dport=91, flags="A").frame()
    assert outcome(director, unmarked) == (XDP_PASS, "not_ours")


def test_ports_that_an_ftp_service_stands_in_for_are_left_to_the_kernel(director: Director) -> None:
    """The director's own connections from the VIP, say: an FTP service is asked about them, no more."""
    director.tables.settings.sysctl.tcp_drop_entry = 1
    director.service(VIP[4], TCP, [Server(RIP[4], 21)], port=21)
    assert outcome(director, packet(4, dport=40000, flags="A").frame()) == (XDP_PASS, "pass_no_connection")
    data = packet(4, sport=20, dport=40000, flags="S").frame()
    assert outcome(director, data) == (XDP_PASS, "pass_no_connection")
    assert outcome(director, packet(4, dport=21, flags="A").frame()) == (XDP_DROP, "drop_stray_tcp")


@pytest.mark.parametrize("version", [4, 6])
def test_udp_of_no_service_is_dropped_at_a_services_address(strict: Director, version: int) -> None:
    stray = packet(version, UDP, dport=81).frame()
    with no_trace(strict):
        assert outcome(strict, stray) == (XDP_DROP, "drop_stray_udp")
    elsewhere = packet(version, UDP, target=OTHER[version]).frame()
    assert outcome(strict, elsewhere) == (XDP_PASS, "not_ours")
    strict.exchange(packet(version, UDP).frame())
    strict.counted()
    strict.tables.settings.sysctl.udp_drop_entry = 0
    assert outcome(strict, stray) == (XDP_PASS, "not_ours")


def test_udp_where_other_services_have_to_be_asked_first(strict: Director) -> None:
    strict.service(VIP[4], TCP, [Server(RIP[4], 21)], port=21)  # FTP: the program of new flows decides
    assert outcome(strict, packet(4, UDP, dport=81).frame()) == (XDP_DROP, "drop_stray_udp")
    every = ServiceKey(AF_INET, UDP, ip_address(VIP[4]).packed, 0)
    strict.define(Service(every, "rr", ServiceFlag.PERSISTENT, 300), [Server(RIP[4], 0)])
    strict.exchange(packet(4, UDP, dport=81).frame())


def fragment(version: int, data: bytes, offset: int, more: bool, protocol: int = UDP) -> bytes:
    """A fragment to the VIP: ``offset`` in bytes."""
    if version == 4:
        word = offset // 8 | 0x2000 * more
        body = ip(CLIENT[4], VIP[4], protocol, data, fragment=word, identity=77)
    else:
        header = bytes([protocol, 0]) + (offset | more).to_bytes(2, "big") + (77).to_bytes(4, "big")
        body = ip(CLIENT[6], VIP[6], 44, header + data)
    return ethernet(body, DIRECTOR_MAC, CLIENT_MAC)


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_that_follow_nothing_are_dropped(strict: Director, version: int) -> None:
    middle = fragment(version, bytes(24), 1480, True)
    with no_trace(strict):
        assert outcome(strict, middle) == (XDP_DROP, "drop_stray_fragment")
        assert outcome(strict, fragment(version, bytes(8), 800, False)) == (XDP_DROP, "drop_stray_fragment")
    # First ones that begin nothing: a closed port, TCP out of nowhere, an echo request.
    closed = packet(version, UDP, dport=81, payload=bytes(24)).segment()
    ack = packet(version, TCP, flags="A", payload=bytes(12)).segment()
    echo = bytes([8 if version == 4 else 128, *[0] * 23])
    for protocol, first in ((UDP, closed), (TCP, ack), (1 if version == 4 else 58, echo)):
        frame = fragment(version, first, 0, True, protocol)
        assert outcome(strict, frame) == (XDP_DROP, "drop_stray_fragment"), protocol
    strict.tables.settings.sysctl.frag_drop_entry = 0
    assert outcome(strict, fragment(version, closed, 0, True)) == (XDP_PASS, "not_ours")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("method", [Forward.MASQ, Forward.ROUTE])
def test_fragments_behind_their_first_go_on(director: Director, version: int, method: Forward) -> None:
    director.tables.settings.sysctl.frag_drop_entry = 1
    director.service(VIP[version], UDP, [Server(RIP[version], 80, method)])
    whole = packet(version, UDP, payload=bytes(1000)).segment()
    director.exchange(fragment(version, whole[:600], 0, True))
    director._fill_caches()
    director.exchange(fragment(version, whole[600:], 600, False))
    assert director.counted() == {"forwarded": 2}
