"""Puts fragments together again: IPVS reassembles and cuts anew, xlvs forwards the fragments.

What is compared is the datagram that the receiver gets, and with whose help it went out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.conformance.traffic.packets import FRAGMENT6, Header4
from tests.conformance.traffic.text import split, unwrap

ETHERNET = 14


@dataclass
class _Datagram:
    first: bytes = b""
    size: int | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Reassembler:
    """Frames of one link in, frames with whole packets out."""

    _waiting: dict[bytes, _Datagram] = field(default_factory=dict)

    def put(self, content: bytes) -> bytes | None:
        """The frame itself where it is no fragment; the whole one where this was the last missing.

        Fragments that were put into a tunnel one by one come out of it as a whole, without its headers.
        """
        packet = self._put(content[:12], content[ETHERNET:])
        if packet is None:
            return None
        inner = unwrap(packet)
        if inner is not packet:
            whole = self._put(content[:12] + b"tunnel", inner)
            if whole is None:
                return None
            packet = packet if whole == inner else whole
        return content[:ETHERNET] + packet

    def _put(self, link: bytes, packet: bytes) -> bytes | None:
        piece = _piece(packet)
        if piece is None:
            return packet
        key, offset, more, payload = piece
        datagram = self._waiting.setdefault(link + key, _Datagram())
        datagram.pieces[offset] = payload
        if offset == 0:
            datagram.first = packet
        if not more:
            datagram.size = offset + len(payload)
        whole = _whole(datagram)
        if whole is None:
            return None
        del self._waiting[link + key]
        return _headed(datagram.first, whole)

    def incomplete(self) -> list[str]:
        """What still waits for other fragments, as text; forgotten afterwards."""
        said = []
        for datagram in self._waiting.values():
            pieces = " ".join(
                f"{start}-{start + len(datagram.pieces[start])}" for start in sorted(datagram.pieces)
            )
            said.append(f"pieces {pieces} of {datagram.size}")
        self._waiting.clear()
        return said


def _piece(packet: bytes) -> tuple[bytes, int, bool, bytes] | None:
    """Key of the datagram, offset, more to come, payload; None where the packet is whole."""
    if packet[0] >> 4 == 6:
        if packet[6] != FRAGMENT6:
            return None
        word = int.from_bytes(packet[42:44], "big")
        return packet[8:40] + packet[44:48], word & ~7, bool(word & 1), packet[48:]
    word = int.from_bytes(packet[6:8], "big")
    if not word & 0x3FFF:
        return None
    key = packet[12:20] + packet[4:6] + packet[9:10]
    return key, (word & 0x1FFF) * 8, bool(word & 0x2000), split(packet).payload


def _whole(datagram: _Datagram) -> bytes | None:
    """All of it; pieces that overlap make no datagram (RFC 5722), as kernels have it."""
    payload = b""
    for offset, piece in sorted(datagram.pieces.items()):
        if offset != len(payload):
            return None
        payload += piece
    return payload if datagram.first and datagram.size == len(payload) else None


def _headed(first: bytes, payload: bytes) -> bytes:
    """The datagram with the header of its first fragment."""
    if first[0] >> 4 == 6:
        return first[:4] + struct.pack("!HB", len(payload), first[40]) + first[7:40] + payload
    parts = split(first)
    _, tos, _, identity, word, ttl, protocol = struct.unpack("!BBHHHBB", first[:10])
    header = Header4(tos, identity, word & 0x4000, ttl, protocol, first[20 : (first[0] & 15) * 4])
    return header.pack(parts.source, parts.target, payload)
