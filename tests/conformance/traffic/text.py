"""Packets as lines of text, and what is inside them.

Text is lossless where it matters: every field is in it, and checksums that are right are
said to be right, so two equal lines are two equal packets. What is left out, because the
director's own choice of it carries no meaning, is named in :data:`NORMALISED`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from tests.conformance.traffic.packets import (
    CHUNKS,
    FLAGS,
    FRAGMENT6,
    ICMP,
    ICMP6,
    SCTP,
    TCP,
    UDP,
    Address,
    Endpoint,
    checksum,
    crc32c,
    pseudo_header,
)

NORMALISED = {
    "id *": "the IPv4 id of packets that the director itself makes (outer headers, ICMP)",
    "UDP * >": "the source port of GUE, a hash with a random seed of whatever the kernel likes",
    "reassembled": "how a datagram was cut on the way (before or after it went into a tunnel, whose headers"
    " are left out then), whether it still says DF, the id of IPv6 fragments",
}

IPIP, IP6IP, GRE = 4, 41, 47
INSIDE = {IPIP: 0x0800, IP6IP: 0x86DD}
GRE_CHECKSUM = 0x8000
# UDP ports of the scenarios' GUE tunnels: ipvsadm's default and another.
GUE_PORTS = (6080, 7777)
EXTENSIONS = {0: "hop-by-hop", 43: "routing", 60: "destination"}
CHUNK_NAMES = {number: name for name, number in CHUNKS.items()}


@dataclass(frozen=True)
class Split:
    """An IP packet taken apart; ``text`` holds the fields of its header that have no name here."""

    source: Address
    target: Address
    protocol: int
    payload: bytes
    text: str


def split(packet: bytes) -> Split:
    return _split6(packet) if packet[0] >> 4 == 6 else _split4(packet)


def _split4(packet: bytes) -> Split:
    size = (packet[0] & 15) * 4
    fields = struct.unpack("!BBHHHBBH", packet[:12])
    tos, length, identity, fragment, ttl, protocol = fields[1:7]
    own = protocol in (ICMP, GRE, *INSIDE) or (protocol == UDP and _gue(packet[size:]) is not None)
    text = f"ttl {ttl}{_unless_zero('tos', tos)} id {'*' if own else identity}"
    text += " DF" if fragment & 0x4000 else ""
    if fragment & 0x3FFF:
        text += f" fragment {(fragment & 0x1FFF) * 8}{'+' if fragment & 0x2000 else ''}"
    text += f" options {packet[20:size].hex()}" if size > 20 else ""
    text += "" if checksum(packet[:size]) == 0 else f" BAD SUM {fields[7]:04x}"
    text += _length(length, len(packet))
    return Split(ip_address(packet[12:16]), ip_address(packet[16:20]), protocol, packet[size:], text)


def _split6(packet: bytes) -> Split:
    first, length, protocol, hops = struct.unpack("!IHBB", packet[:8])
    text = f"hop {hops}{_unless_zero('class', first >> 20 & 0xFF)}{_unless_zero('flow', first & 0xFFFFF)}"
    text += _length(length, len(packet) - 40)
    payload = packet[40:]
    while protocol in (*EXTENSIONS, FRAGMENT6) and len(payload) >= 8:
        if protocol == FRAGMENT6:
            offset, identity = struct.unpack("!HI", payload[2:8])
            text += f" id {identity} fragment {offset & ~7}{'+' if offset & 1 else ''}"
            protocol, payload = payload[0], payload[8:]
            break
        size = 8 + payload[1] * 8
        text += f" {EXTENSIONS[protocol]} {payload[1:size].hex()}"
        protocol, payload = payload[0], payload[size:]
    return Split(ip_address(packet[8:24]), ip_address(packet[24:40]), protocol, payload, text)


def _unless_zero(name: str, value: int) -> str:
    return f" {name} {value}" if value else ""


def _length(said: int, real: int) -> str:
    return "" if said == real else f" length {said} of {real}"


def _gue(udp: bytes) -> tuple[str, bytes] | None:
    """The header of a GUE packet as text, and the packet in it."""
    if len(udp) < 13 or int.from_bytes(udp[2:4], "big") not in GUE_PORTS:
        return None
    first, protocol, flags = struct.unpack("!BBH", udp[8:12])
    if protocol not in INSIDE:
        return None
    size = 12 + (first & 31) * 4
    options = f" options {udp[12:size].hex()}" if size > 12 else ""
    return f"GUE {first >> 5} protocol {protocol} flags {flags:04x}{options}", udp[size:]


def _gre(payload: bytes) -> tuple[str, bytes]:
    flags, kind = struct.unpack("!HH", payload[:4])
    size = 8 if flags & GRE_CHECKSUM else 4
    right = "" if size == 4 or checksum(payload) == 0 else " BAD SUM"
    return f"GRE flags {flags:04x} type {kind:04x}{payload[4:size].hex()[4:]}{right}", payload[size:]


def unwrap(packet: bytes) -> bytes:
    """The packet inside all tunnels."""
    parts = split(packet)
    if " fragment " in parts.text:
        return packet
    if parts.protocol in INSIDE:
        return unwrap(parts.payload)
    if parts.protocol == GRE:
        return unwrap(_gre(parts.payload)[1])
    inside = _gue(parts.payload) if parts.protocol == UDP else None
    return unwrap(inside[1]) if inside else packet


@dataclass(frozen=True)
class Endpoints:
    """Who a packet with ports goes from and to."""

    source: Endpoint
    target: Endpoint


def endpoints(packet: bytes) -> Endpoints | None:
    """Of the packet inside all tunnels; None where it has no ports, or is a fragment."""
    parts = split(unwrap(packet))
    if parts.protocol not in (TCP, UDP, SCTP) or len(parts.payload) < 4 or " fragment " in parts.text:
        return None
    sport, dport = struct.unpack("!HH", parts.payload[:4])
    return Endpoints((parts.source, sport), (parts.target, dport))


def next_sequence(packet: bytes) -> int | None:
    """The TCP sequence number that follows a packet's; None where it is no TCP."""
    parts = split(packet)
    if parts.protocol != TCP:
        return None
    sequence, offset, bits = struct.unpack("!4xI4xBB", parts.payload[:14])
    header: int = (offset >> 4) * 4
    numbered: int = (bits & 1) + (bits >> 1 & 1)  # FIN and SYN
    return int(sequence) + len(parts.payload) - header + numbered


