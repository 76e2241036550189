"""Connections that time ended while both ends believed in them: both are reset.

Only FULLNAT's and SYNPROXY's: their ends know each other's sequence numbers by the director
alone. A reset is believed where it has the very number that its receiver waits for (RFC 5961),
which is the one that it acknowledged last; the data plane notes both (conn.edge_in, edge_out).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from xlvs.dataplane import layout
from xlvs.dataplane.events import Event
from xlvs.dataplane.rows import swap16
from xlvs.model import L4, Forward

_RST = 0x04
_TTL = 64
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Reset:
    """A segment that ends a connection in its receiver's eyes. Addresses are packed."""

    source: bytes
    sport: int
    target: bytes
    dport: int
    sequence: int

    def packet(self) -> bytes:
        """From the IP header on; IPv4's own checksum and identification are the kernel's to fill in."""
        head = struct.pack("!HHIIBBHHH", self.sport, self.dport, self.sequence, 0, 5 << 4, _RST, 0, 0, 0)
        check = _checksum(self.source + self.target + struct.pack("!II", len(head), L4.TCP) + head)
        segment = head[:16] + struct.pack("!H", check) + head[18:]
        if len(self.source) == 4:
            first = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, _TTL, L4.TCP, 0)
        else:
            first = struct.pack("!IHBB", 6 << 28, len(segment), L4.TCP, _TTL)
        return first + self.source + self.target + segment


def of(conn: layout.ConnRow) -> Iterator[Reset]:
    """What tells the client, and what tells the real server."""
    client_waits, server_waits = conn.edge_in, conn.edge_out
    if conn.flags & layout.CONN_OPENING:  # nobody has acknowledged more than the other's SYN
        client_waits = conn.edge_out + conn.seq_out + 1
        server_waits = conn.edge_in + conn.seq_in + 1
    client = layout.plain_address(conn.caddr, conn.family)
    virtual = layout.plain_address(conn.vaddr, conn.family)
    yield Reset(virtual, swap16(conn.vport), client, swap16(conn.cport), client_waits & _MASK)
    local, port = client, conn.cport
    if conn.flags & layout.CONN_METHOD == Forward.FULLNAT:
        local, port = layout.plain_address(conn.laddr, conn.server_family), conn.lport
    server = layout.plain_address(conn.daddr, conn.server_family)
    yield Reset(local, swap16(port), server, swap16(conn.dport), server_waits & _MASK)


class Resets:
    """Answers EVENT_EXPIRED."""

    @property
    def pause(self) -> float:
        """See Handler: it waits for nothing."""
        return float("inf")

    def handle(self, event: Event, now: float) -> None:
        """See Handler."""
        del now
        for reset in of(layout.ConnRow.from_buffer_copy(event.frame)):
            _send(reset)

    def step(self, now: float) -> None:
        """See Handler."""


def _send(reset: Reset) -> None:
    """By routing, in the name of an address that need not be the director's own."""
    family = socket.AF_INET if len(reset.target) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
        out.sendto(reset.packet(), (socket.inet_ntop(family, reset.target), 0))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
