"""Packets as bytes and as lines of text.

Text is lossless where it matters: every field is in it, and checksums that are right are
said to be right, so two equal lines are two equal packets. What is left out, because the
director's own choice of it carries no meaning, is named in :data:`NORMALISED`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

NORMALISED = {
    "id *": "the IPv4 id of packets that the director itself makes (outer headers, ICMP)",
}

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
ENCAPSULATED = {4: 0x0800, 41: 0x86DD}
FLAGS = "FSRPAUEC"
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def checksum(data: bytes) -> int:
    """The Internet checksum of ``data``: 0 where data already contains its own."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: Address, target: Address, protocol: int, length: int) -> bytes:
    if source.version == 4:
        return source.packed + target.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + target.packed + struct.pack("!IHBB", length, 0, 0, protocol)


@dataclass(frozen=True)
class Network:
    """Fields of the IP header that scenarios vary; ``damage`` is added to the header checksum."""

    ttl: int = 64
    tos: int = 0
    identity: int = 0
    dont_fragment: bool = True
    damage: int = 0


def ip_packet(source: Address, target: Address, protocol: int, payload: bytes, network: Network) -> bytes:
    if source.version == 6:
        first = 6 << 28 | network.tos << 20
        header = struct.pack("!IHBB", first, len(payload), protocol, network.ttl)
        return header + source.packed + target.packed + payload

    def header4(check: int) -> bytes:
        fragment = 0x4000 if network.dont_fragment else 0
        length = 20 + len(payload)
        fields = (0x45, network.tos, length, network.identity, fragment, network.ttl, protocol, check)
        return struct.pack("!BBHHHBBH", *fields) + source.packed + target.packed

    check = (checksum(header4(0)) + network.damage) & 0xFFFF
    return header4(check) + payload


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


def tcp_packet(
    source: tuple[Address, int], target: tuple[Address, int], segment: Segment, network: Network
) -> bytes:
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
    source: tuple[Address, int],
    target: tuple[Address, int],
    data: bytes,
    network: Network,
    *,
    sum_it: bool = True,
) -> bytes:
    def body(check: int) -> bytes:
        return struct.pack("!HHHH", source[1], target[1], 8 + len(data), check) + data

    check = checksum(pseudo_header(source[0], target[0], UDP, len(body(0))) + body(0)) or 0xFFFF
    return ip_packet(source[0], target[0], UDP, body(check if sum_it else 0), network)


def zero_sum_data(source: tuple[Address, int], target: tuple[Address, int]) -> bytes:
    """Two bytes of payload that make the checksum of a datagram 0, which must go out as 0xffff."""
    header = struct.pack("!HHHHH", source[1], target[1], 10, 0, 0)
    return checksum(pseudo_header(source[0], target[0], UDP, 10) + header).to_bytes(2, "big")


def echo_packet(source: Address, target: Address, sequence: int, network: Network) -> bytes:
    """A ping."""
    kind, protocol = (8, ICMP) if source.version == 4 else (128, ICMP6)
    body = struct.pack("!BBHHH", kind, 0, 0, 1, sequence) + b"ping"
    pseudo = b"" if source.version == 4 else pseudo_header(source, target, ICMP6, len(body))
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return ip_packet(source, target, protocol, body, network)


def frame(source_mac: bytes, target_mac: bytes, packet: bytes) -> bytes:
    return target_mac + source_mac + struct.pack("!H", ETHERTYPES[packet[0] >> 4]) + packet


@dataclass(frozen=True)
class Endpoints:
    """Who an unfragmented TCP or UDP packet goes from and to; encapsulation is looked through."""

    source: tuple[Address, int]
    target: tuple[Address, int]


def endpoints(packet: bytes) -> Endpoints | None:
    source, target, protocol, payload, _ = _split(packet)
    if protocol in ENCAPSULATED:
        return endpoints(payload)
    if protocol not in (TCP, UDP) or len(payload) < 4:
        return None
    sport, dport = struct.unpack("!HH", payload[:4])
    return Endpoints((source, sport), (target, dport))


