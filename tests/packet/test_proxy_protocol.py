"""PROXY protocol 2 in front of the client's payload: once in the stream, and no byte lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet import handshake
from tests.packet import options as tcp
from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import (
    CLIENT_MAC,
    DIRECTOR_MAC,
    TCP,
    Datagram,
    checksum,
    ethernet,
    pseudo_header,
    sums_are_right,
)
from tests.packet.ftp_talk import Segment, read
from tests.packet.pieces import cut
from tests.packet.test_fragments import extended
from tests.packet.test_nat import CLIENT, INSIDE_PORT, RIP, VIP, answer, inward, outward, request
from xlvs.dataplane import layout, libbpf
from xlvs.model import ClientAddress, Forward, Service, ServiceKey

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
MODULUS = 1 << 32
STAMPS = bytes([1, 1, tcp.TIMESTAMPS, 10]) + b"TIMEECHO"
SIZE = {4: 28, 6: 52}
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
OPENING = layout.CONN_OPENING


def header(family: int, sport: int = 40000, client: str = "") -> bytes:
    """As proxy-protocol.txt has it, for a client of the VIP's port 80."""
    ends = ip_address(client or CLIENT[family]).packed + ip_address(VIP[family]).packed
    body = ends + sport.to_bytes(2, "big") + (80).to_bytes(2, "big")
    kind = 0x11 if family == 4 else 0x21
    return SIGNATURE + bytes([0x21, kind]) + len(body).to_bytes(2, "big") + body


def serve(director: Director, family: int) -> None:
    key = ServiceKey(2 if family == 4 else 10, TCP, ip_address(VIP[family]).packed, 80)
    mask = 0xFFFFFFFF if family == 4 else 128
    service = Service(key, scheduler="rr", netmask=mask, client_address=ClientAddress.PROXY)
    director.define(service, [Server(RIP[family], INSIDE_PORT, Forward.MASQ)])


@dataclass
class Talk:
    """Both ends of one connection, which say what the test has them say."""

    director: Director
    family: int
    client: int = 1000
    server: int = 5000
    fields: dict[str, object] = field(default_factory=dict)

    def asks(self, offset: int, flags: str = "A", payload: bytes = b"", **fields: object) -> Datagram:
        """A client's segment; ``offset`` is of its payload in the client's stream."""
        asked = request(
            self.family,
            TCP,
            flags=flags,
            payload=payload,
            sequence=(self.client + 1 + offset) % MODULUS,
            acknowledged=(self.server + 1) % MODULUS,
        )
        return replace(asked, **{**self.fields, **fields})  # type: ignore[arg-type]

    def says(self, known: int, flags: str = "A", payload: bytes = b"", **fields: object) -> Datagram:
        """A server's segment; ``known`` is how much of its stream, header included, the server has."""
        said = answer(
            inward(request(self.family, TCP)),
            flags=flags,
            payload=payload,
            sequence=(self.server + 1) % MODULUS,
            acknowledged=(self.client + 1 + known) % MODULUS,
        )
        return replace(said, **{**self.fields, **fields})  # type: ignore[arg-type]

    def arrives(self, asked: Datagram) -> Datagram:
        """What the server must get of a segment that carries the header."""
        sent = replace(asked, payload=header(self.family, asked.sport, asked.source) + asked.payload)
        return inward(sent)

    def passes(self, asked: Datagram) -> Segment:
        _, after = self.director.exchange(asked.frame())
        return read(after)

    def open(self) -> Talk:
        asked = self.asks(-1, "S")
        assert self.director.exchange(asked.frame())[1] == inward(asked).frame()
        said = self.says(0, "SA", sequence=self.server)
        assert self.director.exchange(said.frame())[1] == outward(said).frame()
        return self

    @property
    def opening(self) -> bool:
        return bool(self.director.connections()[0].flags & OPENING)


def begin(director: Director, family: int, **fields: object) -> Talk:
    serve(director, family)
    return Talk(director, family, fields=fields).open()


