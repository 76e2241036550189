"""Frames as they should be: built field by field, every checksum computed over the whole.

Nothing here updates a checksum incrementally: what the data plane did to a frame is
compared with a frame made from scratch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
IP_IN_IP = {4: 4, 6: 41}  # protocol number of a tunnelled packet, by its own version
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10}

CLIENT_MAC, DIRECTOR_MAC = bytes.fromhex("0200000000c1"), bytes.fromhex("0200000000d1")


def ones_sum(data: bytes) -> int:
    """The folded ones' complement sum of 16-bit words (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def checksum(data: bytes) -> int:
    return ones_sum(data) ^ 0xFFFF


def version_of(address: str) -> int:
    return ip_address(address).version


def pseudo_header(source: str, target: str, protocol: int, length: int) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    if version_of(source) == 4:
        return ends + struct.pack("!BBH", 0, protocol, length)
    return ends + struct.pack("!IHBB", length, 0, 0, protocol)


def ip(
    source: str,
    target: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    identity: int = 0,
    fragment: int = 0x4000,
    options: bytes = b"",
    length: int | None = None,
) -> bytes:
    """An IP packet; ``fragment`` is IPv4's whole flags-and-offset word, ``length`` what the header says."""
    ends = ip_address(source).packed + ip_address(target).packed
    if version_of(source) == 6:
        said = len(payload) if length is None else length
        return struct.pack("!IHBB", 6 << 28 | tos << 20, said, protocol, ttl) + ends + payload
    size = 20 + len(options)
    said = size + len(payload) if length is None else length
    head = struct.pack("!BBHHHBB", 0x40 | size // 4, tos, said, identity, fragment, ttl, protocol)
    check = checksum(head + b"\0\0" + ends + options)
    return head + struct.pack("!H", check) + ends + options + payload


def ethernet(
    packet: bytes, target: bytes, source: bytes, tags: tuple[int, ...] = (), ethertype: int | None = None
) -> bytes:
    """A frame; ``tags`` are VLAN ids, outer first (two: 802.1ad around 802.1Q)."""
    kinds = [0x88A8, 0x8100] if len(tags) == 2 else [0x8100]
    words = b"".join(struct.pack("!HH", kind, tag) for kind, tag in zip(kinds, tags, strict=False))
    last = ETHERTYPE[packet[0] >> 4] if ethertype is None else ethertype
    return target + source + words + struct.pack("!H", last) + packet


@dataclass(frozen=True)
class Datagram:
    """A TCP segment or UDP datagram with all around it.

    ``sum``: "whole"; "none" (UDP's 0), or "partial" (only the pseudo-header's, as a
    sender leaves it that counts on hardware).
    """

    source: str
    target: str
    sport: int = 40000
    dport: int = 80
    protocol: int = UDP
    flags: str = "S"
    payload: bytes = b"payload"
    ttl: int = 64
    tos: int = 0
    identity: int = 0
    fragment: int = 0x4000
    options: bytes = b""
    sum: str = "whole"
    sequence: int = 1000
    acknowledged: int = 77
    tcp_options: bytes = b""
    source_mac: bytes = CLIENT_MAC
    target_mac: bytes = DIRECTOR_MAC
    tags: tuple[int, ...] = ()

    def segment(self) -> bytes:
        """From the transport header on."""
        if self.protocol == TCP:
            bits = sum(FLAGS[flag] for flag in self.flags)
            numbers, offset = (self.sequence, self.acknowledged), (5 + len(self.tcp_options) // 4) << 4
            head = struct.pack("!HHIIBBH", self.sport, self.dport, *numbers, offset, bits, 512)
            at, tail = 16, struct.pack("!HH", 0, 0) + self.tcp_options + self.payload
        else:
            head = struct.pack("!HHH", self.sport, self.dport, 8 + len(self.payload))
            at, tail = 6, b"\0\0" + self.payload
        body = head + tail
        pseudo = pseudo_header(self.source, self.target, self.protocol, len(body))
        if self.sum == "partial":
            check = ones_sum(pseudo)
        elif self.sum == "none":
            check = 0
        else:
            check = checksum(pseudo + body)
            if self.protocol == UDP and not check:
                check = 0xFFFF
        return body[:at] + struct.pack("!H", check) + body[at + 2 :]

    def packet(self) -> bytes:
        """From the IP header on."""
        return ip(
            self.source,
            self.target,
            self.protocol,
            self.segment(),
            ttl=self.ttl,
            tos=self.tos,
            identity=self.identity,
            fragment=self.fragment,
            options=self.options,
        )

    def frame(self) -> bytes:
        """The whole."""
        return ethernet(self.packet(), self.target_mac, self.source_mac, self.tags)


def icmp_error(
    source: str, target: str, kind: int, code: int, word: int, quote: bytes, tos: int = 0
) -> bytes:
    """An ICMP or ICMPv6 error about a packet.

    IPv4's has internetwork-control precedence (RFC 1812) over ``tos``; IPv6's has none.
    """
    head = struct.pack("!BBHI", kind, code, 0, word)
    if version_of(source) == 4:
        body = head[:2] + struct.pack("!H", checksum(head + quote)) + head[4:] + quote
        return ip(source, target, ICMP, body, tos=0xC0 | tos, fragment=0)
    pseudo = pseudo_header(source, target, ICMP6, len(head) + len(quote))
    body = head[:2] + struct.pack("!H", checksum(pseudo + head + quote)) + head[4:] + quote
    return ip(source, target, ICMP6, body)


def sums_are_right(packet: bytes) -> bool:
    """Whether every checksum of an IP packet with TCP or UDP verifies (UDP's 0: none to verify)."""
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        if checksum(packet[:size]):
            return False
        protocol, ends = packet[9], (packet[12:16], packet[16:20])
        length = int.from_bytes(packet[2:4], "big") - size
        pseudo = b"".join(ends) + struct.pack("!BBH", 0, protocol, length)
    else:
        size, protocol = 40, packet[6]
        length = int.from_bytes(packet[4:6], "big")
        pseudo = packet[8:40] + struct.pack("!IHBB", length, 0, 0, protocol)
    segment = packet[size : size + length]
    if protocol == UDP and segment[6:8] == b"\0\0":
        return True
    return checksum(pseudo + segment) == 0
