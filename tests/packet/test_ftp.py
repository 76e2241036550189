"""FTP through NAT: announcements are noted and rewritten, the streams stay whole."""

from __future__ import annotations

import struct
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import XDP_DROP, XDP_PASS, Director, Server
from tests.packet.frames import TCP, Datagram
from tests.packet.ftp_talk import CLIENT, DATA, MODULUS, RIP, VIP, Talk, announced, commas, serve
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.migrate import Migration
from xlvs.model import Forward

pytestmark = pytest.mark.root

PORT = 50001
SHORT, LONG = "1.1.1.1", "100.100.100.100"
families = pytest.mark.parametrize("family", [4, 6])


def control_row(director: Director, port: int = 40000) -> layout.ConnRow:
    wanted = port >> 8 | (port & 255) << 8
    return next(conn for conn in director.connections() if conn.cport == wanted)


@pytest.mark.parametrize("vip", [SHORT, "10.19.0.99", LONG])
@pytest.mark.parametrize(
    "fields",
    [{}, {"sum": "partial"}, {"tags": (7,)}, {"tcp_options": bytes(12)}, {"options": b"\x01" * 8}],
    ids=["plain", "partial sum", "tagged", "tcp options", "ip options"],
)
def test_a_passive_reply_names_the_vip(director: Director, vip: str, fields: dict[str, object]) -> None:
    serve(director, vip=vip)
    talk = Talk(director, vip=vip, fields=fields).open()
    heard = talk.passive(PORT)
    assert heard.text == b"227 Entering Passive Mode (" + commas(vip, PORT) + b").\r\n"
    assert heard.sequence == talk.server_sequence - len(
        b"227 Entering Passive Mode (" + commas(RIP[4], PORT) + b").\r\n"
    )
    assert announced(director) == [(CLIENT[4], 0, vip, PORT, RIP[4], PORT)]
    assert director.tables.settings.expected == 1
    assert control_row(director).controlled == 1


@families
@pytest.mark.parametrize("address", ["", "{family}|{rip}"], ids=["port alone", "with address"])
def test_an_extended_passive_reply_names_the_port_alone(
    director: Director, family: int, address: str
) -> None:
    serve(director, family)
    talk = Talk(director, family).open()
    talk.says(b"EPSV\r\n")
    named = address.format(family=1 if family == 4 else 2, rip=RIP[family]) if address else "|"
    heard = talk.hears(f"229 Extended (|{named}|{PORT}|)\r\n".encode())
    assert heard.text == f"229 Extended (|||{PORT}|)\r\n".encode()
    assert announced(director) == [(CLIENT[family], 0, VIP[family], PORT, RIP[family], PORT)]


@families
def test_the_first_packet_of_a_data_connection_fills_in_its_port(director: Director, family: int) -> None:
    serve(director, family, port=2121)
    talk = Talk(director, family, server_port=2121).open()
    talk.says(b"EPSV\r\n")
    talk.hears(f"229 Extended (|||{PORT}|)\r\n".encode())
    (slot,) = (n for n in director.live_slots() if director.conn_row(n).flags & layout.CONN_NO_CPORT)
    data = Talk(director, family, 41000, server_port=PORT, vport=PORT)
    got = data.says(flags="S")
    assert (got.target, got.dport, got.sport) == (RIP[family], PORT, 41000)
    back = data.hears(flags="SA")
    assert (back.source, back.sport, back.dport) == (VIP[family], PORT, 41000)
    conn = director.conn_row(slot)
    assert not conn.flags & (layout.CONN_NO_CPORT | layout.CONN_SPECIAL)
    assert layout.TCP_STATES[conn.state & 0xF] == "SYN_RECV"
    assert director.tables.settings.expected == 0
    # Nobody else gets in by that door, and the same client not twice.
    for other in (replace(data.from_client(flags="S"), sport=41001),):
        assert director.run(other.frame())[0] == XDP_PASS
    assert director.loads(RIP[family]) == (2, 0)


