"""FULLNAT's connections being opened: timestamps, MSS, the client's address, and the numbers in options."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet import options as tcp
from tests.packet.director import Director, Server
from tests.packet.frames import TCP, Datagram
from tests.packet.fullnat import CLIENT, LIP, PORT, RIP, VIP, WHOLE, answer, inward, key_of, outward, pool
from tests.packet.test_proxy_protocol import header
from xlvs.dataplane import layout
from xlvs.model import ClientAddress, Forward, Service

pytestmark = pytest.mark.root

MASK = 0xFFFFFFFF
families = pytest.mark.parametrize("family", [4, 6])
STAMPS = bytes([1, 1, tcp.TIMESTAMPS, 10]) + b"TIMEECHO"
SYN = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes(8) + b"\x01\x03\x03\x07"
NO_STAMPS = b"\x02\x04\x05\xb4\x04\x02" + b"\x01" * 10 + b"\x01\x03\x03\x07"
TOLD = [ClientAddress.NONE, ClientAddress.TOA, ClientAddress.PROXY]
told = pytest.mark.parametrize("way", TOLD, ids=[each.name.lower() for each in TOLD])
SIZES = {ClientAddress.NONE: (0, 0), ClientAddress.TOA: (8, 20), ClientAddress.PROXY: (28, 52)}


class Opening:
    """A connection, from the client's SYN to the server's answer."""

    def __init__(self, director: Director, family: int, way: ClientAddress) -> None:
        self.director, self.family, self.way = director, family, way
        key = key_of(family, TCP)
        service = Service(key, scheduler="rr", netmask=WHOLE[family], client_address=way)
        director.define(service, [Server(RIP[family], PORT, Forward.FULLNAT)])
        pool(director, key, LIP[family])
        self.size = SIZES[way][family == 6]
        self.syn = Datagram(CLIENT[family], VIP[family], protocol=TCP, payload=b"", tcp_options=SYN)

    @property
    def conn(self) -> layout.ConnRow:
        (conn,) = self.director.connections()
        return conn

    @property
    def header(self) -> int:
        """How long what stands in front of the client's payload is."""
        return self.size * (self.way is ClientAddress.PROXY)

    def arrives(self, asked: Datagram) -> Datagram:
        """A client's segment in front of which there is nothing of the director's."""
        there = inward(asked, self.conn)
        return replace(there, sequence=there.sequence - self.header & MASK)

    def begin(self) -> Datagram:
        """The SYN and its answer; gives a segment of the server's, to be filled in."""
        _, after = self.director.exchange(self.syn.frame())
        there = replace(self.arrives(self.syn), tcp_options=NO_STAMPS)
        assert after == there.frame()
        return answer(replace(there, tcp_options=b""))


@families
@told
def test_timestamps_are_not_offered_and_mss_leaves_room(
    director: Director, family: int, way: ClientAddress
) -> None:
    opening = Opening(director, family, way)
    said = replace(opening.begin(), tcp_options=SYN)
    _, after = director.exchange(said.frame())
    room = 1460 if family == 4 else 1440
    options = b"\x02\x04" + (room - opening.size).to_bytes(2, "big") + NO_STAMPS[4:]
    wanted = replace(outward(said, opening.syn, opening.conn), tcp_options=options)
    assert after == replace(wanted, acknowledged=opening.syn.sequence + 1).frame()


@families
@told
def test_the_server_is_told(director: Director, family: int, way: ClientAddress) -> None:
    opening = Opening(director, family, way)
    director.exchange(opening.begin().frame())
    asked = replace(
        opening.syn, flags="PA", payload=b"GET", sequence=opening.syn.sequence + 1, tcp_options=b""
    )
    there = opening.arrives(asked)
    if way is ClientAddress.TOA:
        there = replace(there, tcp_options=tcp.toa(asked.source, asked.sport))
    if way is ClientAddress.PROXY:
        there = replace(there, payload=header(family) + b"GET")
    # The server's number is not known to the client otherwise than the server has it.
    assert director.exchange(asked.frame())[1] == there.frame()
    assert there.source == LIP[family]


@families
@told
def test_selective_acknowledgements_follow(director: Director, family: int, way: ClientAddress) -> None:
    opening = Opening(director, family, way)
    said = opening.begin()
    director.exchange(said.frame())
    place = opening.syn.sequence + 1
    known = place + opening.conn.seq_in
    heard = replace(
        said,
        flags="A",
        sequence=said.sequence + 1 & MASK,
        acknowledged=known & MASK,
        tcp_options=b"\x01\x01" + tcp.sack(known + 50 & MASK, known + 70 & MASK),
    )
    for _ in range(2):  # while it is opened, and afterwards
        wanted = replace(
            outward(heard, opening.syn, opening.conn),
            acknowledged=place,
            tcp_options=b"\x01\x01" + tcp.sack(place + 50, place + 70),
        )
        assert director.exchange(heard.frame())[1] == wanted.frame()
        director.exchange(replace(heard, flags="PA", payload=b"hello", tcp_options=b"").frame())
    assert not opening.conn.flags & layout.CONN_OPENING
    asked = replace(
        opening.syn,
        flags="A",
        sequence=place + 30,
        acknowledged=said.sequence + 6 & MASK,
        tcp_options=b"\x01\x01" + tcp.sack(5, 6),
    )
    assert director.exchange(asked.frame())[1] == inward(asked, opening.conn).frame()


@families
@pytest.mark.parametrize("options", [b"", SYN], ids=["bare", "with options"])
@told
def test_a_connection_taken_up_again_is_opened_again(
    director: Director, family: int, options: bytes, way: ClientAddress
) -> None:
    """conn_reuse_mode 0 leaves the connection in place when the client's port comes again."""
    director.tables.settings.sysctl.conn_reuse_mode = 0
    opening = Opening(director, family, way)
    opening.syn = replace(opening.syn, tcp_options=SYN)
    said = opening.begin()
    director.exchange(said.frame())
    known = opening.syn.sequence + 1 + opening.conn.seq_in & MASK
    said = replace(said, sequence=said.sequence + 1 & MASK, acknowledged=known)
    director.exchange(replace(said, flags="PA", payload=b"hello").frame())
    assert not opening.conn.flags & layout.CONN_OPENING
    director.exchange(replace(said, flags="RA").frame())
    numbered = opening.conn.seq_in + opening.syn.sequence
    opening.syn = replace(opening.syn, sequence=0x12345678, tcp_options=options)
    _, after = director.exchange(opening.syn.frame())
    assert opening.conn.flags & layout.CONN_OPENING
    assert (opening.conn.seq_in + opening.syn.sequence - numbered & MASK) < 1 << 31, "it climbs"
    wanted = replace(opening.arrives(opening.syn), tcp_options=NO_STAMPS if options else b"")
    assert after == wanted.frame()
    again = answer(replace(wanted, tcp_options=b""))
    director.exchange(again.frame())
    asked = replace(opening.syn, flags="A", sequence=opening.syn.sequence + 1, tcp_options=b"")
    there = opening.arrives(asked)
    if way is ClientAddress.TOA:
        there = replace(there, tcp_options=tcp.toa(asked.source, asked.sport))
    if way is ClientAddress.PROXY:
        there = replace(there, payload=header(family))
    assert director.exchange(asked.frame())[1] == there.frame()