@families
@pytest.mark.parametrize(
    "fields",
    [{}, {"sum": "partial"}, {"tags": (7,)}, {"tags": (7, 8)}, {"tcp_options": STAMPS}],
    ids=["plain", "partial sum", "tagged", "two tags", "timestamps"],
)
@pytest.mark.parametrize("payload", [b"", b"odd", b"GET / HTTP/1.0\r\n\r\n", bytes(1000)])
@pytest.mark.parametrize("flags", ["A", "PA", "FA"])
def test_the_first_segment_brings_it(
    director: Director, family: int, fields: dict[str, object], payload: bytes, flags: str
) -> None:
    talk = begin(director, family, **fields)
    asked = talk.asks(0, flags, payload)
    for _ in range(2):  # sent again, it is there again
        assert director.run(asked.frame()) == (XDP_REDIRECT, talk.arrives(asked).frame())
    behind = talk.asks(len(payload), "PA", b"more") if payload else talk.asks(5, "PA", b"more")
    wanted = replace(inward(behind), sequence=behind.sequence + SIZE[family])
    assert director.run(behind.frame()) == (XDP_REDIRECT, wanted.frame())
    assert talk.opening


@families
def test_it_is_over_when_the_server_has_all_of_it(director: Director, family: int) -> None:
    talk = begin(director, family)
    size = SIZE[family]
    asked = talk.asks(0, "PA", b"hello")
    for known in (0, 1, size - 1):
        said = talk.says(known)
        wanted = replace(outward(said), acknowledged=talk.client + 1)
        assert director.run(said.frame()) == (XDP_REDIRECT, wanted.frame())
        assert director.exchange(asked.frame())[1] == talk.arrives(asked).frame()
    said = talk.says(size)
    wanted = replace(outward(said), acknowledged=talk.client + 1)
    assert director.run(said.frame()) == (XDP_REDIRECT, wanted.frame())
    assert not talk.opening
    wanted = replace(inward(asked), sequence=asked.sequence + size)
    assert director.run(asked.frame()) == (XDP_REDIRECT, wanted.frame())
    said = talk.says(size + 5, "PA", b"200")
    wanted = replace(outward(said), acknowledged=talk.client + 6)
    assert director.run(said.frame()) == (XDP_REDIRECT, wanted.frame())
    for flags in ("FA", "R"):
        asked = talk.asks(5, flags)
        wanted = replace(inward(asked), sequence=asked.sequence + size)
        assert director.run(asked.frame()) == (XDP_REDIRECT, wanted.frame())


@families
def test_a_greeting_does_not_end_it(director: Director, family: int) -> None:
    """A server that speaks first may have been opened by another segment than the one with the header."""
    talk = begin(director, family)
    said = talk.says(0, "PA", b"220 hello\r\n")
    director.exchange(said.frame())
    asked = talk.asks(0, acknowledged=talk.server + 12)
    assert director.exchange(asked.frame())[1] == talk.arrives(asked).frame()


@families
def test_probes_come_in_front_and_resets_behind(director: Director, family: int) -> None:
    talk = begin(director, family)
    probe = talk.asks(-1)
    assert director.exchange(probe.frame())[1] == inward(probe).frame()
    for flags in ("R", "RA"):
        reset = talk.asks(0, flags)
        wanted = replace(inward(reset), sequence=reset.sequence + SIZE[family])
        assert director.exchange(reset.frame())[1] == wanted.frame()


@families
def test_a_syn_again(director: Director, family: int) -> None:
    talk = begin(director, family)
    asked = talk.asks(-1, "S")
    assert director.exchange(asked.frame())[1] == inward(asked).frame()
    refused = talk.says(0, "RA")
    assert director.exchange(refused.frame())[1] == outward(refused).frame()


@families
@pytest.mark.parametrize("sums", ["whole", "partial"])
def test_a_syn_brings_no_payload(director: Director, family: int, sums: str) -> None:
    serve(director, family)
    talk = Talk(director, family)
    asked = talk.asks(-1, "S", b"GET /", sum=sums)
    assert director.run(asked.frame()) == (XDP_REDIRECT, replace(inward(asked), payload=b"").frame())
    damaged = bytearray(asked.frame())
    damaged[-1] ^= 1
    assert sums == "partial" or director.run(bytes(damaged))[0] == XDP_DROP


