"""Packets as bytes: what scenarios send."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]

ICMP, TCP, UDP, ESP, AH, ICMP6, SCTP = 1, 6, 17, 50, 51, 58, 132
FRAGMENT6 = 44
FLAGS = "FSRPAUEC"
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
# Errors of ICMP that a test names: for each version type and code.
ERRORS: dict[str, dict[int, tuple[int, int]]] = {
    "unreachable host": {4: (3, 1), 6: (1, 3)},
    "unreachable port": {4: (3, 3), 6: (1, 4)},
    "prohibited": {4: (3, 13), 6: (1, 1)},
    "too big": {4: (3, 4), 6: (2, 0)},
    "time exceeded": {4: (11, 0), 6: (3, 0)},
    "reassembly time exceeded": {4: (11, 1), 6: (3, 1)},
    "parameter problem": {4: (12, 0), 6: (4, 0)},
    "source quench": {4: (4, 0), 6: (4, 1)},
    "redirect": {4: (5, 1), 6: (1, 0)},
}


def checksum(data: bytes) -> int:
    """The Internet checksum of ``data``: 0 where data already contains its own."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # RFC 3309's polynomial, reflected
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> bytes:
    """SCTP's checksum, as it stands in the packet."""
    value = 0xFFFFFFFF
    for octet in data:
        value = value >> 8 ^ _CRC[(value ^ octet) & 0xFF]
    return struct.pack("<I", value ^ 0xFFFFFFFF)


def pseudo_header(source: Address, target: Address, protocol: int, length: int) -> bytes:
    if source.version == 4:
        return source.packed + target.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + target.packed + struct.pack("!IHBB", length, 0, 0, protocol)


@dataclass(frozen=True)
class Network:
    """Fields of the IP header that scenarios vary.

    ``damage`` is added to the IPv4 header checksum; ``extensions`` are IPv6 extension headers
    (type, and content without the next header field) in their order.
    """

    ttl: int = 64
    tos: int = 0
    identity: int = 0
    dont_fragment: bool = True
    damage: int = 0
    options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()


def ip_packet(source: Address, target: Address, protocol: int, payload: bytes, network: Network) -> bytes:
    if source.version == 6:
        for kind, content in reversed(network.extensions):
            payload = bytes([protocol]) + content + payload
            protocol = kind
        first = 6 << 28 | network.tos << 20
        header = struct.pack("!IHBB", first, len(payload), protocol, network.ttl)
        return header + source.packed + target.packed + payload
    fragment = 0x4000 if network.dont_fragment else 0
    fields = Header4(network.tos, network.identity, fragment, network.ttl, protocol, network.options)
    return fields.pack(source, target, payload, network.damage)