@families
def test_an_active_mode_server_may_connect(director: Director, family: int) -> None:
    serve(director, family, port=2121)
    talk = Talk(director, family, server_port=2121).open()
    if family == 4:
        command = b"PORT " + commas(CLIENT[4], 5001) + b"\r\n"
    else:
        command = f"EPRT |2|{CLIENT[6]}|5001|\r\n".encode()
    assert talk.says(command).text == command
    assert announced(director) == [(CLIENT[family], 5001, VIP[family], DATA, RIP[family], 2120)]
    data = Talk(director, family, 5001, server_port=2120, vport=DATA)
    got = data.hears(flags="S")
    assert (got.source, got.sport, got.dport) == (VIP[family], DATA, 5001)
    got = data.says(flags="SA")
    assert (got.target, got.dport) == (RIP[family], 2120)
    data.hears(flags="A")
    assert director.loads(RIP[family]) == (2, 0)


@pytest.mark.parametrize("used", [False, True], ids=["announced only", "used"])
def test_a_clients_port_serves_one_server_after_another(director: Director, used: bool) -> None:
    """Two minutes long the old data connection is listed; the new server's is not to be taken for it."""
    servers = [Server(f"10.19.0.{11 + n}", 21, Forward.MASQ) for n in range(2)]
    director.service(VIP[4], TCP, servers, port=21)
    command = b"PORT " + commas(CLIENT[4], 5001) + b"\r\n"
    for number, rip in enumerate(("10.19.0.12", "10.19.0.11", "10.19.0.12")):
        Talk(director, port=40000 + number, rip=rip).open().says(command)
        assert announced(director) == [(CLIENT[4], 5001, VIP[4], DATA, rip, DATA)]
        data = Talk(director, port=5001, server_port=DATA, vport=DATA, rip=rip)
        if not used:
            continue
        assert data.hears(flags="S").source == VIP[4]
        assert data.says(flags="SA").target == rip
        for flags in ("A", "FA"):
            data.hears(flags=flags)
        data.says(flags="FA")
        data.hears(flags="A")
    assert len(director.connections()) == 3 + 1
    assert sum(conn.controlled for conn in director.connections()) == 1


def test_nothing_is_rewritten_that_nobody_asked_for(director: Director) -> None:
    serve(director)
    talk = Talk(director).open()
    reply = b"227 Entering Passive Mode (" + commas(RIP[4], PORT) + b")\r\n"
    assert talk.hears(reply).text == reply
    talk.says(b"PASV\r\n")
    assert talk.hears(reply).text != reply
    assert talk.hears(reply).text == reply, "asked for once"
    talk.says(b"PASV\r\n")
    talk.says(b"PORT " + commas(CLIENT[4], 5001) + b"\r\n")
    assert talk.hears(reply).text == reply, "passive mode was left"


@pytest.mark.parametrize("method", [Forward.ROUTE, Forward.TUNNEL])
def test_other_methods_are_not_watched(director: Director, method: Forward) -> None:
    director.service(VIP[4], TCP, [Server(RIP[4], 21, method)], port=21)
    datagram = Datagram(CLIENT[4], VIP[4], 40000, 21, TCP, "S", b"")
    director.exchange(datagram.frame())
    assert not control_row(director).flags & (layout.CONN_WATCHED | layout.CONN_SPECIAL)
    for flags, text in (("A", b""), ("PA", b"PORT " + commas(CLIENT[4], 5001) + b"\r\n")):
        director.exchange(replace(datagram, flags=flags, payload=text).frame())
    assert len(director.connections()) == 1


def test_a_reply_sent_again_is_rewritten_again(director: Director) -> None:
    """IPVS passes it with the address inside, and with the length that the client does not expect."""
    serve(director, vip=LONG)
    talk = Talk(director, vip=LONG).open()
    talk.says(b"PASV\r\n")
    reply = talk.from_server(b"227 Entering (" + commas(RIP[4], PORT) + b")\r\n")
    first = talk.pass_on(reply)
    assert talk.pass_on(reply) == first
    later = talk.hears(b"150 here\r\n")
    assert later.sequence == first.sequence + len(first.text)
    assert talk.pass_on(reply) == first
    assert len(announced(director)) == 1