@families
@pytest.mark.parametrize("options", [b"", STAMPS])
def test_mss_leaves_room(director: Director, family: int, options: bytes) -> None:
    serve(director, family)
    talk = Talk(director, family)
    director.exchange(talk.asks(-1, "S").frame())
    option = b"\x02\x04\x05\xb4" + options
    said = talk.says(0, "SA", sequence=talk.server, tcp_options=option)
    mss = (1460 if family == 4 else 1440) - SIZE[family]
    wanted = replace(outward(said), tcp_options=b"\x02\x04" + mss.to_bytes(2, "big") + options)
    assert director.exchange(said.frame())[1] == wanted.frame()


@families
@pytest.mark.parametrize("flags", ["A", "PA", "FA", "FPA"])
@pytest.mark.parametrize("generic", [False, True], ids=["too long", "not cut yet"])
@pytest.mark.parametrize("tags", [(), (7,)])
def test_without_room_it_goes_alone(
    director: Director, family: int, flags: str, generic: bool, tags: tuple[int, ...]
) -> None:
    """The client sends the payload again; by then the header has arrived."""
    talk = begin(director, family, tags=tags)
    size = 1460 if family == 4 else 1440
    if generic:
        row = layout.PortRow(flags=layout.PORT_XDP | layout.PORT_GENERIC, mtu=1500)
        libbpf.update(director.tables.fd("ports"), (1).to_bytes(4, "little"), bytes(row))
        size = 3000
    asked = talk.asks(0, flags, bytes(size), tcp_options=STAMPS, sum="partial" if generic else "whole")
    alone = replace(asked, payload=b"", flags="A")
    assert director.run(asked.frame()) == (XDP_REDIRECT, talk.arrives(alone).frame())
    assert layout.TCP_STATES[director.connections()[0].state & 15] == "ESTABLISHED"
    director.exchange(talk.says(SIZE[family]).frame())
    asked = talk.asks(0, flags, bytes(1000))
    wanted = replace(inward(asked), sequence=asked.sequence + SIZE[family])
    assert director.exchange(asked.frame())[1] == wanted.frame()


@families
def test_the_longest_that_has_room(director: Director, family: int) -> None:
    talk = begin(director, family)
    asked = talk.asks(0, "PA", bytes((1460 if family == 4 else 1440) - SIZE[family]))
    assert director.exchange(asked.frame())[1] == talk.arrives(asked).frame()


@families
def test_what_is_damaged_stays_so(director: Director, family: int) -> None:
    talk = begin(director, family)
    for size in (100, 1440):
        frame = bytearray(talk.asks(0, "PA", bytes(size)).frame())
        frame[-1] ^= 1
        verdict, after = director.run(bytes(frame))
        assert verdict == XDP_DROP or not sums_are_right(after[14:])


def test_a_last_hop_is_told_of_what_came(director: Director) -> None:
    talk = begin(director, 4)
    asked = talk.asks(0, "PA", b"GET", ttl=1)
    _, after = director.run(asked.frame())
    assert after.endswith(asked.packet())


def test_urgent_data_keep_their_place(director: Director) -> None:
    talk = begin(director, 4)
    segment = bytearray(talk.asks(0, "PA", b"urgent").frame())
    segment[47] |= 0x20
    segment[52:54] = (3).to_bytes(2, "big")
    segment[50:52] = bytes(2)
    pseudo = pseudo_header(CLIENT[4], VIP[4], TCP, len(segment) - 34)
    segment[50:52] = checksum(pseudo + bytes(segment[34:])).to_bytes(2, "big")
    _, after = director.exchange(bytes(segment))
    assert sums_are_right(after[14:])
    assert after[52:54] == (3 + SIZE[4]).to_bytes(2, "big")


def test_behind_extension_headers(director: Director) -> None:
    talk = begin(director, 6)
    asked = talk.asks(0, "PA", b"text", tcp_options=STAMPS)
    _, after = director.exchange(ethernet(extended([0, 60], asked), DIRECTOR_MAC, CLIENT_MAC))
    assert after[14:] == extended([0, 60], talk.arrives(asked))