@dataclass(frozen=True)
class Header4:
    """An IPv4 header but its addresses; ``fragment`` is the word of flags and offset."""

    tos: int
    identity: int
    fragment: int
    ttl: int
    protocol: int
    options: bytes = b""

    def pack(self, source: Address, target: Address, payload: bytes, damage: int = 0) -> bytes:
        size = 20 + len(self.options)

        def header(check: int) -> bytes:
            fields = (0x40 | size // 4, self.tos, size + len(payload), self.identity, self.fragment)
            ends = source.packed + target.packed
            return struct.pack("!BBHHHBBH", *fields, self.ttl, self.protocol, check) + ends + self.options

        return header((checksum(header(0)) + damage) & 0xFFFF) + payload


@dataclass(frozen=True)
class Segment:
    """A TCP segment. ``damage`` is added to its checksum."""

    flags: str
    sequence: int
    acknowledged: int = 0
    window: int = 512
    options: bytes = b""
    data: bytes = b""
    damage: int = 0


def tcp_packet(source: Endpoint, target: Endpoint, segment: Segment, network: Network) -> bytes:
    bits = sum(1 << FLAGS.index(flag) for flag in segment.flags)
    offset = (20 + len(segment.options)) // 4 << 4

    def body(check: int) -> bytes:
        ports = struct.pack("!HH", source[1], target[1])
        numbers = struct.pack("!II", segment.sequence, segment.acknowledged)
        rest = struct.pack("!BBHHH", offset, bits, segment.window, check, 0)
        return ports + numbers + rest + segment.options + segment.data

    check = checksum(pseudo_header(source[0], target[0], TCP, len(body(0))) + body(0))
    payload = body((check + segment.damage) & 0xFFFF)
    return ip_packet(source[0], target[0], TCP, payload, network)


def udp_packet(
    source: Endpoint, target: Endpoint, data: bytes, network: Network, *, sum_it: bool = True
) -> bytes:
    def body(check: int) -> bytes:
        return struct.pack("!HHHH", source[1], target[1], 8 + len(data), check) + data

    check = checksum(pseudo_header(source[0], target[0], UDP, len(body(0))) + body(0)) or 0xFFFF
    return ip_packet(source[0], target[0], UDP, body(check if sum_it else 0), network)


def zero_sum_data(source: Endpoint, target: Endpoint) -> bytes:
    """Two bytes of payload that make the checksum of a datagram 0, which must go out as 0xffff."""
    header = struct.pack("!HHHHH", source[1], target[1], 10, 0, 0)
    return checksum(pseudo_header(source[0], target[0], UDP, 10) + header).to_bytes(2, "big")


# SCTP chunk types (RFC 9260), by the names that text.py prints.
CHUNKS = {
    "DATA": 0,
    "INIT": 1,
    "INIT-ACK": 2,
    "SACK": 3,
    "HEARTBEAT": 4,
    "HEARTBEAT-ACK": 5,
    "ABORT": 6,
    "SHUTDOWN": 7,
    "SHUTDOWN-ACK": 8,
    "ERROR": 9,
    "COOKIE-ECHO": 10,
    "COOKIE-ACK": 11,
    "ECNE": 12,
    "CWR": 13,
    "SHUTDOWN-COMPLETE": 14,
    "AUTH": 15,
    "ASCONF": 193,
}


def chunk(name: str, value: bytes = b"") -> bytes:
    """A chunk, padded; its value is made up where none is given."""
    lengths = {"INIT": 16, "INIT-ACK": 16, "DATA": 16, "SACK": 12, "SHUTDOWN": 4, "COOKIE-ECHO": 8}
    value = value or bytes(range(lengths.get(name, 0)))
    flags = 3 if name == "DATA" else 0
    return struct.pack("!BBH", CHUNKS[name], flags, 4 + len(value)) + value + b"\0" * (-len(value) % 4)


def sctp_packet(
    source: Endpoint, target: Endpoint, tag: int, chunks: Sequence[bytes], network: Network, damage: int = 0
) -> bytes:
    def body(check: bytes) -> bytes:
        return struct.pack("!HHI", source[1], target[1], tag) + check + b"".join(chunks)

    check = bytearray(crc32c(body(bytes(4))))
    check[0] ^= damage
    return ip_packet(source[0], target[0], SCTP, body(bytes(check)), network)


def echo_packet(
    source: Address, target: Address, sequence: int, network: Network, data: bytes = b"ping"
) -> bytes:
    """A ping."""
    kind, protocol = (8, ICMP) if source.version == 4 else (128, ICMP6)
    rest = struct.pack("!HH", 1, sequence) + data
    return ip_packet(source, target, protocol, _icmp_body(source, target, kind, 0, rest), network)


def icmp_error(source: Address, target: Address, error: str, about: bytes, extra: int = 0) -> bytes:
    """An error of :data:`ERRORS`; ``extra`` is its second word (MTU, pointer), ``about`` what it quotes."""
    kind, code = ERRORS[error][source.version]
    rest = struct.pack("!I", extra) + about
    protocol = ICMP if source.version == 4 else ICMP6
    network = Network(identity=7, dont_fragment=False)
    return ip_packet(source, target, protocol, _icmp_body(source, target, kind, code, rest), network)


def _icmp_body(source: Address, target: Address, kind: int, code: int, rest: bytes) -> bytes:
    body = struct.pack("!BBH", kind, code, 0) + rest
    pseudo = b"" if source.version == 4 else pseudo_header(source, target, ICMP6, len(body))
    return body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]


def fragments(packet: bytes, cuts: Sequence[int], identity: int = 77) -> list[bytes]:
    """A packet without options cut at offsets (multiples of 8) of its payload."""
    bounds = list(zip((0, *cuts), (*cuts, None), strict=True))
    return [fragment(packet, start, end, identity) for start, end in bounds]


def fragment(packet: bytes, start: int, end: int | None, identity: int = 77, *, last: bool = False) -> bytes:
    """The piece of a packet's payload from ``start`` to ``end`` (None: to its end) as a fragment.

    ``last`` says of a piece that ends earlier that it is the last one.
    """
    more = end is not None and not last
    if packet[0] >> 4 == 6:
        _, _, protocol, hops = struct.unpack("!IHBB", packet[:8])
        source, target = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        content = struct.pack("!BHI", 0, start | more, identity)
        network = Network(ttl=hops, extensions=((FRAGMENT6, content),))
        return ip_packet(source, target, protocol, packet[40:][start:end], network)
    _, tos, _, _, _, ttl, protocol = struct.unpack("!BBHHHBB", packet[:10])
    header = Header4(tos, identity, start // 8 | (0x2000 if more else 0), ttl, protocol)
    return header.pack(IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), packet[20:][start:end])


def frame(source_mac: bytes, target_mac: bytes, packet: bytes) -> bytes:
    return target_mac + source_mac + struct.pack("!H", ETHERTYPES[packet[0] >> 4]) + packet
