"""Persistence: templates, what hangs on them, and the engine that reads SIP."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import swap16
from xlvs.model import Forward, Service, ServiceFlag, ServiceKey

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
SERVERS = {4: ["10.19.0.11", "10.19.0.12", "10.19.0.13"], 6: ["fd19::11", "fd19::12", "fd19::13"]}
families = pytest.mark.parametrize("family", [4, 6])


def client(family: int, number: int) -> str:
    base = ip_address({4: "198.18.0.1", 6: "fd18::1"}[family])
    return str(base + number)


def persistent(
    director: Director,
    family: int = 4,
    protocol: int = TCP,
    port: int = 80,
    netmask: int | None = None,
    server_port: int = 80,
    **fields: object,
) -> ServiceKey:
    key = ServiceKey(2 if family == 4 else 10, protocol, ip_address(VIP[family]).packed, port)
    mask = (0xFFFFFFFF if family == 4 else 128) if netmask is None else netmask
    service = Service(key, "rr", ServiceFlag.PERSISTENT, timeout=300, netmask=mask)
    service = replace(service, **fields)  # type: ignore[arg-type]
    director.define(service, [Server(each, server_port) for each in SERVERS[family]])
    return key


def chosen(director: Director, frame: bytes) -> str:
    """The server that a first packet went to."""
    _, after = director.exchange(frame)
    version = after[14] >> 4
    return str(ip_address(after[30:34] if version == 4 else after[38:54]))


def templates(director: Director) -> list[layout.ConnRow]:
    return [row for row in director.connections() if row.flags & layout.CONN_TEMPLATE]


def syn(family: int, number: int, sport: int = 40000, **fields: object) -> bytes:
    datagram = Datagram(client(family, number), VIP[family], sport, protocol=TCP)
    return replace(datagram, **fields).frame()  # type: ignore[arg-type]


@families
def test_a_client_stays_with_its_server(director: Director, family: int) -> None:
    persistent(director, family)
    first = chosen(director, syn(family, 1))
    assert {chosen(director, syn(family, 1, 41000 + n)) for n in range(6)} == {first}
    assert chosen(director, syn(family, 2)) != first
    assert len(templates(director)) == 2
    (template,) = (row for row in templates(director) if row.controlled == 7)
    assert template.timeout == 300_000
    assert template.protocol == TCP
    assert (template.cport, swap16(template.vport), swap16(template.dport)) == (0, 80, 80)
    assert director.tables.load_row(director.dest_number(first)).persistent == 1
    assert director.loads(first) == (7, 0)


@pytest.mark.parametrize(
    ("family", "netmask", "neighbour", "stranger"),
    [(4, 0xFFFFFF00, 200, 256), (6, 120, 200, 256), (6, 60, 1 << 64, 1 << 70), (4, 0, 1 << 20, None)],
)
def test_a_network_of_clients_shares_a_template(
    director: Director, family: int, netmask: int, neighbour: int, stranger: int | None
) -> None:
    persistent(director, family, netmask=netmask)
    first = chosen(director, syn(family, 1))
    assert chosen(director, syn(family, neighbour)) == first
    assert len(templates(director)) == 1
    if stranger is not None:
        assert chosen(director, syn(family, stranger)) != first


@families
def test_a_service_of_every_port_keeps_a_client_on_one_server(director: Director, family: int) -> None:
    persistent(director, family, port=0, server_port=0)
    first = chosen(director, syn(family, 1, dport=80))
    assert chosen(director, syn(family, 1, dport=8443)) == first
    (template,) = templates(director)
    assert (template.vport, template.dport) == (0, 0)
    ports = {swap16(row.dport) for row in director.connections() if not row.flags & layout.CONN_TEMPLATE}
    assert ports == {80, 8443}


def test_an_exact_service_comes_before_that_of_every_port(director: Director) -> None:
    persistent(director, port=0, server_port=0)
    director.service(VIP[4], TCP, [Server("10.19.0.99")])
    assert chosen(director, syn(4, 1)) == "10.19.0.99"
    assert chosen(director, syn(4, 1, dport=81)) in SERVERS[4]


def test_a_service_of_every_port_without_persistence_serves_nobody(director: Director) -> None:
    director.service(VIP[4], TCP, [Server("10.19.0.99", 0)], port=0)
    director.counted()
    director.run(syn(4, 1))
    assert director.counted() == {"drop_no_destination": 1}
    assert not director.connections()


def test_an_ftp_service_takes_data_connections_along(director: Director) -> None:
    persistent(director, port=21, server_port=21)
    first = chosen(director, syn(4, 1, dport=21))
    assert chosen(director, syn(4, 1, dport=35000)) == first
    assert chosen(director, syn(4, 1, dport=20)) == first
    (template,) = templates(director)
    assert (template.vport, template.dport) == (0, 0)
    director.counted()
    director.run(syn(4, 1, dport=443))
    assert director.counted() == {"not_ours": 1}


def test_a_template_without_its_server_is_put_away(director: Director) -> None:
    key = persistent(director)
    first = chosen(director, syn(4, 1))
    director.remove(key, Server(first))
    second = chosen(director, syn(4, 1, 40001))
    assert second != first
    ports = sorted(swap16(row.vport) for row in templates(director))
    assert ports == [80, 0xFFFF]
    assert chosen(director, syn(4, 1, 40002)) == second


@pytest.mark.parametrize("expire", [0, 1])
def test_a_quiesced_server_keeps_its_clients_unless_told_otherwise(director: Director, expire: int) -> None:
    director.tables.settings.sysctl.expire_quiescent_template = expire
    key = persistent(director)
    first = chosen(director, syn(4, 1))
    director.edit(key, Server(first, weight=0))
    assert (chosen(director, syn(4, 1, 40001)) == first) is not bool(expire)


def test_a_template_is_assured_by_an_established_connection(director: Director) -> None:
    persistent(director)
    server = chosen(director, syn(4, 1))
    (template,) = templates(director)
    assert layout.TEMPLATE_STATES[template.state] == "NONE"
    answer = Datagram(server, client(4, 1), 80, 40000, protocol=TCP, flags="SA")
    director.exchange(answer.frame())
    director.exchange(syn(4, 1, flags="A"))
    assert layout.TEMPLATE_STATES[template.state] == "ASSURED"


def test_udp_answers_assure_a_template(director: Director) -> None:
    persistent(director, protocol=UDP)
    datagram = Datagram(client(4, 1), VIP[4])
    server = chosen(director, datagram.frame())
    (template,) = templates(director)
    chosen(director, datagram.frame())
    assert layout.TEMPLATE_STATES[template.state] == "NONE"
    director.exchange(Datagram(server, client(4, 1), 80, 40000).frame())
    assert layout.TEMPLATE_STATES[template.state] == "ASSURED"


def message(call_id: bytes, header: bytes = b"Call-ID: ", sport: int = 5060, number: int = 1) -> bytes:
    text = b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n" + header + call_id + b"\r\nFrom: y\r\n\r\n"
    return Datagram(client(4, number), VIP[4], sport, 5060, payload=text).frame()


def sip(director: Director, family: int = 4) -> None:
    persistent(director, family, UDP, 5060, pe_name="sip")


@pytest.mark.parametrize("header", [b"Call-ID: ", b"call-id:", b"i: ", b"I  :  ", b"CALL-ID :\t"])
def test_a_call_stays_with_its_server(director: Director, header: bytes) -> None:
    sip(director)
    first = chosen(director, message(b"one@example.org", header))
    assert chosen(director, message(b"one@example.org", header, 5061)) == first
    assert chosen(director, message(b"two@example.org", header, 5062)) != first
    by_size = sorted(templates(director), key=lambda row: row.controlled)
    assert [row.controlled for row in by_size] == [1, 2]
    slots = [slot for slot in director.live_slots() if director.conn_row(slot).flags & layout.CONN_TEMPLATE]
    size = 256
    found = [
        libbpf.lookup(director.tables.fd("engine_data"), slot.to_bytes(4, "little"), size) for slot in slots
    ]
    assert {data[1 : 1 + data[0]] for data in found if data} == {b"one@example.org", b"two@example.org"}
    assert bytes(by_size[0].caddr)[:4] == ip_address(client(4, 1)).packed


def test_another_client_with_the_same_call_is_another(director: Director) -> None:
    sip(director)
    assert chosen(director, message(b"same")) != chosen(director, message(b"same", number=2))
    assert len(templates(director)) == 2


@pytest.mark.parametrize(
    "frame",
    [
        message(b"x" * 256),
        message(b""),
        message(b"a@"),
        message(b"a b"),
        message(b"one", b"Call-Identity: "),
        message(b"one", b"Item: "),
        Datagram(client(4, 1), VIP[4], 5060, 5060, payload=b"\r\n").frame(),
        Datagram(client(4, 1), VIP[4], 5060, 5060, payload=b"").frame(),
        Datagram(client(4, 1), VIP[4], 5060, 5060, payload=b"x\r\nCall-ID: one").frame(),
    ],
)
def test_a_message_without_a_call_is_dropped(director: Director, frame: bytes) -> None:
    sip(director)
    director.counted()
    verdict, _ = director.run(frame)
    assert verdict == XDP_DROP
    assert director.counted() == {"drop_no_data": 1}
    assert not director.connections()


def test_the_longest_call_is_kept_whole(director: Director) -> None:
    sip(director)
    chosen(director, message(b"y" * 255))
    (slot,) = (s for s in director.live_slots() if director.conn_row(s).flags & layout.CONN_TEMPLATE)
    data = libbpf.lookup(director.tables.fd("engine_data"), slot.to_bytes(4, "little"), 256)
    assert data == bytes((255,)) + b"y" * 255


@families
def test_one_packet_scheduling_leaves_nothing(director: Director, family: int) -> None:
    key = ServiceKey(2 if family == 4 else 10, UDP, ip_address(VIP[family]).packed, 53)
    mask = 0xFFFFFFFF if family == 4 else 128
    servers = [Server(each, method=Forward.MASQ) for each in SERVERS[family]]
    director.define(Service(key, "rr", ServiceFlag.ONEPACKET, netmask=mask), servers)
    datagram = Datagram(client(family, 1), VIP[family], dport=53)
    # The connection has no cache of its own yet, but requests go by the destination's.
    assert len({chosen(director, datagram.frame()) for _ in range(3)}) == 3
    assert not director.connections()
    assert director.index_size() == 0
    assert all(director.loads(each) == (0, 0) for each in SERVERS[family])
    assert director.run(datagram.frame())[0] == XDP_REDIRECT


def call(call_id: bytes, server: str, sport: int = 5060, number: int = 9) -> bytes:
    """What a real server sends of its own accord."""
    text = b"INVITE sip:b@a SIP/2.0\r\nCall-ID: " + call_id + b"\r\n\r\n"
    return Datagram(server, client(4, number), sport, 6000, payload=text).frame()


def test_a_server_that_calls_out_is_answered_at_its_service(director: Director) -> None:
    persistent(director, 4, UDP, 5060, server_port=5060, pe_name="sip")
    server = SERVERS[4][1]
    verdict, _ = director.run(call(b"out@example.org", server))
    assert verdict != XDP_PASS
    rows = director.connections()
    assert [row.flags & layout.CONN_TEMPLATE != 0 for row in rows].count(True) == 1
    (conn,) = (row for row in rows if not row.flags & layout.CONN_TEMPLATE)
    assert bytes(conn.caddr)[:4] == ip_address(client(4, 9)).packed
    assert (swap16(conn.cport), swap16(conn.vport), swap16(conn.dport)) == (6000, 5060, 5060)
    _, after = director.exchange(call(b"out@example.org", server))
    assert after[26:30] == ip_address(VIP[4]).packed
    answer = Datagram(client(4, 9), VIP[4], 6000, 5060, payload=b"x")
    assert chosen(director, answer.frame()) == server
    # The call stays with the server that began it, wherever else it comes from.
    text = b"BYE x\r\nCall-ID: out@example.org\r\n\r\n"
    assert chosen(director, Datagram(client(4, 9), VIP[4], 7000, 5060, payload=text).frame()) == server


@pytest.mark.parametrize(
    "frame", [call(b"x", "10.19.0.77"), call(b"x", SERVERS[4][0], 5061), call(b"", SERVERS[4][0])]
)
def test_who_else_calls_is_left_alone(director: Director, frame: bytes) -> None:
    persistent(director, 4, UDP, 5060, server_port=5060, pe_name="sip")
    assert director.run(frame)[0] == XDP_PASS
    assert not director.connections()


def test_a_server_that_left_calls_no_more(director: Director) -> None:
    key = persistent(director, 4, UDP, 5060, server_port=5060, pe_name="sip")
    director.remove(key, Server(SERVERS[4][0], 5060))
    assert director.run(call(b"x", SERVERS[4][0]))[0] == XDP_PASS
    change = director.transaction()
    change.delete_service(key)
    director.tables.apply(change.changes())
    assert not list(libbpf.keys(director.tables.fd("addresses"), 20))
    assert not director.tables.settings.flags & layout.HAS_CALLERS


@pytest.mark.parametrize("first", ["sip", ""])
def test_of_two_services_with_a_server_the_one_with_an_engine_is_called_from(
    director: Director, first: str
) -> None:
    """Edited meanwhile, too: the other keeps the server, and does not call."""
    server = SERVERS[4][2]  # the head of the list
    for port in (5060, 5061):
        engine = "sip" if (port == 5060) == bool(first) else ""
        key = persistent(director, 4, UDP, port, server_port=5060, pe_name=engine)
        if engine:
            caller, vport = key, port
    service = Service(caller, "rr", ServiceFlag.PERSISTENT, timeout=300, netmask=0xFFFFFFFF)
    for engine in ("sip", "", "sip"):
        change = director.transaction()
        change.edit_service(replace(service, pe_name=engine))
        director.tables.apply(change.changes())
        director.forget_connections()
        verdict, _ = director.run(call(b"out@example.org", server))
        assert (verdict == XDP_PASS) == (not engine)
        ports = {swap16(row.vport) for row in director.connections() if not row.flags & layout.CONN_TEMPLATE}
        assert ports == ({vport} if engine else set())