@families
def test_fragments_wait_for_it(director: Director, family: int) -> None:
    talk = begin(director, family)
    asked = talk.asks(0, "PA", bytes(range(200)), fragment=0)
    first = cut(asked.packet(), 104, identity=1)[0]
    assert director.run(ethernet(first, DIRECTOR_MAC, CLIENT_MAC))[0] == XDP_DROP
    assert director.counted()["drop_fragment"] == 1
    director.exchange(talk.says(SIZE[family]).frame())
    wanted = replace(inward(asked), sequence=asked.sequence + SIZE[family])
    pieces = cut(asked.packet(), 104, identity=2)
    for piece, then in zip(pieces, cut(wanted.packet(), 104, identity=2), strict=True):
        assert director.exchange(ethernet(piece, DIRECTOR_MAC, CLIENT_MAC))[1][14:] == then


def edges(*places: int) -> bytes:
    return tcp.sack(*(place % MODULUS for place in places)) + b"\x01\x01"


@families
@pytest.mark.parametrize("client", [1000, MODULUS - 20, MODULUS - 60])
def test_selective_acknowledgements_are_of_the_clients_stream(
    director: Director, family: int, client: int
) -> None:
    serve(director, family)
    talk = Talk(director, family, client=client).open()
    size, place = SIZE[family], client + 1
    cases = [  # what the server says, with the header; what that is to the client
        ((size + 10, size + 20), (10, 20)),
        ((size + 10, size + 20, size + 40, size + 50), (10, 20, 40, 50)),
        ((5, size + 20), (0, 20)),
        ((0, size), None),
        ((3, 9), None),
    ]
    for said, heard in cases:
        for known in (0, size):
            reply = talk.says(known, tcp_options=edges(*(place + at for at in said)))
            got = talk.passes(reply)
            assert got.acknowledged == place % MODULUS
            if heard is not None:
                assert got.options == edges(*(place + at for at in heard))
            elif not known:
                assert got.options == b"\x01" * len(got.options)
            talk.director.connections()[0].flags |= OPENING
            talk.director.connections()[0].edge_in = client


@families
def test_the_director_may_be_the_server(director: Director, family: int) -> None:
    director.host.local = {ip_address(RIP[family]).packed}
    serve(director, family)
    talk = Talk(director, family)
    allowed = b"\x02\x04\x05\xb4\x04\x02\x01\x01"
    asked = talk.asks(-1, "S", tcp_options=allowed)
    _, after = director.run(asked.frame())
    wanted = replace(
        inward(asked),
        tcp_options=allowed[:4] + b"\x01" * 4,  # the companion, which has its answers, reads no options
        ttl=64,
        target_mac=DIRECTOR_MAC,
        source_mac=CLIENT_MAC,
    )
    assert after == wanted.frame()
    asked = talk.asks(0)
    _, after = director.run(asked.frame())
    assert after.endswith(header(family))
    assert director.counted() == {"local": 2}


@families
def test_behind_a_cookie(director: Director, family: int) -> None:
    """SYNPROXY opens the connection to the server itself; the client's first payload brings the header."""
    serve(director, family)
    director.tables.row("services", layout.ServiceRow, 0).synproxy = handshake.ALWAYS
    director.tables.settings.cookie_key[:] = handshake.KEY
    asked = replace(handshake.syn(family), sequence=1000)
    answered, to_server = handshake.opened(director, asked)
    assert (to_server.flags, to_server.sequence) == (2, 1000)
    said = handshake.server_says(to_server, sequence=5000)
    assert director.run(said.frame())[0] == XDP_PASS
    conn = director.connections()[0]
    assert conn.flags & OPENING
    first = replace(handshake.ack_of(asked, answered, payload=b"GET", flags="PA"), sequence=1001)
    for _ in range(2):
        got = read(director.exchange(first.frame())[1])
        assert (got.sequence, got.acknowledged) == (1001, 5001)
        assert got.text == header(family) + b"GET"
    size = SIZE[family]
    known = replace(said, flags="A", sequence=5001, acknowledged=1001 + size + 3)
    got = read(director.exchange(known.frame())[1])
    assert (got.sequence, got.acknowledged) == (answered.sequence + 1 & 0xFFFFFFFF, 1004)
    assert not conn.flags & OPENING
    got = read(director.exchange(replace(first, sequence=1004).frame())[1])
    assert (got.sequence, got.acknowledged, got.text) == (1004 + size, 5001, b"GET")


