"""An independent reader of frames, which shares no code and no shape with the data plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.packet.frames import checksum

Address = IPv4Address | IPv6Address
TCP, UDP, SCTP = 6, 17, 132
EXTENSIONS = (0, 43, 51, 60)
VLANS = (0x8100, 0x88A8)


@dataclass
class Read:
    """A frame as far as it makes sense. ``l3`` and ``l4`` are offsets in it."""

    version: int = 0
    l3: int = 0
    l4: int = 0
    end: int = 0
    protocol: int = -1
    source: Address = field(default_factory=lambda: IPv4Address(0))
    target: Address = field(default_factory=lambda: IPv4Address(0))
    sport: int = -1
    dport: int = -1
    ttl: int = 0
    offset: int = 0
    fragment: bool = False
    sum_holds: bool | None = None
    """Of the transport; None where it cannot be told (fragments, no checksum, partial ones)."""
    check: tuple[int, int] = (0, 0)
    """Where a partial checksum begins and ends, which the director completes."""


def number(data: bytes | bytearray, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def read_frame(frame: bytes) -> Read | None:
    at, tags = 12, 0
    while tags < 2 and number(frame, at) in VLANS:
        at += 4
        tags += 1
    kind = number(frame, at)
    if kind not in (0x0800, 0x86DD):
        return None
    return read_ip(frame, at + 2, 4 if kind == 0x0800 else 6)


def read_ip(data: bytes, at: int, version: int, *, cut: bool = False) -> Read | None:
    """``cut``: a quotation, of which the end may be missing."""
    found = Read(version, at)
    size = 20 if version == 4 else 40
    if at + size > len(data) or data[at] >> 4 != version:
        return None
    if version == 4:
        header = (data[at] & 15) * 4
        found.end = at + number(data, at + 2)
        if header < 20 or found.end < at + header or (found.end > len(data) and not cut):
            return None
        if at + header > len(data) or (not cut and header == 20 and checksum(data[at : at + header])):
            return None
        word = number(data, at + 6)
        found.fragment, found.offset = bool(word & 0x3FFF), (word & 0x1FFF) * 8
        found.protocol, found.ttl, found.l4 = data[at + 9], data[at + 8], at + header
        found.source, found.target = ip_address(data[at + 12 : at + 16]), ip_address(data[at + 16 : at + 20])
    else:
        found.end = at + 40 + number(data, at + 4)
        if found.end > len(data) and not cut:
            return None
        found.protocol, found.ttl, found.l4 = data[at + 6], data[at + 7], at + 40
        found.source, found.target = ip_address(data[at + 8 : at + 24]), ip_address(data[at + 24 : at + 40])
        if not _walk(data, found):
            return None
    if cut:
        found.end = min(found.end, len(data))
    if found.offset:
        return found
    if found.protocol in (TCP, UDP, SCTP) and found.l4 + 4 <= found.end:
        found.sport, found.dport = number(data, found.l4), number(data, found.l4 + 2)
    if not cut and not found.fragment:
        found.sum_holds = _sum_holds(data, found)
    return found


def _walk(data: bytes, found: Read) -> bool:
    while found.protocol in (*EXTENSIONS, 44):
        if found.l4 + 8 > min(found.end, len(data)):
            return False
        kind, following, units = found.protocol, data[found.l4], data[found.l4 + 1]
        if kind == 44:
            word = number(data, found.l4 + 2)
            found.offset, found.fragment = word & 0xFFF8, found.fragment or bool(word & 0xFFF9)
        found.l4 += 8 if kind == 44 else (units + 2) * 4 if kind == 51 else (units + 1) * 8
        found.protocol = following
        if found.offset:
            return True
    return True


def _sum_holds(data: bytes, found: Read) -> bool | None:
    body = data[found.l4 : found.end]
    places = {TCP: 16, UDP: 6, 58: 2}
    if found.protocol == SCTP:
        if body[8:12] == bytes(4):  # left to the hardware, as Linux does it
            found.check = (found.l4 + 8, found.l4 + 12)
        return None
    if found.protocol == 1:
        return len(body) >= 4 and checksum(body) == 0
    if found.protocol not in places or len(body) < places[found.protocol] + 2:
        return None
    pseudo = found.source.packed + found.target.packed
    pseudo += len(body).to_bytes(4, "big") + found.protocol.to_bytes(4, "big")
    said = number(body, places[found.protocol])
    holds = checksum(pseudo + body) == 0
    if found.protocol == TCP and not said and not holds:
        return None  # NAT takes it for one that was left to the hardware, too
    if said == checksum(pseudo) ^ 0xFFFF and found.protocol in (TCP, UDP) and not holds:
        found.check = (found.l4 + places[found.protocol], found.l4 + places[found.protocol] + 2)
        return None
    if found.protocol == UDP and said == 0:
        return None
    return holds


def options(frame: bytes, packet: Read) -> bytes:
    """Those of TCP; none where the header is longer than the segment, which nobody takes."""
    end = payload_at(frame, packet)
    return frame[packet.l4 + 20 : end] if packet.protocol == TCP and end <= packet.end else b""


def payload(frame: bytes, packet: Read) -> bytes:
    """What TCP or UDP carries."""
    return frame[payload_at(frame, packet) : packet.end]


def payload_at(frame: bytes, packet: Read) -> int:
    """Where the words begin."""
    return packet.l4 + (max(20, (frame[packet.l4 + 12] >> 4) * 4) if packet.protocol == TCP else 8)