def describe(packet: bytes, *, quoted: bool = False) -> str:
    """One line. ``quoted`` packets (inside ICMP) may be cut: their checksums are printed raw."""
    if len(packet) < (40 if packet[:1] >= b"\x60" else 20):
        return f"cut{_data(packet)}"
    parts = split(packet)
    head = f"{parts.source} > {parts.target} {parts.text}"
    if " fragment " in parts.text:
        return f"{head} | protocol {parts.protocol}{_data(parts.payload)}"
    return f"{head} | {_describe_payload(parts, quoted)}"


def _describe_payload(parts: Split, quoted: bool) -> str:
    protocol, payload = parts.protocol, parts.payload
    if protocol in INSIDE:
        return describe(payload, quoted=quoted)
    if protocol == GRE and len(payload) >= 4:
        text, inner = _gre(payload)
        return f"{text} | {describe(inner, quoted=quoted)}"
    if protocol in (ICMP, ICMP6) and len(payload) >= 8:
        return _icmp(parts)
    if protocol == SCTP and len(payload) >= 12:
        return _sctp(payload, quoted)
    if protocol == UDP and (gue := _gue(payload)) is not None:
        target = int.from_bytes(payload[2:4], "big")
        length = _length(int.from_bytes(payload[4:6], "big"), len(payload))
        right = "" if quoted else _sum(parts)  # a quoted one's is as random as its source port
        return f"UDP * > {target}{length}{right} | {gue[0]} | {describe(gue[1], quoted=quoted)}"
    if protocol == TCP and len(payload) >= 20:
        return _tcp(payload) + _sum(parts, quoted)
    if protocol == UDP and len(payload) >= 8:
        return _udp(payload) + _sum(parts, quoted)
    return f"protocol {protocol}{_data(payload)}"


