"""The decapsulator on GRE and GUE, packet by packet: what IPVS's tunnels send, and what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.netns.test_realserver_decap import (
    CLIENT,
    DIP,
    ETHERNET,
    NOBODY,
    RIP,
    TYPE,
    VIP,
    XDP_DROP,
    XDP_PASS,
    Decapsulator,
    inner,
    packet,
)
from tests.packet.frames import Datagram, checksum, ones_sum, pseudo_header
from xlvs.dataplane import libbpf
from xlvs.realserver import decap

pytestmark = pytest.mark.root

GRE, UDP, TCP, PORT = 47, 17, 6, 6080
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
PROTOCOL = {4: 4, 6: 41}
pairs = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])


@pytest.fixture
def decapsulator() -> Iterator[Decapsulator]:
    with libbpf.BpfObject(decap.OBJECT) as program:
        program.load()
        libbpf.update(program.map_fd("gue_ports"), PORT.to_bytes(2, "big"), b"\1")
        yield Decapsulator(program)


def frame(outside: int, protocol: int, body: bytes, destination: str | None = None, **fields: int) -> bytes:
    outer = packet(outside, DIP[outside], destination or RIP[outside], protocol, body, **fields)
    return ETHERNET + TYPE[outside] + outer


def gre(content: bytes, *, check: bool = False, flags: int = 0, ethertype: int | None = None) -> bytes:
    kind = ETHERTYPE[content[0] >> 4] if ethertype is None else ethertype
    if not check:
        return struct.pack("!HH", flags, kind) + content
    whole = struct.pack("!HHI", 0x8000, kind, 0) + content
    return whole[:4] + struct.pack("!H", checksum(whole)) + whole[6:]


def gue(
    content: bytes,
    outside: int,
    *,
    check: str = "none",
    options: bytes = b"",
    flags: int | None = None,
    port: int = PORT,
    first: int | None = None,
) -> bytes:
    """``check``: "none", "whole", "partial" (as the sender's offload leaves it), "wrong"."""
    head = len(options) // 4 if first is None else first
    bits = (1 if options else 0) if flags is None else flags
    body = struct.pack("!BBH", head, PROTOCOL[content[0] >> 4], bits) + options + content
    udp = struct.pack("!HHHH", 40000, port, 8 + len(body), 0)
    pseudo = pseudo_header(DIP[outside], RIP[outside], UDP, 8 + len(body))
    right = checksum(pseudo + udp + body) or 0xFFFF
    sums = {"none": 0, "whole": right, "partial": ones_sum(pseudo), "wrong": right ^ 0x0100}
    return udp[:6] + struct.pack("!H", sums[check]) + body


@pairs
@pytest.mark.parametrize("check", [False, True])
def test_gre(decapsulator: Decapsulator, outside: int, inside: int, check: bool) -> None:
    content = inner(inside)
    out = decapsulator.run(frame(outside, GRE, gre(content, check=check)))
    assert out == (XDP_PASS, ETHERNET + TYPE[inside] + content)
    assert decapsulator.counted() == {"decapsulated": 1, "decapsulated_bytes": len(content)}


@pairs
@pytest.mark.parametrize("check", ["none", "whole", "partial"])
def test_gue(decapsulator: Decapsulator, outside: int, inside: int, check: str) -> None:
    content = inner(inside)
    out = decapsulator.run(frame(outside, UDP, gue(content, outside, check=check)))
    assert out == (XDP_PASS, ETHERNET + TYPE[inside] + content)
    assert decapsulator.counted() == {"decapsulated": 1, "decapsulated_bytes": len(content)}


@pairs
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("length", [0, 1, 30, 63, 64, 65, 1300])
def test_a_remote_checksum_is_computed_here(
    decapsulator: Decapsulator, outside: int, inside: int, protocol: int, length: int
) -> None:
    sent = Datagram(CLIENT[inside], VIP[inside], protocol=protocol, payload=bytes(range(256)) * 6)
    sent = replace(sent, payload=sent.payload[:length], sum="partial")
    whole = replace(sent, sum="whole")
    start = 20 if inside == 4 else 40
    options = struct.pack("!IHH", 0x80000000, start, start + (16 if protocol == TCP else 6))
    body = gue(sent.packet(), outside, check="whole", options=options)
    assert decapsulator.run(frame(outside, UDP, body)) == (
        XDP_PASS,
        ETHERNET + TYPE[inside] + whole.packet(),
    )


@pairs
@pytest.mark.parametrize("kind", ["gre", "gue"])
def test_a_wrong_checksum_drops(decapsulator: Decapsulator, outside: int, inside: int, kind: str) -> None:
    content = inner(inside)
    if kind == "gre":
        body = bytearray(gre(content, check=True))
        body[4] ^= 1
        sent = frame(outside, GRE, bytes(body))
    else:
        sent = frame(outside, UDP, gue(content, outside, check="wrong"))
    assert decapsulator.run(sent)[0] == XDP_DROP
    assert decapsulator.counted() == {"checksum_wrong": 1}


@pairs
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_sum_over_what_hardware_would_have_done_is_right(
    decapsulator: Decapsulator, outside: int, inside: int, protocol: int
) -> None:
    """From the same machine: the outer sum counts on the inner one, which nobody has computed."""
    whole = Datagram(CLIENT[inside], VIP[inside], protocol=protocol)
    partial = replace(whole, sum="partial").packet()
    bodies = (
        (GRE, gre(whole.packet(), check=True)[:8] + partial),
        (UDP, gue(whole.packet(), outside, check="whole")[:12] + partial),
    )
    for number, body in bodies:
        out = decapsulator.run(frame(outside, number, body))
        assert out == (XDP_PASS, ETHERNET + TYPE[inside] + partial)


@pairs
def test_congestion_is_carried_after_the_checksum_was_verified(
    decapsulator: Decapsulator, outside: int, inside: int
) -> None:
    content = inner(inside, tos=1)
    for protocol, body in ((GRE, gre(content, check=True)), (UDP, gue(content, outside, check="whole"))):
        out = decapsulator.run(frame(outside, protocol, body, tos=3))
        assert out == (XDP_PASS, ETHERNET + TYPE[inside] + inner(inside, tos=3))


@pairs
@pytest.mark.parametrize("stranger", ["outer", "inner"])
def test_strangers_tunnels_pass_untouched(
    decapsulator: Decapsulator, outside: int, inside: int, stranger: str
) -> None:
    content = inner(inside, destination=NOBODY[inside] if stranger == "inner" else None)
    end = NOBODY[outside] if stranger == "outer" else None
    for protocol, body in ((GRE, gre(content)), (UDP, gue(content, outside))):
        sent = frame(outside, protocol, body, destination=end)
        assert decapsulator.run(sent) == (XDP_PASS, sent)
    assert decapsulator.counted() == {f"foreign_{stranger}": 2}


@pytest.mark.parametrize(
    "body",
    [
        (GRE, gre(inner(4), flags=0x2000)),
        (GRE, gre(inner(4), flags=0x0001)),
        (GRE, gre(inner(4), ethertype=0x6558)),
        (GRE, b"\0\0"),
        (UDP, gue(inner(4), 4, port=PORT + 1)),
        (UDP, gue(inner(4), 4, first=0x20)),
        (UDP, gue(inner(4), 4, first=0x40)),
        (UDP, gue(inner(4), 4, first=1)),
        (UDP, gue(inner(4), 4, flags=2)),
        (UDP, gue(inner(4), 4, flags=1)),
        (UDP, gue(inner(4), 4, options=struct.pack("!IHH", 0xC0000000, 20, 36))),
        (UDP, gue(inner(4), 4, options=struct.pack("!IHH", 0x80000000, 36, 20))),
        (UDP, gue(inner(4), 4, options=struct.pack("!IHH", 0x80000000, 20, 33))),
        (UDP, gue(inner(4), 4, options=struct.pack("!IHH", 0x80000000, 20, 60000))),
        (UDP, b"\0" * 11),
    ],
    ids=[
        "key",
        "version",
        "ethernet",
        "short",
        "port",
        "control",
        "version 1",
        "length",
        "flags",
        "no option",
        "private",
        "backwards",
        "odd",
        "far",
        "short udp",
    ],
)
def test_what_we_do_not_speak_passes_uncounted(decapsulator: Decapsulator, body: tuple[int, bytes]) -> None:
    sent = frame(4, *body)
    assert decapsulator.run(sent) == (XDP_PASS, sent)
    assert decapsulator.counted() == {}


@pytest.mark.parametrize(
    "body",
    [
        (GRE, gre(inner(4)[:-1])),
        (GRE, gre(inner(4)[:12])),
        (UDP, gue(inner(4)[:-1], 4)),
        (UDP, gue(inner(6)[:39], 4)),
        (UDP, gue(inner(4), 4, options=struct.pack("!IHH", 0x80000000, 100, 106))),
    ],
)
def test_the_malformed_are_left_to_the_kernel(decapsulator: Decapsulator, body: tuple[int, bytes]) -> None:
    sent = frame(4, *body)
    assert decapsulator.run(sent) == (XDP_PASS, sent)
    assert decapsulator.counted() == {"malformed": 1}


def test_fragments_of_tunnels_are_left_to_the_kernel(decapsulator: Decapsulator) -> None:
    for protocol, body in ((GRE, gre(inner(4))), (UDP, gue(inner(4), 4))):
        sent = frame(4, protocol, body, fragment=0x2000)
        assert decapsulator.run(sent) == (XDP_PASS, sent)
    # A fragment of UDP may be anything's.
    assert decapsulator.counted() == {"fragments": 1}
