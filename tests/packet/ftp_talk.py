"""An FTP control connection and its data connections through a director, both ends played by the test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_REDIRECT,
    Director,
    Server,
)
from tests.packet.frames import TCP, Datagram, sums_are_right
from xlvs.dataplane import layout
from xlvs.model import Forward, ServiceKey

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
CONTROL, DATA = 21, 20
MODULUS = 1 << 32


def serve(
    director: Director, family: int = 4, rip: str = "", port: int = CONTROL, vip: str = ""
) -> ServiceKey:
    """An FTP service of one server by NAT."""
    server = Server(rip or RIP[family], port, Forward.MASQ)
    return director.service(vip or VIP[family], TCP, [server], port=CONTROL)


def commas(address: str, port: int) -> bytes:
    """Address and port as PORT and 227 have them."""
    return ",".join(map(str, [*ip_address(address).packed, port >> 8, port & 255])).encode()


@dataclass(frozen=True)
class Segment:
    """What came out of the director."""

    source: str
    sport: int
    target: str
    dport: int
    sequence: int
    acknowledged: int
    options: bytes
    text: bytes


def read(frame: bytes) -> Segment:
    """Take a frame apart; its checksums and lengths must be right."""
    tags = 4 * (frame[12:14] == b"\x81\x00")
    packet = frame[14 + tags :]
    assert sums_are_right(packet)
    if packet[0] >> 4 == 4:
        size, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        ends = packet[12:16], packet[16:20]
    else:
        size, length = 40, 40 + int.from_bytes(packet[4:6], "big")
        ends = packet[8:24], packet[24:40]
    assert length == len(packet)
    sport, dport, sequence, acknowledged, offset = struct.unpack("!HHIIB", packet[size : size + 13])
    text = size + (offset >> 4) * 4
    source, target = (str(ip_address(end)) for end in ends)
    return Segment(
        source, sport, target, dport, sequence, acknowledged, packet[size + 20 : text], packet[text:length]
    )


@dataclass
class Talk:
    """The two ends, and what went through."""

    director: Director
    family: int = 4
    port: int = 40000
    vip: str = ""
    client: str = ""
    rip: str = ""
    server_port: int = CONTROL
    vport: int = CONTROL
    client_sequence: int = 1000
    server_sequence: int = 70000
    fields: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vip = self.vip or VIP[self.family]
        self.client = self.client or CLIENT[self.family]
        self.rip = self.rip or RIP[self.family]

    def from_client(self, text: bytes = b"", flags: str = "PA", **fields: object) -> Datagram:
        datagram = Datagram(
            self.client, self.vip, self.port, self.vport, TCP, flags, text, sequence=self.client_sequence
        )
        self.client_sequence = (self.client_sequence + len(text) + ("S" in flags)) % MODULUS
        return replace(datagram, **self.fields, **fields)  # type: ignore[arg-type]

    def from_server(self, text: bytes = b"", flags: str = "PA", **fields: object) -> Datagram:
        datagram = Datagram(
            self.rip,
            self.client,
            self.server_port,
            self.port,
            TCP,
            flags,
            text,
            sequence=self.server_sequence,
            source_mac=SERVER_MAC,
            target_mac=INSIDE_MAC,
        )
        self.server_sequence = (self.server_sequence + len(text) + ("S" in flags)) % MODULUS
        return replace(datagram, **self.fields, **fields)  # type: ignore[arg-type]

    def pass_on(self, datagram: Datagram) -> Segment:
        """Give it to the director, which must forward it to the other end."""
        verdict, after = self.director.run(datagram.frame())
        assert verdict == XDP_REDIRECT, self.director.counted()
        inward = datagram.source == self.client
        assert after[:12] == (SERVER_MAC + INSIDE_MAC if inward else ROUTER_MAC + OUTSIDE_MAC)
        return read(after)

    def says(self, text: bytes = b"", flags: str = "PA", **fields: object) -> Segment:
        return self.pass_on(self.from_client(text, flags, **fields))

    def hears(self, text: bytes = b"", flags: str = "PA", **fields: object) -> Segment:
        return self.pass_on(self.from_server(text, flags, **fields))

    def open(self) -> Talk:
        self.says(flags="S")
        self.hears(flags="SA")
        self.says(flags="A")
        return self

    def passive(self, port: int, address: str = "") -> Segment:
        """Ask for passive mode; the server's reply as the client gets it."""
        self.says(b"PASV\r\n")
        return self.hears(b"227 Entering Passive Mode (" + commas(address or self.rip, port) + b").\r\n")


def announced(director: Director) -> list[tuple[str, int, str, int, str, int]]:
    """The connections that wait for their first packet: client, VIP, server."""
    found = []
    for conn in director.connections():
        if conn.state & 0xF == layout.TCP_STATES.index("LISTEN"):
            ends = []
            for address, port in (
                (conn.caddr, conn.cport),
                (conn.vaddr, conn.vport),
                (conn.daddr, conn.dport),
            ):
                ends += [str(ip_address(layout.plain_address(address, conn.family))), swap(port)]
            found.append(tuple(ends))
    return sorted(found)  # type: ignore[arg-type]


def swap(port: int) -> int:
    return port >> 8 | (port & 255) << 8