def test_damaged_segments_go_no_further(director: Director) -> None:
    serve(director)
    talk = Talk(director).open()
    before = director.counted()
    for datagram in (talk.from_client(b"PASV\r\n"), talk.from_server(b"200 fine\r\n"), talk.from_client()):
        frame = bytearray(datagram.frame())
        frame[-1] ^= 1
        assert director.run(bytes(frame))[0] == XDP_DROP
        assert director.counted() == {"drop_malformed": 1}, before


def test_two_servers_may_announce_one_port(director: Director) -> None:
    """The newest is met first, then the one before it (as IPVS's hash chains have it)."""
    servers = [Server("10.19.0.11", 21, Forward.MASQ), Server("10.19.0.12", 21, Forward.MASQ)]
    director.service(VIP[4], TCP, servers, port=21)
    talks = [Talk(director, port=40000 + n, rip=f"10.19.0.{12 - n}").open() for n in range(2)]
    for talk in talks:
        talk.passive(PORT)
    assert len(announced(director)) == 2
    got = [
        Talk(director, port=41000 + n, server_port=PORT, vport=PORT, rip=f"10.19.0.{11 + n}").says(flags="S")
        for n in range(2)
    ]
    assert [segment.target for segment in got] == ["10.19.0.11", "10.19.0.12"]
    assert not announced(director)
    assert director.tables.settings.expected == 0
    third = Talk(director, port=41002, server_port=PORT, vport=PORT).from_client(flags="S")
    assert director.run(third.frame())[0] == XDP_PASS


def test_a_full_table_leaks_nothing(director: Director) -> None:
    serve(director)
    talk = Talk(director).open()
    rows = [director.conn_row(slot) for slot in range(director.slots)]
    held = [row for row in rows if row.phase & layout.PHASE == layout.FREE]
    for row in held:
        row.phase |= layout.CLAIMED
    talk.says(b"PASV\r\n")
    reply = talk.from_server(b"227 (" + commas(RIP[4], PORT) + b")\r\n")
    commands = [talk.from_client(b"PORT " + commas(CLIENT[4], 5001) + b"\r\n")]
    for datagram in (reply, *commands):
        director.counted()
        assert director.run(datagram.frame())[0] == XDP_DROP
        assert director.counted() == {"drop_table_full": 1}
    assert director.tables.settings.expected == 0
    assert control_row(director).controlled == 0
    for row in held:
        row.phase &= ~layout.PHASE
    assert talk.pass_on(commands[0]).text == commands[0].payload
    assert control_row(director).controlled == 1


def test_a_control_connection_replaced_by_another_lives_on_for_its_data(director: Director) -> None:
    serve(director)
    talk = Talk(director).open()
    talk.passive(PORT)
    talk.says(flags="FA")
    talk.hears(flags="FA")
    anew = Talk(director)
    anew.says(flags="S")
    ours = [conn for conn in director.connections() if conn.cport]
    assert sorted(layout.TCP_STATES[conn.state & 0xF] for conn in ours) == ["SYN_RECV", "TIME_WAIT"]
    assert anew.hears(flags="SA").source == VIP[4]


@pytest.mark.parametrize("servers", [1, 2])
def test_a_replaced_control_connection_keeps_no_key_in_new_tables(director: Director, servers: int) -> None:
    """It is in a later slot than its successor: whoever is copied last would have the keys."""
    director.service(
        VIP[4], TCP, [Server(f"10.19.0.{11 + n}", 21, Forward.MASQ) for n in range(servers)], port=21
    )
    first = Talk(director, rip=f"10.19.0.{10 + servers}").open()
    first.passive(PORT)
    first.says(flags="FA")
    first.hears(flags="FA")
    (old,) = (slot for slot in director.live_slots() if director.conn_row(slot).cport)
    rows = [director.conn_row(slot) for slot in range(old, director.slots)]
    held = [row for row in rows if row.phase & layout.PHASE == layout.FREE]
    for row in held:
        row.phase |= layout.CLAIMED  # only earlier slots are free
    Talk(director, rip=RIP[4]).says(flags="S")
    for row in held:
        row.phase &= ~layout.PHASE
    (new,) = (slot for slot in director.live_slots() if director.conn_row(slot).cport and slot != old)
    assert new < old
    with closing(Director(director.slots)) as other:
        Migration(director.tables, other.plane, other.slots).begin()
        assert len(other.connections()) == 3
        # The announced one's, and its own two.
        assert sorted(each & layout.REF_SLOT == new for each in references(other)) == [False, True, True]
        assert old not in {each & layout.REF_SLOT for each in references(other)}


