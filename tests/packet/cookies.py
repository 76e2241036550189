"""SYN cookies as bpf/cookie.h describes them, written a second time; and what SYNs offer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from tests.packet.director import Director
from tests.packet.frames import Datagram, version_of

_MASK = (1 << 64) - 1
SIZES = {
    4: (536, 1200, 1300, 1360, 1400, 1440, 1452, 1460),
    6: (536, 1220, 1300, 1340, 1380, 1420, 1432, 1440),
}
LEAST = {4: 536, 6: 1220}  # where the option is not there


@dataclass(frozen=True)
class Offer:
    """MSS (None: not said), window scale (None: no scaling), SACK."""

    mss: int | None
    scale: int | None
    sack: bool

    def options(self, stamps: bool = False) -> bytes:
        """As a client would write it."""
        text = b"" if self.mss is None else struct.pack("!BBH", 2, 4, self.mss)
        if self.sack:
            text += b"\x04\x02"
        if stamps:
            text += struct.pack("!BBII", 8, 10, 123456, 0)
        if self.scale is not None:
            text += bytes((1, 3, 3, self.scale))
        return text + b"\x01" * (-len(text) % 4)

    @classmethod
    def read(cls, text: bytes) -> Offer:
        """From the options of a SYN, as RFC 9293 has them read."""
        found, at = cls(None, None, False), 0
        mss, scale, sack = found.mss, found.scale, found.sack
        while at < len(text) and text[at]:
            if text[at] == 1:
                at += 1
                continue
            size = text[at + 1] if at + 1 < len(text) else 0
            if size < 2 or at + size > len(text):
                break
            value = text[at + 2 : at + size]
            match text[at], size:
                case 2, 4:
                    mss = int.from_bytes(value, "big")
                case 3, 3:
                    scale = min(value[0], 14)  # RFC 7323, 2.3
                case 4, 2:
                    sack = True
            at += size
        return cls(mss, scale, sack)

    def within(self, version: int) -> Offer:
        """What a cookie can carry of it."""
        mss = LEAST[version] if self.mss is None else self.mss
        size = max((size for size in SIZES[version] if size <= mss), default=SIZES[version][0])
        return Offer(size, None if self.scale is None else min(self.scale, 14), self.sack)


def counter(director: Director) -> int:
    """The period that runs; hz is 1000 in tests."""
    return director.long_now() >> 16


def cookie_for(
    key: tuple[int, int, int, int], datagram: Datagram, offer: Offer, period: int, turn: bool = False
) -> int:
    """The cookie of a SYN in a period."""
    version = version_of(datagram.source)
    assert offer.mss is not None
    data = SIZES[version].index(offer.mss) | (15 if offer.scale is None else offer.scale) << 3
    data |= offer.sack << 7 | turn << 8 | (period & 1) << 9
    client, virtual = ip_address(datagram.source).packed, ip_address(datagram.target).packed
    words = [
        int.from_bytes(client[at : at + 4] + virtual[at : at + 4], "little")
        for at in range(0, len(client), 4)
    ]
    ports = struct.pack("!HH", datagram.sport, datagram.dport)
    words.append(datagram.sequence << 32 | int.from_bytes(ports, "little"))
    words.append(((period & 0xFFFFFFFF) << 10 | data) << 8 & _MASK | (2 if version == 4 else 10))
    low, high = key[1] << 32 | key[0], key[3] << 32 | key[2]
    return siphash(low, high, words) << 10 & 0xFFFFFFFF | data


def siphash(low: int, high: int, words: list[int]) -> int:
    """SipHash-1-3 of whole words, whose number the caller's last word tells."""
    v = [
        low ^ 0x736F6D6570736575,
        high ^ 0x646F72616E646F6D,
        low ^ 0x6C7967656E657261,
        high ^ 0x7465646279746573,
    ]
    for word in words:
        v[3] ^= word
        _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _round(v: list[int]) -> None:
    v[0] = v[0] + v[1] & _MASK
    v[1] = _turn(v[1], 13) ^ v[0]
    v[0] = _turn(v[0], 32)
    v[2] = v[2] + v[3] & _MASK
    v[3] = _turn(v[3], 16) ^ v[2]
    v[0] = v[0] + v[3] & _MASK
    v[3] = _turn(v[3], 21) ^ v[0]
    v[2] = v[2] + v[1] & _MASK
    v[1] = _turn(v[1], 17) ^ v[2]
    v[2] = _turn(v[2], 32)


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _MASK