def _split(packet: bytes) -> tuple[Address, Address, int, bytes, str]:
    """Addresses, protocol, payload and the text of the other fields of an IP packet."""
    if packet[0] >> 4 == 6:
        first, length, protocol, hops = struct.unpack("!IHBB", packet[:8])
        source, target = ip_address(packet[8:24]), ip_address(packet[24:40])
        text = f"hop {hops}{_unless_zero('class', first >> 20 & 0xFF)}{_unless_zero('flow', first & 0xFFFFF)}"
        return source, target, protocol, packet[40:], text + _length(length, len(packet) - 40)
    size = (packet[0] & 15) * 4
    fields = struct.unpack("!BBHHHBBH", packet[:12])
    tos, length, identity, fragment, ttl, protocol = fields[1:7]
    source, target = ip_address(packet[12:16]), ip_address(packet[16:20])
    own = protocol == ICMP or protocol in ENCAPSULATED
    text = f"ttl {ttl}{_unless_zero('tos', tos)} id {'*' if own else identity}"
    text += " DF" if fragment & 0x4000 else ""
    text += (
        f" fragment {(fragment & 0x1FFF) * 8}{'+' if fragment & 0x2000 else ''}" if fragment & 0x3FFF else ""
    )
    text += f" options {packet[20:size].hex()}" if size > 20 else ""
    text += "" if checksum(packet[:size]) == 0 else f" BAD SUM {fields[7]:04x}"
    return source, target, protocol, packet[size:], text + _length(length, len(packet))


def _unless_zero(name: str, value: int) -> str:
    return f" {name} {value}" if value else ""


def _length(said: int, real: int) -> str:
    return "" if said == real else f" length {said} of {real}"


def describe(packet: bytes, quoted: bool = False) -> str:
    """One line. ``quoted`` packets (inside ICMP) may be cut: their checksums are printed raw."""
    source, target, protocol, payload, text = _split(packet)
    head = f"{source} > {target} {text}"
    if " fragment " in text:
        return f"{head} | protocol {protocol} {_data(payload)}"
    if protocol in ENCAPSULATED:
        return f"{head} | {describe(payload, quoted)}"
    if protocol in (ICMP, ICMP6) and len(payload) >= 8:
        return f"{head} | {_icmp(source, target, protocol, payload)}"
    known = {TCP: (_tcp, 20), UDP: (_udp, 8)}
    if protocol in known and len(payload) >= known[protocol][1]:
        writer = known[protocol][0]
        return f"{head} | {writer(payload)}{_sum(source, target, protocol, payload, quoted)}"
    return f"{head} | protocol {protocol} {_data(payload)}"


def _sum(source: Address, target: Address, protocol: int, payload: bytes, quoted: bool) -> str:
    offset = {TCP: 16, UDP: 6, ICMP6: 2}[protocol]
    (value,) = struct.unpack("!H", payload[offset : offset + 2])
    if quoted:
        return f" sum {value:04x}"
    if protocol == UDP and value == 0:
        return " sum none"
    right = checksum(pseudo_header(source, target, protocol, len(payload)) + payload) == 0
    return "" if right else f" BAD SUM {value:04x}"


def _tcp(payload: bytes) -> str:
    sport, dport, sequence, acknowledged, offset, bits, window, _, urgent = struct.unpack(
        "!HHIIBBHHH", payload[:20]
    )
    flags = "".join(flag for number, flag in enumerate(FLAGS) if bits >> number & 1)
    size = (offset >> 4) * 4
    options = f" options {payload[20:size].hex()}" if size > 20 else ""
    urgent = f" urgent {urgent}" if urgent else ""
    head = f"TCP {sport} > {dport} {flags} seq {sequence} ack {acknowledged} win {window}{options}{urgent}"
    return head + _data(payload[size:])


def _udp(payload: bytes) -> str:
    sport, dport, length, _ = struct.unpack("!HHHH", payload[:8])
    return f"UDP {sport} > {dport}{_length(length, len(payload))}{_data(payload[8:])}"


def _icmp(source: Address, target: Address, protocol: int, payload: bytes) -> str:
    kind, code, _, rest = struct.unpack("!BBHI", payload[:8])
    if protocol == ICMP:
        right = "" if checksum(payload) == 0 else " BAD SUM"
        error = kind in (3, 4, 5, 11, 12)
    else:
        right = _sum(source, target, ICMP6, payload, quoted=False)
        error = kind < 128
    quote = payload[8:]
    inner = f" about {len(quote)} bytes [{describe(quote, quoted=True)}]" if error else _data(quote)
    return f"ICMP {kind}/{code} {rest}{right}{inner}"


def _data(data: bytes) -> str:
    if not data:
        return ""
    return f" data {data.hex() if len(data) <= 16 else f'{len(data)} bytes {zlib.crc32(data):08x}'}"


def describe_frame(content: bytes, names: Mapping[bytes, str]) -> str:
    """One line for an Ethernet frame; ``names`` puts words for MAC addresses."""

    def name(mac: bytes) -> str:
        return names.get(mac, mac.hex(":"))

    return f"{name(content[6:12])} > {name(content[:6])} | {describe(content[14:])}"