def _sum(parts: Split, quoted: bool = False) -> str:
    offset = {TCP: 16, UDP: 6, ICMP6: 2}[parts.protocol]
    (value,) = struct.unpack("!H", parts.payload[offset : offset + 2])
    if quoted:
        return f" sum {value:04x}"
    if parts.protocol == UDP and value == 0:
        return " sum none"
    pseudo = pseudo_header(parts.source, parts.target, parts.protocol, len(parts.payload))
    return "" if checksum(pseudo + parts.payload) == 0 else f" BAD SUM {value:04x}"


def _tcp(payload: bytes) -> str:
    fields = struct.unpack("!HHIIBBHHH", payload[:20])
    sport, dport, sequence, acknowledged, offset, bits, window, _, urgent = fields
    flags = "".join(flag for number, flag in enumerate(FLAGS) if bits >> number & 1)
    size = (offset >> 4) * 4
    options = f" options {payload[20:size].hex()}" if size > 20 else ""
    urgent = f" urgent {urgent}" if urgent else ""
    head = f"TCP {sport} > {dport} {flags} seq {sequence} ack {acknowledged} win {window}{options}{urgent}"
    return head + _data(payload[size:])


def _udp(payload: bytes) -> str:
    sport, dport, length, _ = struct.unpack("!HHHH", payload[:8])
    return f"UDP {sport} > {dport}{_length(length, len(payload))}{_data(payload[8:])}"


def _sctp(payload: bytes, quoted: bool) -> str:
    sport, dport, tag = struct.unpack("!HHI", payload[:8])
    text = f"SCTP {sport} > {dport} tag {tag}"
    if quoted:
        return f"{text} sum {payload[8:12].hex()}{_data(payload[12:])}"
    if crc32c(payload[:8] + bytes(4) + payload[12:]) != payload[8:12]:
        text += f" BAD SUM {payload[8:12].hex()}"
    rest = payload[12:]
    while len(rest) >= 4:
        kind, flags, length = struct.unpack("!BBH", rest[:4])
        text += f" | {CHUNK_NAMES.get(kind, kind)}{_unless_zero('flags', flags)}{_data(rest[4:length])}"
        rest = rest[max(4, (length + 3) & ~3) :]
    return text + _data(rest)


def _icmp(parts: Split) -> str:
    payload = parts.payload
    kind, code, _, rest = struct.unpack("!BBHI", payload[:8])
    if parts.protocol == ICMP:
        right = "" if checksum(payload) == 0 else " BAD SUM"
        error = kind in (3, 4, 5, 11, 12)
    else:
        right = _sum(parts)
        error = kind < 128
    quote = payload[8:]
    inner = f" about {len(quote)} bytes [{describe(quote, quoted=True)}]" if error else _data(quote)
    return f"ICMP {kind}/{code} {rest}{right}{inner}"


def _data(data: bytes) -> str:
    if not data:
        return ""
    return f" data {data.hex() if len(data) <= 16 else f'{len(data)} bytes {zlib.crc32(data):08x}'}"


def describe_frame(content: bytes, names: Mapping[bytes, str], *, reassembled: bool = False) -> str:
    """One line for an Ethernet frame; ``names`` puts words for MAC addresses."""

    def name(mac: bytes) -> str:
        return names.get(mac, mac.hex(":"))

    link = f"{name(content[6:12])} > {name(content[:6])}"
    if reassembled:
        return f"reassembled | {link} | {describe(unwrap(content[14:])).replace(' DF', '')}"
    return f"{link} | {describe(content[14:])}"
