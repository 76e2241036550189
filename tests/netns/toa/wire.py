"""A director played by bytes: whole segments and datagrams with any options, on a veth's other end.

No stack answers there, so every header is the test's own.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address

from tests.packet import frames
from xlvs.dataplane import thread

ETH_P_ALL = 3
MAC, SERVER_MAC = bytes.fromhex("0200000000d1"), bytes.fromhex("0200000000a1")
MAC_TEXT, SERVER_MAC_TEXT = "02:00:00:00:00:d1", "02:00:00:00:00:a1"
PATIENCE = 20.0  # seconds that an answer may take on a busy machine


def told(address: str, port: int) -> bytes:
    """What follows an option's kind and length: port and address."""
    return struct.pack("!H", port) + ip_address(address).packed


def tcp_option(address: str, port: int, kind: int = 254) -> bytes:
    """TOA, padded to a multiple of four."""
    content = told(address, port)
    return bytes((kind, 2 + len(content))) + content


def ipv4_option(address: str, port: int) -> bytes:
    """The client's address of UDP, in an IPv4 header."""
    content = told(address, port)
    return bytes((31, 2 + len(content))) + content


def ipv6_options(address: str, port: int, following: int = frames.UDP) -> bytes:
    """The same as an IPv6 destination options header."""
    content = told(address, port)
    options = bytes((31, len(content))) + content
    room = -(2 + len(options)) % 8
    padding = b"" if not room else b"\0" if room == 1 else bytes((1, room - 2)) + bytes(room - 2)
    return bytes((following, (2 + len(options) + len(padding)) // 8 - 1)) + options + padding


@dataclass(frozen=True)
class Received:
    """A TCP segment or UDP datagram that the real server sent."""

    source: str
    target: str
    sport: int
    dport: int
    payload: bytes
    flags: int = 0
    sequence: int = 0
    acknowledged: int = 0


class Wire:
    """The director's end of the veth ``device`` in a namespace."""

    def __init__(self, namespace: str, device: str) -> None:
        self._socket = _inside(namespace, lambda: _packet_socket(device))

    def close(self) -> None:
        self._socket.close()

    def send(self, packet: bytes) -> None:
        """An IP packet to the real server."""
        frame = frames.ethernet(packet, SERVER_MAC, MAC)
        while True:
            try:
                self._socket.send(frame)
                return
            except BlockingIOError:
                select.select([], [self._socket], [], 1)

    def receive(self, protocol: int, local: tuple[str, int], deadline: float) -> Received | None:
        """The next segment or datagram to an address and port; None when the time is over."""
        while (left := deadline - time.monotonic()) > 0:
            found = self.next(protocol, left)
            if found and (found.target, found.dport) == local:
                return found
        return None

    def next(self, protocol: int, seconds: float) -> Received | None:
        """The next one of that protocol, to whomever."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return None
            found = _parsed(self._socket.recv(65535), protocol)
            if found:
                return found
        return None

    def udp(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        payload: bytes,
        client: tuple[str, int] | None = None,
        options: bytes | None = None,
    ) -> None:
        """A datagram, telling its client or with any IPv4 options (IPv6: header) instead."""
        datagram = frames.Datagram(source[0], target[0], source[1], target[1], payload=payload)
        if ip_address(source[0]).version == 4:
            given = ipv4_option(*client) if client else options or b""
            self.send(replace(datagram, options=given).packet())
            return
        header = ipv6_options(*client) if client else options or b""
        body = header + datagram.segment()
        self.send(frames.ip(source[0], target[0], 60 if header else frames.UDP, body))


class Stream:
    """One TCP connection from a local address of the director to the real server."""

    def __init__(
        self,
        wire: Wire,
        local: tuple[str, int],
        server: tuple[str, int],
        options: bytes = b"",
        *,
        on_ack: bool = True,
        bare_ack: bool = True,
    ) -> None:
        """Shake hands; ``options`` go into the first data, and into the handshake's end if ``on_ack``.

        Without ``bare_ack`` the first data ends the handshake.
        """
        self._wire, self._local, self._server = wire, local, server
        self._options, self._told_on_ack = options, on_ack
        self._sequence, self._acknowledged = 7000, 0
        self._segment("S", options=bytes((2, 4, 5, 0xB4)))
        self._sequence += 1
        while True:
            answer = self._receive()
            if answer.flags & frames.FLAGS["S"]:
                break
        assert answer.flags == frames.FLAGS["S"] | frames.FLAGS["A"], f"refused: {answer}"
        self._acknowledged = answer.sequence + 1
        if bare_ack:
            self._segment("A", options=options if on_ack else b"")

    def send(self, payload: bytes) -> None:
        """One segment of data, with the options while nothing of it is acknowledged."""
        self._segment("PA", payload, self._options)
        self._sequence += len(payload)

    def read(self, ends: bytes | None = None) -> bytes:
        """What the server sends, up to and with ``ends``, or up to its FIN."""
        got = b""
        while ends is None or not got.endswith(ends):
            segment = self._receive()
            assert not segment.flags & frames.FLAGS["R"], f"reset after {got!r}"
            if segment.sequence != self._acknowledged:
                continue  # sent again
            got += segment.payload
            self._acknowledged += len(segment.payload)
            finished = segment.flags & frames.FLAGS["F"]
            self._acknowledged += 1 if finished else 0
            if segment.payload or finished:
                self._segment("A")
            if finished:
                break
        return got

    def ask(self, request: bytes) -> bytes:
        """Send a request, and read the answer up to the server's FIN."""
        self.send(request)
        return self.read()

    def reset(self) -> None:
        self._segment("RA")

    def _receive(self) -> Received:
        found = self._wire.receive(frames.TCP, self._local, time.monotonic() + PATIENCE)
        assert found, f"no answer to {self._local}"
        return found

    def _segment(self, flags: str, payload: bytes = b"", options: bytes = b"") -> None:
        self._wire.send(
            frames.Datagram(
                self._local[0],
                self._server[0],
                self._local[1],
                self._server[1],
                frames.TCP,
                flags,
                payload,
                sequence=self._sequence,
                acknowledged=self._acknowledged,
                tcp_options=options,
            ).packet()
        )


def _parsed(frame: bytes, protocol: int) -> Received | None:
    packet = frame[14:]
    if frame[12:14] == b"\x08\0":
        size, found = (packet[0] & 15) * 4, packet[9]
        source, target = packet[12:16], packet[16:20]
        length = int.from_bytes(packet[2:4], "big")
    elif frame[12:14] == b"\x86\xdd":
        size, found = 40, packet[6]
        source, target = packet[8:24], packet[24:40]
        length = 40 + int.from_bytes(packet[4:6], "big")
    else:
        return None
    if found != protocol or frame[6:12] != SERVER_MAC:
        return None
    body = packet[size:length]
    ends = (str(ip_address(source)), str(ip_address(target)))
    if protocol == frames.UDP:
        sport, dport = struct.unpack_from("!HH", body)
        return Received(*ends, sport, dport, body[8:])
    sport, dport, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", body)
    return Received(*ends, sport, dport, body[(offset >> 4) * 4 :], flags, sequence, acknowledged)


def _packet_socket(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    opened.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: a thousand answers at once
    opened.bind((device, ETH_P_ALL))
    return opened


def _inside(namespace: str, make: object) -> socket.socket:
    """Make a socket in another network namespace; it stays there, this process does not."""
    with thread.in_network(f"/run/netns/{namespace}"):
        assert callable(make)
        made = make()
        assert isinstance(made, socket.socket)
        return made
