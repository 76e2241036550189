"""Questions about addresses that plain sockets answer, without netlink's start-up cost."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

_SIOCGIFMTU = 0x8921  # linux/sockios.h
_ANY_PORT = 9  # discard; nothing is sent


class SocketHost:
    """:class:`xlvs.dataplane.host.Host` by asking the kernel through sockets."""

    def is_local(self, address: bytes) -> bool:
        """Whether the address can be bound, which only a machine's own can."""
        family, text = _presentation(address)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((text, 0))
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT, errno.EACCES):
                    return False
                raise
        return True

    def source_towards(self, address: bytes) -> bytes | None:
        """The source of a connected datagram socket: routing's own choice."""
        family, text = _presentation(address)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((text, _ANY_PORT))
            except OSError:
                return None
            return socket.inet_pton(family, probe.getsockname()[0].split("%")[0])

    def mtu(self, ifindex: int) -> int:
        """The MTU by ioctl, cut to 65535 (lo has one more)."""
        request = struct.pack("16si12x", socket.if_indextoname(ifindex).encode(), 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _SIOCGIFMTU, request)
        size: int = struct.unpack_from("16si", answer)[1]
        return min(size, 0xFFFF)


def _presentation(address: bytes) -> tuple[socket.AddressFamily, str]:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return family, socket.inet_ntop(family, address)
