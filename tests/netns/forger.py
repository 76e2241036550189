"""A TCP client of its own making, to say in options what no kernel would let it say.

``forger.py INTERFACE ROUTER_MAC SOURCE TARGET PORT`` reads lines of JSON: ``{"port", "syn", "ack",
"data", "way"}`` with options in hex for the SYN, the handshake's last segment and the request.
``way`` is "plain", "fragments" (the request comes in IP fragments) or "extension" (IPv6: behind a
destination options header). For each it asks for a page, and prints the status line, or "".
Its address is none of the kernel's own, so that nobody else answers.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

FIN, SYN, RST, ACK = 1, 2, 4, 16
REQUEST = b"GET / HTTP/1.0\r\nX-Filling: " + bytes(range(97, 123)) * 8 + b"\r\n\r\n"
PIECE = 64  # bytes of a fragment, headers left out
PATIENCE = 10.0


def folded(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


@dataclass
class Wire:
    """Raw frames by one interface, through one router."""

    interface: str
    router: bytes
    source: str
    target: str
    identity: int = 1
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.ipv6 = ":" in self.target
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        self.near, self.far = (socket.inet_pton(family, each) for each in (self.source, self.target))
        self.ether = 0x86DD if self.ipv6 else 0x0800
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.ether))
        self.socket.bind((self.interface, self.ether))
        self.head = self.router + self.socket.getsockname()[4] + struct.pack("!H", self.ether)

    def send(self, segment: bytes, way: str = "plain") -> None:
        self.identity += 1
        if way != "fragments":
            self.socket.send(self.head + self.packet(segment, 0, False, way))
            return
        for at in range(0, len(segment), PIECE):
            piece = segment[at : at + PIECE]
            self.socket.send(self.head + self.packet(piece, at, at + PIECE < len(segment), way))

    def packet(self, content: bytes, at: int, more: bool, way: str) -> bytes:
        whole = way != "fragments"
        if not self.ipv6:
            word = 0x4000 if whole else at // 8 | more << 13
            fields = (0x45, 0, 20 + len(content), self.identity & 0xFFFF, word, 64, 6)
            head = struct.pack("!BBHHHBB", *fields)
            check = struct.pack("!H", folded(head + b"\0\0" + self.near + self.far))
            return head + check + self.near + self.far + content
        following, between = 6, b""
        if not whole:
            following = 44
            between = struct.pack("!BBHI", 6, 0, at | more, self.identity)
        elif way == "extension":
            following, between = 60, bytes((6, 0, 1, 4, 0, 0, 0, 0))  # PadN
        head = struct.pack("!IHBB", 6 << 28, len(between) + len(content), following, 64)
        return head + self.near + self.far + between + content

    def segment(
        self, ports: tuple[int, int], seq: int, ack: int, flags: int, options: bytes, data: bytes
    ) -> bytes:
        options += b"\1" * (-len(options) % 4)
        head = struct.pack("!HHIIBBHHH", *ports, seq, ack, (5 + len(options) // 4) << 4, flags, 65535, 0, 0)
        content = head + options + data
        pseudo = self.near + self.far + struct.pack("!IHBB", len(content), 0, 0, 6)
        return content[:16] + struct.pack("!H", folded(pseudo + content)) + content[18:]

    def receive(self, ports: tuple[int, int], deadline: float) -> tuple[int, int, int, bytes] | None:
        """Sequence number, flags, length and data of the next segment to us."""
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                frame = self.socket.recv(65535)
            except TimeoutError:
                return None
            packet = frame[14:]
            at, protocol = (40, packet[6]) if self.ipv6 else ((packet[0] & 15) * 4, packet[9])
            size = len(packet) if self.ipv6 else int.from_bytes(packet[2:4], "big")
            if self.ipv6:
                size = 40 + int.from_bytes(packet[4:6], "big")
            if protocol != 6 or struct.unpack("!HH", packet[at : at + 4]) != ports[::-1]:
                continue
            seq, flags = int.from_bytes(packet[at + 4 : at + 8], "big"), packet[at + 13]
            data = packet[at + (packet[at + 12] >> 4) * 4 : size]
            return seq, flags, len(data), data
        return None


def ask(wire: Wire, port: int, what: dict[str, str], own: int) -> str:
    """One connection with one request; the status line of what came, as far as it came."""
    ports, seq, way = (own, port), own * 1000, what.get("way", "plain")
    options = {name: bytes.fromhex(what.get(name, "")) for name in ("syn", "ack", "data")}
    wire.send(wire.segment(ports, seq, 0, SYN, options["syn"], b""))
    deadline = time.monotonic() + PATIENCE
    first = wire.receive(ports, deadline)
    if first is None or first[1] & (SYN | ACK) != SYN | ACK:
        return ""
    seq, wanted = seq + 1, (first[0] + 1) & 0xFFFFFFFF
    wire.send(wire.segment(ports, seq, wanted, ACK, options["ack"], b""))
    wire.send(wire.segment(ports, seq, wanted, ACK, options["data"], REQUEST), way)
    answer, deadline = b"", time.monotonic() + PATIENCE
    while (found := wire.receive(ports, deadline)) is not None:
        start, flags, size, data = found
        if flags & RST:
            break
        if start == wanted:
            answer += data
            wanted = (wanted + size + bool(flags & FIN)) & 0xFFFFFFFF
        if flags & FIN and start + size + 1 & 0xFFFFFFFF == wanted:
            break
    wire.send(wire.segment(ports, seq + len(REQUEST), wanted, RST | ACK, b"", b""))
    return answer.partition(b"\r\n")[0].decode(errors="replace")


def main(interface: str, router: str, source: str, target: str, port: int) -> None:
    wire = Wire(interface, bytes.fromhex(router.replace(":", "")), source, target)
    for line in sys.stdin:
        what = json.loads(line)
        print(ask(wire, port, what, int(what["port"])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
