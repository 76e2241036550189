"""The decapsulator, packet by packet: what it unwraps, what it leaves alone, what it counts."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from xlvs.dataplane import libbpf
from xlvs.realserver import decap

pytestmark = pytest.mark.root

XDP_DROP, XDP_PASS = 1, 2
ETHERNET = bytes.fromhex("020000000001020000000002")
TYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
PROTOCOL = {4: 4, 6: 41}  # of a tunnelled packet, by its own version

DIP = {4: "192.0.2.1", 6: "2001:db8:d::1"}
RIP = {4: "192.168.22.18", 6: "2001:db8:22::18"}
CLIENT = {4: "172.16.0.10", 6: "2001:db8:1::10"}
VIP = {4: "10.1.252.161", 6: "2001:db8:a::161"}
NOBODY = {4: "198.51.100.9", 6: "2001:db8:ffff::9"}
PAYLOAD = b"a TCP segment, as far as this program cares"


def checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, destination: str, protocol: int, payload: bytes, **fields: int) -> bytes:
    """An IPv4 packet; ``tos``, ``fragment`` and ``options`` (bytes of no-operation) can be given."""
    options = b"\x01" * fields.get("options", 0)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        fields.get("tos", 0),
        20 + len(options) + len(payload),
        7,
        fields.get("fragment", 0),
        61,
        protocol,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    head += options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes, **fields: int) -> bytes:
    first = 6 << 28 | fields.get("tos", 0) << 20 | 0x12345
    head = struct.pack("!IHBB", first, len(payload), protocol, 61)
    return head + ip_address(source).packed + ip_address(destination).packed + payload


def packet(
    version: int, source: str, destination: str, protocol: int, payload: bytes, **fields: int
) -> bytes:
    return (ipv4 if version == 4 else ipv6)(source, destination, protocol, payload, **fields)


def inner(version: int, destination: str | None = None, **fields: int) -> bytes:
    return packet(version, CLIENT[version], destination or VIP[version], 6, PAYLOAD, **fields)


def tunnelled(
    outside: int, inside: int, content: bytes, destination: str | None = None, **fields: int
) -> bytes:
    """A frame with a tunnel packet to the real server."""
    outer = packet(outside, DIP[outside], destination or RIP[outside], PROTOCOL[inside], content, **fields)
    return ETHERNET + TYPE[outside] + outer


class Decapsulator:
    """The loaded program with its maps filled."""

    def __init__(self, program: libbpf.BpfObject) -> None:
        self._program = program
        for name, addresses in (("tunnel_ends", RIP), ("vips", VIP)):
            for address in addresses.values():
                libbpf.update(program.map_fd(name), decap.key(address), b"\x01")

    def run(self, frame: bytes) -> tuple[int, bytes]:
        verdict, out, _ = libbpf.test_run(self._program.program_fd(decap.PROGRAM), frame)
        return verdict, out

    def counted(self) -> dict[str, int]:
        """The counters that are not 0."""
        counts = self._program.map_fd("counters")
        size = 8 * (os.cpu_count() or 1)
        found = {}
        for index, name in enumerate(decap.COUNTERS):
            value = libbpf.lookup(counts, index.to_bytes(4, "little"), size)
            assert value is not None
            found[name] = sum(struct.unpack(f"<{len(value) // 8}Q", value))
        return {name: value for name, value in found.items() if value}


@pytest.fixture
def decapsulator() -> Iterator[Decapsulator]:
    with libbpf.BpfObject(decap.OBJECT) as program:
        program.load()
        yield Decapsulator(program)


pairs = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (4, 6), (6, 4), (6, 6)])


@pairs
def test_the_outer_header_comes_off(decapsulator: Decapsulator, outside: int, inside: int) -> None:
    content = inner(inside)
    assert decapsulator.run(tunnelled(outside, inside, content)) == (
        XDP_PASS,
        ETHERNET + TYPE[inside] + content,
    )
    assert decapsulator.counted() == {"decapsulated": 1, "decapsulated_bytes": len(content)}


@pytest.mark.parametrize("options", range(4, 44, 4))
def test_outer_options_come_off_too(decapsulator: Decapsulator, options: int) -> None:
    content = inner(4)
    assert decapsulator.run(tunnelled(4, 4, content, options=options)) == (
        XDP_PASS,
        ETHERNET + TYPE[4] + content,
    )


def test_an_inner_fragment_is_unwrapped_like_any_packet(decapsulator: Decapsulator) -> None:
    content = inner(4, fragment=0x2000)
    assert decapsulator.run(tunnelled(4, 4, content)) == (XDP_PASS, ETHERNET + TYPE[4] + content)


@pairs
@pytest.mark.parametrize("stranger", ["outer", "inner"])
def test_strangers_tunnels_pass_untouched(
    decapsulator: Decapsulator, outside: int, inside: int, stranger: str
) -> None:
    if stranger == "outer":
        frame = tunnelled(outside, inside, inner(inside), destination=NOBODY[outside])
    else:
        frame = tunnelled(outside, inside, inner(inside, destination=NOBODY[inside]))
    assert decapsulator.run(frame) == (XDP_PASS, frame)
    assert decapsulator.counted() == {f"foreign_{stranger}": 1}


@pytest.mark.parametrize("fragment", [0x2000, 0x00B9, 0x20B9])
def test_outer_fragments_are_left_to_the_kernel(decapsulator: Decapsulator, fragment: int) -> None:
    frame = tunnelled(4, 4, inner(4), fragment=fragment)
    assert decapsulator.run(frame) == (XDP_PASS, frame)
    assert decapsulator.counted() == {"fragments": 1}


@pytest.mark.parametrize(
    "frame",
    [
        ETHERNET + TYPE[4] + ipv4(CLIENT[4], VIP[4], 6, PAYLOAD),
        ETHERNET + TYPE[4] + ipv4(CLIENT[4], RIP[4], 47, PAYLOAD),
        ETHERNET + TYPE[6] + ipv6(CLIENT[6], RIP[6], 6, PAYLOAD),
        ETHERNET + b"\x08\x06" + bytes(28),
        ETHERNET + TYPE[6] + ipv6(DIP[6], RIP[6], 44, bytes(8) + inner(6)),
        ETHERNET + TYPE[4],
    ],
    ids=["tcp", "gre", "tcp6", "arp", "fragment6", "short"],
)
def test_what_is_no_tunnel_passes_uncounted(decapsulator: Decapsulator, frame: bytes) -> None:
    assert decapsulator.run(frame) == (XDP_PASS, frame)
    assert decapsulator.counted() == {}


@pytest.mark.parametrize(
    "frame",
    [
        tunnelled(4, 4, b""),
        tunnelled(4, 4, inner(4)[:19]),
        tunnelled(4, 4, inner(4)[:-1]),
        tunnelled(4, 6, inner(6)[:39]),
        tunnelled(4, 6, inner(6)[:-1]),
        tunnelled(4, 4, inner(6)),
        tunnelled(6, 6, inner(4)),
        tunnelled(4, 4, b"\x41" + inner(4)[1:]),
    ],
    ids=["empty", "head cut", "cut", "head cut 6", "cut 6", "6 as 4", "4 as 6", "ihl"],
)
def test_the_malformed_are_left_to_the_kernel(decapsulator: Decapsulator, frame: bytes) -> None:
    assert decapsulator.run(frame) == (XDP_PASS, frame)
    assert decapsulator.counted() == {"malformed": 1}


@pairs
@pytest.mark.parametrize("ecn", [1, 2, 3])
@pytest.mark.parametrize("dscp", [0, 0xFC])
def test_congestion_is_carried_inward(
    decapsulator: Decapsulator, outside: int, inside: int, ecn: int, dscp: int
) -> None:
    """RFC 6040: CE outside and a transport that can hear it make CE inside, checksum included."""
    frame = tunnelled(outside, inside, inner(inside, tos=dscp | ecn), tos=3)
    marked = ETHERNET + TYPE[inside] + inner(inside, tos=dscp | 3)
    assert decapsulator.run(frame) == (XDP_PASS, marked)


@pairs
def test_congestion_that_nobody_could_hear_drops(
    decapsulator: Decapsulator, outside: int, inside: int
) -> None:
    verdict, _ = decapsulator.run(tunnelled(outside, inside, inner(inside), tos=3))
    assert verdict == XDP_DROP
    assert decapsulator.counted() == {"congestion_dropped": 1}


@pairs
@pytest.mark.parametrize("ecn", [0, 1, 2])
def test_no_congestion_changes_nothing(
    decapsulator: Decapsulator, outside: int, inside: int, ecn: int
) -> None:
    content = inner(inside, tos=0x2E)
    assert (
        decapsulator.run(tunnelled(outside, inside, content, tos=ecn))[1] == ETHERNET + TYPE[inside] + content
    )


def test_every_length_of_padding_is_kept_out_of_the_bytes_counted(decapsulator: Decapsulator) -> None:
    content = inner(4)
    verdict, out = decapsulator.run(tunnelled(4, 4, content) + bytes(9))
    assert (verdict, out) == (XDP_PASS, ETHERNET + TYPE[4] + content + bytes(9))
    assert decapsulator.counted()["decapsulated_bytes"] == len(content)
