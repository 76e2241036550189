"""SYNPROXY's timestamps: given for a server that nobody has asked yet, shifted ever after."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.cookies import Offer
from tests.packet.director import INSIDE_MAC, OUTSIDE_MAC, ROUTER_MAC, SERVER_MAC, Director, Server
from tests.packet.frames import TCP, Datagram, ethernet
from tests.packet.handshake import (
    ALWAYS,
    KEY,
    RIP,
    VIP,
    Seen,
    ack_of,
    cookie_of,
    read,
    row_of,
    server_says,
    service_of,
    syn,
)
from tests.packet.options import NOP, SACK, TIMESTAMPS, toa, walk
from tests.packet.pieces import cut
from tests.packet.test_proxy_protocol import header
from xlvs.daemon.frames import client_ack
from xlvs.dataplane import layout
from xlvs.model import Forward

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
OFFER = Offer(1460, 7, True)
MODULUS = 1 << 32
OWN, SERVERS = 0x70000000, 0xFFFFFF00  # first stamps of the client and the real server
SHIFTED = layout.CONN_STAMPED


def stamps(own: int, echo: int) -> bytes:
    """The option as everybody lays it out."""
    return bytes((NOP, NOP, TIMESTAMPS, 10)) + struct.pack("!II", own % MODULUS, echo % MODULUS)


def stamps_in(options: bytes) -> tuple[int, int] | None:
    """Own stamp and echo."""
    found = [options[at + 2 : at + size] for kind, at, size in walk(options) if kind == TIMESTAMPS]
    if not found:
        return None
    own, echo = struct.unpack("!II", found[-1])
    return own, echo


def begins(family: int = 4, offer: Offer = OFFER, **fields: object) -> Datagram:
    return syn(family, tcp_options=offer.options() + stamps(OWN, 0), **fields)


@dataclass
class Talk:
    """A connection whose handshake went through, and what each end may say on it."""

    asked: Datagram  # the client's SYN
    cookie: Seen
    told: int  # the director's stamp in that
    server: Seen  # the SYN to the real server

    @property
    def shift(self) -> int:
        return (self.told - SERVERS) % MODULUS

    def client(self, options: bytes, **fields: object) -> Datagram:
        sent = ack_of(self.asked, self.cookie, tcp_options=options, payload=b"asked")
        return replace(sent, **fields)  # type: ignore[arg-type]

    def arrives(self, sent: Datagram, options: bytes) -> Datagram:
        """What the real server must get of it."""
        return replace(
            sent,
            target=self.server.target,
            acknowledged=90001,
            tcp_options=options,
            ttl=sent.ttl - 1,
            sum="whole",
            tags=(),
            source_mac=INSIDE_MAC,
            target_mac=SERVER_MAC,
        )

    def says(self, options: bytes, **fields: object) -> Datagram:
        said = server_says(self.server, "A", sequence=90001, tcp_options=options, payload=b"said")
        return replace(said, **fields)  # type: ignore[arg-type]

    def returns(self, said: Datagram, options: bytes) -> Datagram:
        """What the client must get of it."""
        return replace(
            said,
            source=self.asked.target,
            sequence=(self.cookie.sequence + 1) % MODULUS,
            tcp_options=options,
            ttl=said.ttl - 1,
            sum="whole",
            tags=(),
            source_mac=OUTSIDE_MAC,
            target_mac=ROUTER_MAC,
        )


def opened(director: Director, family: int = 4, offer: Offer = OFFER, own: int = OWN) -> Talk:
    """Shake hands as far as the SYN to the real server."""
    asked = begins(family, offer)
    answer = cookie_of(director, asked)
    found = stamps_in(answer.options)
    assert found
    _, frame = director.exchange(ack_of(asked, answer, tcp_options=stamps(own, found[0])).frame())
    director.counted()
    return Talk(asked, answer, found[0], read(frame))


def talking(director: Director, family: int = 4) -> Talk:
    service_of(director, family)
    talk = opened(director, family)
    said = server_says(talk.server, tcp_options=OFFER.options() + stamps(SERVERS, OWN))
    director.run(said.frame())
    assert director.counted() == {"handed_answer": 1}
    (conn,) = director.connections()
    assert conn.flags & SHIFTED
    return talk


@families
@pytest.mark.parametrize("scale", [None, 0, 7])
@pytest.mark.parametrize("sack", [False, True])
def test_both_syns_have_them(director: Director, family: int, scale: int | None, sack: bool) -> None:
    service_of(director, family)
    offer = Offer(1460 if family == 4 else 1440, scale, sack)
    before = director.now()
    talk = opened(director, family, offer, own=OWN + 5)
    assert Offer.read(talk.cookie.options) == replace(offer, scale=None if scale is None else 7)
    assert stamps_in(talk.cookie.options) == (talk.told, OWN)
    assert Offer.read(talk.server.options) == offer
    assert stamps_in(talk.server.options) == (OWN + 5, 0)
    director.forget_connections()
    later = opened(director, family, offer)  # by the same clock, which climbs
    assert (later.told - talk.told) % MODULUS <= director.now() - before


def test_who_offers_none_gets_none(director: Director) -> None:
    service_of(director)
    asked = syn(tcp_options=OFFER.options())
    answer = cookie_of(director, asked)
    assert stamps_in(answer.options) is None
    _, frame = director.exchange(ack_of(asked, answer).frame())
    assert stamps_in(read(frame).options) is None


def test_who_does_not_take_them_gets_none(director: Director) -> None:
    service_of(director)
    answer = cookie_of(director, begins())
    assert stamps_in(answer.options)
    _, frame = director.exchange(ack_of(begins(), answer).frame())
    assert stamps_in(read(frame).options) is None
    (conn,) = director.connections()
    assert not conn.older & layout.OFFER_STAMPS


def test_the_sysctl_says_no(director: Director) -> None:
    service_of(director)
    director.tables.settings.sysctl.synproxy_timestamp = 0
    answer = cookie_of(director, begins())
    assert stamps_in(answer.options) is None
    _, frame = director.exchange(ack_of(begins(), answer, tcp_options=stamps(1, 2)).frame())
    assert stamps_in(read(frame).options) is None


def test_fullnat_lets_nobody_have_them(director: Director) -> None:
    """Nor does a service some of whose servers are reached so: which it will be is not known yet."""
    director.tables.settings.cookie_key[:] = KEY
    key = director.service(VIP[4], TCP, [Server(RIP[4], 80, Forward.MASQ)])
    row_of(director, key).synproxy = ALWAYS
    assert stamps_in(cookie_of(director, begins()).options)
    other = Server("10.19.0.12", 80, Forward.FULLNAT)
    director.add(key, other)
    row_of(director, key).synproxy = ALWAYS
    assert stamps_in(cookie_of(director, begins()).options) is None
    director.remove(key, other)
    row_of(director, key).synproxy = ALWAYS
    assert stamps_in(cookie_of(director, begins()).options)


def test_a_server_without_is_believed_at_once(director: Director) -> None:
    row = service_of(director)
    for offer in (OFFER.options() + stamps(SERVERS, OWN), OFFER.options()):
        talk = opened(director)
        assert stamps_in(talk.server.options) == (OWN, 0)
        director.run(server_says(talk.server, tcp_options=offer).frame())
        director.forget_connections()
    assert stamps_in(cookie_of(director, begins()).options) is None
    assert Offer.read(cookie_of(director, begins()).options) == OFFER
    row.server_offer = 0
    talk = opened(director)
    director.run(server_says(talk.server, tcp_options=OFFER.options()).frame())
    assert not director.connections()[0].flags & SHIFTED
    assert stamps_in(cookie_of(director, begins(sport=2)).options) is None
    # What that client says goes on as it is: its real server passes over it (RFC 7323, 3.2).
    sent = talk.client(stamps(OWN + 1, talk.told))
    assert director.exchange(sent.frame())[1] == talk.arrives(sent, sent.tcp_options).frame()
    said = talk.says(b"")
    assert director.exchange(said.frame())[1] == talk.returns(said, b"").frame()


@families
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sum": "partial"},
        {"tags": (7,)},
        {"payload": b""},
        {"payload": bytes(range(256)) * 5},
        {"flags": "FA"},
    ],
    ids=["plain", "partial sum", "tagged", "nothing", "much", "FIN"],
)
def test_they_are_shifted_both_ways(director: Director, family: int, fields: dict[str, object]) -> None:
    talk = talking(director, family)
    sent = talk.client(stamps(OWN + 9, talk.told + 300), **fields)
    there = talk.arrives(sent, stamps(OWN + 9, SERVERS + 300))
    assert director.exchange(sent.frame())[1] == there.frame()
    said = talk.says(stamps(SERVERS + 400, OWN + 9), **fields)
    back = talk.returns(said, stamps(talk.told + 400, OWN + 9))
    assert director.exchange(said.frame())[1] == back.frame()
    assert director.counted() == {"forwarded": 2}


# What stands around the option; S is a selective acknowledgement.
LAYOUTS = {
    "behind a SACK": (b"S", b"\x01\x01"),
    "before a SACK": (b"\x01\x01", b"S"),
    "odd place": (b"\x01", b"\x01"),
    "end of list": (b"", b"\0\0"),
    "first": (b"", b"\x01\x01"),
}


@families
@pytest.mark.parametrize("around", LAYOUTS.values(), ids=LAYOUTS)
def test_wherever_they_stand(director: Director, family: int, around: tuple[bytes, bytes]) -> None:
    talk = talking(director, family)

    def options(own: int, echo: int, edge: int) -> bytes:
        block = struct.pack("!BBII", SACK, 10, edge % MODULUS, (edge + 9) % MODULUS)
        before, after = (each.replace(b"S", block) for each in around)
        text = before + stamps(own, echo)[2:] + after
        return text + b"\x01" * (-len(text) % 4)

    hears, served = talk.cookie.sequence + 500, 90000 + 500
    sent = talk.client(options(OWN + 9, talk.told + 300, hears))
    there = talk.arrives(sent, options(OWN + 9, SERVERS + 300, served))
    assert director.exchange(sent.frame())[1] == there.frame()
    said = talk.says(options(SERVERS + 400, OWN + 9, 777))
    back = talk.returns(said, options(talk.told + 400, OWN + 9, 777))
    assert director.exchange(said.frame())[1] == back.frame()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.tuples(*[st.integers(0, MODULUS - 1)] * 4), length=st.integers(0, 1400))
def test_any_stamps(director: Director, numbers: tuple[int, int, int, int], length: int) -> None:
    director.reset()
    talk = talking(director)
    own, echo, servers, heard = numbers
    sent = talk.client(stamps(own, echo), payload=bytes(length))
    assert director.exchange(sent.frame())[1] == talk.arrives(sent, stamps(own, echo - talk.shift)).frame()
    said = talk.says(stamps(servers, heard), payload=bytes(length))
    back = talk.returns(said, stamps(servers + talk.shift, heard))
    assert director.exchange(said.frame())[1] == back.frame()


@families
def test_where_windows_are_corrected_too(director: Director, family: int) -> None:
    service_of(director, family)
    talk = opened(director, family)
    other = Offer(1460, 9, True).options()
    director.run(server_says(talk.server, tcp_options=other + stamps(SERVERS, OWN)).frame())
    assert director.connections()[0].flags & layout.CONN_SPECIAL
    sent = talk.client(stamps(OWN + 9, talk.told + 300))
    there = talk.arrives(sent, stamps(OWN + 9, SERVERS + 300))
    assert director.exchange(sent.frame())[1] == there.frame()
    said = talk.says(stamps(SERVERS + 400, OWN + 9))
    found = read(director.exchange(said.frame())[1])
    assert found.window == 512 << 2
    assert stamps_in(found.options) == ((talk.told + 400) % MODULUS, OWN + 9)


@families
@pytest.mark.parametrize("tells", ["option", "header"])
def test_while_the_server_is_told_the_client(director: Director, family: int, tells: str) -> None:
    row = service_of(director, family)
    row.client_address = 1 + (tells == "header")
    talk = opened(director, family)
    director.run(server_says(talk.server, tcp_options=OFFER.options() + stamps(SERVERS, OWN)).frame())
    assert director.connections()[0].flags & (layout.CONN_OPENING | SHIFTED) == layout.CONN_OPENING | SHIFTED
    inside = stamps(OWN + 9, SERVERS + 300)
    sent = talk.client(stamps(OWN + 9, talk.told + 300))
    there = talk.arrives(sent, inside)
    if tells == "option":
        there = replace(there, tcp_options=toa(sent.source, sent.sport) + inside)
    else:
        there = replace(there, payload=header(family) + sent.payload)
    assert director.exchange(sent.frame())[1] == there.frame()
    said = talk.says(stamps(SERVERS + 400, OWN + 9))
    back = talk.returns(said, stamps(talk.told + 400, OWN + 9))
    assert director.exchange(said.frame())[1] == back.frame()


def test_without_an_ack_nothing_is_echoed(director: Director) -> None:
    talk = talking(director)
    for flags, echo in (("R", 1234), ("RA", 1234 - talk.shift)):
        sent = talk.client(stamps(OWN, 1234), flags=flags, payload=b"")
        found = read(director.exchange(sent.frame())[1])
        assert stamps_in(found.options) == (OWN, echo % MODULUS)


def test_in_first_fragments(director: Director) -> None:
    talk = talking(director)
    sent = talk.client(stamps(OWN + 9, talk.told + 300), payload=bytes(200))
    there = talk.arrives(sent, stamps(OWN + 9, SERVERS + 300))
    pieces = cut(replace(sent, fragment=0).packet(), 64)
    wanted = cut(replace(there, fragment=0).packet(), 64)
    for piece, want in zip(pieces, wanted, strict=True):
        _, frame = director.exchange(ethernet(piece, sent.target_mac, sent.source_mac))
        assert frame == ethernet(want, SERVER_MAC, INSIDE_MAC)


def test_what_is_too_long_is_told_of_as_it_came(director: Director) -> None:
    talk = talking(director)
    director.outside.mtu = 600
    said = talk.says(stamps(SERVERS + 400, OWN + 9), payload=bytes(1000))
    _, error = director.run(said.frame())
    assert director.counted() == {"drop_too_big": 1}
    quoted = error[14 + 20 + 8 :]
    assert quoted[20:][: len(quoted) - 20] == said.segment()[: len(quoted) - 20]
    assert len(quoted) >= 52


@families
def test_what_the_helper_repeats_has_them(director: Director, family: int) -> None:
    service_of(director, family)
    talk = opened(director, family)
    (conn,) = director.connections()
    conn.seen -= 2 * director.tables.settings.hz
    _, frame = director.exchange(client_ack(conn))
    assert read(frame) == talk.server
    director.forget_connections()
    _, frame = director.exchange(client_ack(conn_of(talk, director, family)))
    assert stamps_in(read(frame).options) == (OWN, 0)


def conn_of(talk: Talk, director: Director, family: int) -> layout.ConnRow:
    """The row of such a connection, made once more."""
    director.forget_connections()
    director.exchange(talk.client(stamps(OWN, talk.told), payload=b"").frame())
    (conn,) = director.connections()
    kept = layout.ConnRow.from_buffer_copy(bytes(conn))
    director.forget_connections()
    return kept
