"""What a lab's directors say on the wire, with the kernel's time of each frame."""

from __future__ import annotations

import select
import socket
import struct
import time
from array import array
from dataclasses import dataclass

from bench.place import inside
from xlvs.errors import XlvsError
from xlvs.lab.build import Lab
from xlvs.lab.topology import SWITCH

# asm-generic/socket.h, linux/if_ether.h, linux/filter.h: what Python's socket module has no names for
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_ETH_P_ALL, _ETH_P_ARP, _VRRP = 3, 0x806, 112
_LDH_ABS, _LDB_ABS, _JEQ, _RET = 0x28, 0x30, 0x15, 0x06
_AT_TYPE, _AT_PROTOCOL, _AT_PRIORITY, _AT_SENDER, _AT_TARGET = 12, 23, 14 + 20 + 2, 28, 38
_FILTER = (
    (_LDH_ABS, 0, 0, _AT_TYPE),
    (_JEQ, 2, 0, _ETH_P_ARP),
    (_LDB_ABS, 0, 0, _AT_PROTOCOL),
    (_JEQ, 0, 1, _VRRP),
    (_RET, 0, 0, 0xFFFF),
    (_RET, 0, 0, 0),
)
_TIMESPEC = struct.Struct("=qq")


@dataclass(frozen=True)
class Heard:
    """A frame from director ``number`` (from 0): ``priority`` of an advert, or None: an announcement."""

    moment: float  # seconds of the monotonic clock
    number: int
    priority: int | None


class Wire:
    """Adverts and gratuitous ARP that come out of the directors, cut off from the others or not."""

    def __init__(self, lab: Lab) -> None:
        self._sockets = []
        self.heard: list[Heard] = []
        code = array("B", b"".join(struct.pack("=HBBI", *one) for one in _FILTER))
        program = struct.pack("@HP", len(_FILTER), code.buffer_info()[0])  # struct sock_fprog
        with inside(lab.namespace(SWITCH)):
            for node in lab.topology.directors:
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
                wire.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
                wire.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                wire.bind((f"{node.name}-eth0", _ETH_P_ALL))
                self._sockets.append(wire)

    def close(self) -> None:
        """Listen no more."""
        for wire in self._sockets:
            wire.close()

    def read(self) -> list[Heard]:
        """All that was heard so far, in order."""
        behind = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
        for number, wire in enumerate(self._sockets):
            while True:
                try:
                    frame, extras, _, place = wire.recvmsg(256, socket.CMSG_SPACE(_TIMESPEC.size))
                except BlockingIOError:
                    break
                except OSError:  # its plug was pulled: it hears again when that is put in
                    continue
                if place[2] != socket.PACKET_OUTGOING and extras:
                    seconds, nanoseconds = _TIMESPEC.unpack(extras[0][2])
                    self._take(number, frame, seconds + nanoseconds / 1e9 - behind)
        self.heard.sort(key=lambda each: each.moment)
        return self.heard

    def _take(self, number: int, frame: bytes, moment: float) -> None:
        if frame[_AT_PROTOCOL] == _VRRP and frame[_AT_TYPE : _AT_TYPE + 2] == b"\x08\x00":
            self.heard.append(Heard(moment, number, frame[_AT_PRIORITY]))
        elif frame[_AT_SENDER : _AT_SENDER + 4] == frame[_AT_TARGET : _AT_TARGET + 4]:
            self.heard.append(Heard(moment, number, None))

    def next_advert(self, number: int, patience: float) -> float:
        """Wait for that director's next advert: when it came."""
        begin = time.monotonic()
        while True:
            for each in reversed(self.read()):
                if each.moment >= begin and each.number == number and each.priority:
                    return each.moment
            left = begin + patience - time.monotonic()
            if left <= 0:
                raise XlvsError(f"director {number} did not speak for {patience:g} seconds")
            select.select(self._sockets, [], [], left)
