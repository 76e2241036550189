"""Questions about addresses that plain sockets answer, without pyroute2's start-up cost."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import sys
from array import array

_SIOCGIFMTU, _SIOCETHTOOL = 0x8921, 0x8946  # linux/sockios.h
_ETHTOOL_GDRVINFO = 3  # linux/ethtool.h: struct ethtool_drvinfo, the driver's name in its bytes 4 to 36
_DRVINFO_SIZE = 196
_ANY_PORT = 9  # discard; nothing is sent

# linux/rtnetlink.h and linux/netlink.h
_RTM_GETROUTE, _NLMSG_ERROR = 26, 2
_NLM_F_REQUEST = 1
_RTA_DST = 1
_RTN_LOCAL, _RTN_BROADCAST = 2, 3
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=8BI")  # struct rtmsg


class SocketHost:
    """:class:`xlvs.dataplane.host.Host` by asking the kernel through sockets."""

    def is_local(self, address: bytes) -> bool:
        """Whether the kernel's routing delivers the address to this machine.

        Binding would not tell: ip_nonlocal_bind, which directors often have, allows any.
        """
        return self._route_kind(address) == _RTN_LOCAL

    def is_broadcast(self, address: bytes) -> bool:
        """Whether the kernel's routing broadcasts to the address."""
        return len(address) == 4 and self._route_kind(address) == _RTN_BROADCAST

    def interface_mtu(self, name: str) -> int | None:
        """The MTU by ioctl."""
        request = struct.pack("16s24x", name.encode(errors="surrogateescape"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFMTU, request)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                return None
        size: int = struct.unpack_from("16si", answer)[1]
        return size

    def multicast_error(self, interface: str, group: bytes, *, sending: bool) -> int:
        """What a socket says that is bound to the interface as the kernel's own daemons are."""
        family = socket.AF_INET if len(group) == 4 else socket.AF_INET6
        name = interface.encode(errors="surrogateescape")
        try:
            index = socket.if_nametoindex(interface)
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
                if sending:
                    probe.connect((socket.inet_ntop(family, group), _ANY_PORT))
                elif family == socket.AF_INET:
                    member = group + bytes(4) + index.to_bytes(4, sys.byteorder)
                    probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                else:
                    member = group + index.to_bytes(4, sys.byteorder)
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        except OSError as error:
            return error.errno or errno.EINVAL
        return 0

    def _route_kind(self, address: bytes) -> int:
        """The type (RTN_*) of the route that the kernel takes to an address; 0 without one."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        attribute = struct.pack("=HH", 4 + len(address), _RTA_DST) + address
        route = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        length = _MESSAGE.size + len(route) + len(attribute)
        request = _MESSAGE.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + route + attribute
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.send(request)
            answer = netlink.recv(65536)
        if _MESSAGE.unpack_from(answer)[1] == _NLMSG_ERROR:
            return 0  # no route at all
        kind: int = _ROUTE.unpack_from(answer, _MESSAGE.size)[7]
        return kind

    def source_towards(self, address: bytes) -> bytes | None:
        """The source of a connected datagram socket: routing's own choice."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((socket.inet_ntop(family, address), _ANY_PORT))
                return socket.inet_pton(family, probe.getsockname()[0].split("%")[0])
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None

    def mtu(self, ifindex: int) -> int:
        """The MTU by ioctl, cut to 65535 (lo has one more)."""
        request = struct.pack("16si12x", socket.if_indextoname(ifindex).encode(), 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _SIOCGIFMTU, request)
        size: int = struct.unpack_from("16si", answer)[1]
        return min(size, 0xFFFF)

    def transmits_back(self, ifindex: int) -> bool:
        """Not on veth: it hands such frames to a peer without XDP only when others follow."""
        answer = array("B", _ETHTOOL_GDRVINFO.to_bytes(4, sys.byteorder).ljust(_DRVINFO_SIZE, b"\0"))
        request = struct.pack("16sP16x", socket.if_indextoname(ifindex).encode(), answer.buffer_info()[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                fcntl.ioctl(probe, _SIOCETHTOOL, request)
            except OSError:
                return False  # a device without ethtool: redirecting is the safe way
        return answer.tobytes()[4:36].rstrip(b"\0") != b"veth"
