"""SCTP packets built chunk by chunk (RFC 9260), their checksum computed bit by bit over the whole."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, ethernet, ip

SCTP = 132
CHUNKS = {
    "DATA": 0,
    "INIT": 1,
    "INIT_ACK": 2,
    "SACK": 3,
    "HEARTBEAT": 4,
    "HEARTBEAT_ACK": 5,
    "ABORT": 6,
    "SHUTDOWN": 7,
    "SHUTDOWN_ACK": 8,
    "ERROR": 9,
    "COOKIE_ECHO": 10,
    "COOKIE_ACK": 11,
    "ECNE": 12,
    "CWR": 13,
    "SHUTDOWN_COMPLETE": 14,
    "AUTH": 15,
    "ASCONF": 193,
}
_CASTAGNOLI = 0x82F63B78


def crc32c(data: bytes) -> int:
    """The checksum of RFC 9260, appendix A, by its definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def chunk(name: str, body: bytes = b"", said: int | None = None) -> bytes:
    """A chunk, padded; ``said`` is the length that it claims, without padding."""
    length = 4 + len(body) if said is None else said
    return struct.pack("!BBH", CHUNKS[name], 0, length) + body + bytes(-len(body) % 4)


@dataclass(frozen=True)
class Association:
    """One packet of an association.

    ``sum``: "whole", "partial" (0: left to the hardware, as Linux does) or "wrong".
    """

    source: str
    target: str
    sport: int = 40000
    dport: int = 80
    chunks: bytes = chunk("INIT", bytes(16))
    sum: str = "whole"
    ttl: int = 64
    source_mac: bytes = CLIENT_MAC
    target_mac: bytes = DIRECTOR_MAC
    tags: tuple[int, ...] = ()

    def segment(self) -> bytes:
        """From the common header on."""
        head = struct.pack("!HHI", self.sport, self.dport, 0x5EED)
        check = crc32c(head + bytes(4) + self.chunks) ^ (0x01000000 if self.sum == "wrong" else 0)
        return head + struct.pack("<I", 0 if self.sum == "partial" else check) + self.chunks

    def packet(self) -> bytes:
        """From the IP header on."""
        return ip(self.source, self.target, SCTP, self.segment(), ttl=self.ttl)

    def frame(self) -> bytes:
        """The whole."""
        return ethernet(self.packet(), self.target_mac, self.source_mac, self.tags)
