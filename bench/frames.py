"""The frames that the generator sends, in the shape of ``struct frames`` of frame.h."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP = 6, 17
FLOWS, FRAME_SIZE, LENGTH = 64, 64, 60
# The head of struct frames; its last four say when which frames were sent.
_HEAD = struct.Struct("=8I2Q2I")
CLIENTS = "198.18.0.0"
FIRST_PORT = 1024


SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10  # TCP flags, RFC 9293


@dataclass(frozen=True)
class Load:
    """What to send: packets of 64 flows, or a new TCP or UDP flow with each frame.

    ``flags`` are TCP's: established flows have a payload. ``fragment`` is the IP header's word of
    flags and offset. ``ends`` are what the flows come from, or go back to, where that is not the
    clients themselves.
    """

    source_mac: bytes
    target_mac: bytes
    target: str
    port: int
    protocol: int = UDP
    fresh: bool = False
    source: str = CLIENTS
    source_port: int = FIRST_PORT
    # The way back: the flows' own addresses at the other end.
    backwards: bool = False
    flags: int = SYN
    fragment: int = 0x4000
    ends: tuple[tuple[str, int], ...] = ()

    def write(self, memory: mmap.mmap, ifindex: int, first: int = 0) -> None:
        """Fill the generator's map; new flows begin with number ``first``."""
        blank = self._frame(None)
        packet = blank[14 : 34 + self._size]
        ip_sum = _sum(packet[:20])
        pseudo = packet[12:20] + struct.pack("!BBH", 0, self.protocol, len(packet) - 20)
        l4_sum = _sum(pseudo + packet[20:])
        check_at = 50 if self.protocol == TCP else 40
        sums = _native(ip_sum), _native(l4_sum), check_at
        head = _HEAD.pack(ifindex, self.fresh, LENGTH, first, *sums, first, 0, 0, first, 0)
        rows = [self._frame(number).ljust(FRAME_SIZE, b"\0") for number in range(FLOWS)]
        content = head + b"".join(rows)
        memory[: len(content)] = content

    @property
    def _size(self) -> int:
        """Bytes from the transport header on."""
        return 20 if self.protocol == TCP and (self.flags & SYN or self.fresh) else LENGTH - 34

    def _client(self, flow: int | None) -> tuple[bytes, int]:
        """A flow's end on the clients' side."""
        if flow is None:
            return bytes(4), 0
        if self.ends:
            address, port = self.ends[flow]
            return ip_address(address).packed, port
        return (int(ip_address(self.source)) + flow).to_bytes(4, "big"), self.source_port + flow

    def _frame(self, flow: int | None) -> bytes:
        """The frame of a flow; without one, its sums and its client are zero."""
        client, client_port = self._client(flow)
        server = ip_address(self.target).packed
        ends, ports = (client, server), (client_port, self.port)
        if self.backwards:
            ends, ports = ends[::-1], ports[::-1]
        size = self._size
        words = 0x45, 0, 20 + size, 0, self.fragment, 64, self.protocol, 0
        head = struct.pack("!BBHHHBBH", *words) + b"".join(ends)
        if self.protocol == TCP:
            segment = struct.pack("!HHIIBBHHH", *ports, 1, 0, 0x50, self.flags, 512, 0, 0).ljust(size, b"x")
            at = 16
        else:
            segment = struct.pack("!HHHH", *ports, size, 0).ljust(size, b"x")
            at = 6
        if flow is not None:
            pseudo = head[12:20] + struct.pack("!BBH", 0, self.protocol, size)
            segment = segment[:at] + _complement(_sum(pseudo + segment)) + segment[at + 2 :]
            head = head[:10] + _complement(_sum(head)) + head[12:]
        frame = self.target_mac + self.source_mac + b"\x08\x00" + head + segment
        return frame.ljust(LENGTH, b"\0")


def sent(memory: mmap.mmap) -> tuple[int, float]:
    """From the generator's map: how many frames lie between its two time stamps, in seconds."""
    fields = _HEAD.unpack_from(memory)
    first, begun, stamp, stamped = fields[7:11]
    return (stamped - first) & 0xFFFFFFFF, (stamp - begun) / 1e9


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def _native(value: int) -> int:
    """A big-endian 16-bit word as this machine reads it."""
    return int(struct.unpack("=H", value.to_bytes(2, "big"))[0])


def _complement(value: int) -> bytes:
    return (value ^ 0xFFFF).to_bytes(2, "big")