def references(director: Director) -> list[int]:
    """What the IPv4 index names."""
    index = director.tables.fd("conn_index4")
    found = [libbpf.lookup(index, key, 4) for key in list(libbpf.keys(index, 16))]
    return [int.from_bytes(each, "little") for each in found if each]


class Stream:
    """What one side has received, byte by byte of sequence space."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.bytes: dict[int, int] = {}

    def take(self, sequence: int, text: bytes) -> None:
        at = (sequence - self.start) % MODULUS
        for offset, byte in enumerate(text):
            assert self.bytes.setdefault(at + offset, byte) == byte, "the same place, other bytes"

    @property
    def text(self) -> bytes:
        assert sorted(self.bytes) == list(range(len(self.bytes))), "a gap"
        return bytes(self.bytes[place] for place in range(len(self.bytes)))


PLAIN = st.tuples(st.just(False), st.binary(min_size=1, max_size=60))
PASSIVE = st.tuples(st.just(True), st.sampled_from([b"", b" Entering", b"x" * 200]))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replies=st.lists(st.one_of(PLAIN, PASSIVE), min_size=1, max_size=12),
    vip=st.sampled_from([SHORT, "10.19.0.99", LONG]),
    start=st.sampled_from([70000, MODULUS - 100, MODULUS - 1, 2**31 - 50]),
    again=st.booleans(),
)
def test_streams_stay_whole(
    director: Director, replies: list[tuple[bool, bytes]], vip: str, start: int, again: bool
) -> None:
    """What the client hears is without gaps and overlaps, and its acknowledgements mean the same."""
    director.reset()
    serve(director, vip=vip)
    talk = Talk(director, vip=vip, server_sequence=start)
    talk.open()
    heard = Stream(start + 1)
    sent = b""
    told = b""  # what the client ought to hear
    for passive, text in replies:
        if passive:
            talk.says(b"PASV\r\n")
            said = b"227" + text + b" (" + commas(RIP[4], PORT) + b")\r\n"
            told += b"227" + text + b" (" + commas(vip, PORT) + b")\r\n"
            if not text.startswith(b" ") and text:  # "227x": no reply to PASV
                told = told[: -len(commas(vip, PORT)) - 3] + commas(RIP[4], PORT) + b")\r\n"
        else:
            said = b"-" + text
            told += said
        sent += said
        datagram = talk.from_server(said)
        got = talk.pass_on(datagram)
        heard.take(got.sequence, got.text)
        if again:
            got = talk.pass_on(datagram)
            heard.take(got.sequence, got.text)
        acknowledged = (start + 1 + len(told)) % MODULUS
        edges = struct.pack("!II", (acknowledged - 1) % MODULUS, acknowledged)
        options = b"\x01\x05\x0a" + edges + b"\x00"  # SACK where it need not be: at an odd place
        arrived = talk.says(flags="A", acknowledged=acknowledged, tcp_options=options)
        expected = (start + 1 + len(sent)) % MODULUS
        assert arrived.acknowledged == expected
        assert struct.unpack("!II", arrived.options[3:11]) == ((expected - 1) % MODULUS, expected)
    assert heard.text == told


def test_an_error_quotes_a_segment_as_it_came(director: Director) -> None:
    serve(director, vip=LONG)
    talk = Talk(director, vip=LONG).open()
    talk.passive(PORT)
    for datagram in (talk.from_server(b"150 here\r\n", ttl=1), talk.from_client(b"NOOP\r\n", ttl=1)):
        _, after = director.run(datagram.frame())
        assert after.endswith(datagram.packet())
        assert director.counted()["drop_ttl"] == 1