# -- two ends with a stream between them ---------------------------------------------------------


@dataclass
class Receiver:
    """A receiver of TCP, with the whole of what the client sends: header and stream."""

    start: int
    wanted: bytes
    have: set[int] = field(default_factory=set)
    ended: bool = False

    def takes(self, segment: Segment, fin: bool) -> None:
        at = (segment.sequence - self.start) % MODULUS
        if at == MODULUS - 1:  # a probe
            return
        for offset, byte in enumerate(segment.text):
            assert self.wanted[at + offset] == byte, "another byte than the client sent in that place"
            self.have.add(at + offset)
        if fin:
            assert at + len(segment.text) == len(self.wanted)
            self.ended = True

    @property
    def known(self) -> int:
        """Bytes that can be acknowledged."""
        known = 0
        while known in self.have:
            known += 1
        return known + (self.ended and known == len(self.wanted))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_streams_stay_whole(director: Director, data: st.DataObject) -> None:
    """Segments of any size, lost either way, out of order and sent again, the last one too."""
    family = data.draw(st.sampled_from([4, 6]))
    client = data.draw(
        st.sampled_from([1000, MODULUS - 1, MODULUS - 2, MODULUS - 30, MODULUS - 100, 2**31 - 20])
    )
    stream = data.draw(st.binary(max_size=300))
    director.reset()
    serve(director, family)
    talk = Talk(
        director, family, client=client, fields={"sum": data.draw(st.sampled_from(["whole", "partial"]))}
    )
    talk.open()
    server = Receiver((client + 1) % MODULUS, header(family) + stream)
    size, acknowledged = len(header(family)), 0  # of the client's stream, as the client hears it
    end = len(stream) + 1

    def hears(limit: int) -> None:
        nonlocal acknowledged
        late = not talk.opening and limit < size  # an old one, overtaken: the client passes over it
        got = talk.passes(talk.says(limit))
        heard = (got.acknowledged - client - 1) % MODULUS
        assert heard == ((limit - size) % MODULUS if late else max(0, limit - size))
        acknowledged = max(acknowledged, 0 if late else heard)

    for _ in range(data.draw(st.integers(0, 25))):
        # TCP sends again from what is acknowledged, or what lies beyond; never from before.
        at = data.draw(
            st.one_of(st.just(acknowledged), st.integers(acknowledged, max(acknowledged, len(stream))))
        )
        if at > len(stream):
            break
        length = data.draw(st.integers(0, 80))
        payload = stream[at : at + length]
        fin = at + len(payload) == len(stream) and data.draw(st.booleans())
        probe = acknowledged == at == 0 and data.draw(st.integers(0, 9)) == 0
        asked = talk.asks(-1 if probe else at, "FA" if fin and not probe else "A", b"" if probe else payload)
        got = talk.passes(asked)
        if data.draw(st.integers(0, 3)):
            server.takes(got, fin and not probe)
        if data.draw(st.integers(0, 2)):
            hears(data.draw(st.integers(0, server.known)) if data.draw(st.booleans()) else server.known)
    for _ in range(100):  # at last nothing is lost any more
        if acknowledged >= end:
            break
        payload = stream[acknowledged : acknowledged + 100]
        fin = acknowledged + len(payload) == len(stream)
        got = talk.passes(talk.asks(acknowledged, "FA" if fin else "A", payload))
        server.takes(got, fin)
        hears(server.known)
    assert acknowledged == end
    assert server.ended
    assert server.known == len(server.wanted) + 1
    assert not talk.opening
