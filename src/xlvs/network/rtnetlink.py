"""The few rtnetlink messages of VRRP, without pyroute2: a takeover waits for them.

Requests of one call go to the kernel in one datagram, and it has carried them out when
``sendto`` returns; only then are its answers read.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_CREATE = 0x100, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_KIND = 0x3FFF  # of a nlattr's type: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_DELROUTE, RTM_DELRULE = 25, 33

_SPACE = 1 << 18  # more than any one datagram of answers
_BATCH = 16384  # bytes of requests sent at once, so that their answers fit the receive buffer


def attribute(kind: int, data: bytes) -> bytes:
    """One nlattr, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes that ``data`` is made of; of several of one kind the last."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message in a datagram."""
    return ((kind, sequence, body) for kind, sequence, _, body in _messages(data))


def notices(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, port and body of each message in a datagram; the port is that of the socket that asked for it.

    Most programs have one such socket, and the kernel gives that the number of the process.
    """
    return ((kind, port, body) for kind, _, port, body in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, port, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def route_socket() -> socket.socket:
    """A NETLINK_ROUTE socket, not bound."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


class Rtnetlink:
    """A NETLINK_ROUTE socket for requests."""

    def __init__(self) -> None:
        self._socket = route_socket()
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def change(self, requests: Sequence[tuple[int, int, bytes]]) -> list[int]:
        """Carry out requests of type, flags and body in order; for each 0 or the errno that it met."""
        answers: list[int] = []
        for batch in _batches(requests):
            first = self._sequence + 1
            text = b""
            for kind, flags, body in batch:
                self._sequence += 1
                flags |= NLM_F_REQUEST | NLM_F_ACK
                text += _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0)
                text += body + bytes(-len(body) % 4)
            self._socket.sendto(text, (0, 0))
            answers += self._acknowledgements(first, len(batch))
        return answers

    def _acknowledgements(self, first: int, number: int) -> list[int]:
        answers = [0] * number
        left = number
        while left:
            for kind, sequence, body in messages(self._socket.recv(_SPACE)):
                # An answer to a request before, whose reading was cut short, is none of these.
                if kind == _NLMSG_ERROR and 0 <= sequence - first < number:
                    answers[sequence - first] = -struct.unpack_from("=i", body)[0]
                    left -= 1
        return answers

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """All objects that the kernel has: type and body of each message."""
        while True:
            try:
                return self._dump(kind, body)
            except OSError as error:
                if error.errno not in (errno.EINTR, errno.EBUSY):
                    raise

    def _dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._socket.sendto(
            _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body, (0, 0)
        )
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, sequence, content in messages(self._socket.recv(_SPACE)):
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    raise OSError(number, os.strerror(number))
                found.append((answer, content))


def _batches(requests: Iterable[tuple[int, int, bytes]]) -> Iterator[list[tuple[int, int, bytes]]]:
    batch: list[tuple[int, int, bytes]] = []
    size = 0
    for request in requests:
        batch.append(request)
        size += _HEADER.size + len(request[2])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
