"""Raw sockets that VRRP comes and goes by, each for one interface, family, protocol and group."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from xlvs.network.socket_filter import ALL, JEQ, LDB_ABS, LDB_IND, LDX_MSH, RET, attach

Address = IPv4Address | IPv6Address

_AH = 51
_AH_SIZE = 24  # of the authentication header of RFC 2402 with a 96-bit value
_TOS = 0xC0  # internetwork control
_TC_PRIO_CONTROL = 7  # linux/pkt_sched.h
# linux/in.h, linux/in6.h: what Python's socket module has no names for
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL, _IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 49, 29, 51, 52
_FURTHEST = 200  # a conditional jump reaches 255 instructions
_PKTINFO6 = struct.Struct("=16si")
_DATAGRAM = 65535
_AT_ONCE = 64  # datagrams read before the loop gets its turn again
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size) + socket.CMSG_SPACE(4)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram: over IPv4 with its IP header, over IPv6 the payload. ``hop_limit`` is IPv6's."""

    data: bytes
    source: Address
    destination: Address | None = None
    hop_limit: int = 0


class VrrpSocket:
    """One raw socket for both ways.

    ``group`` is joined on the interface; None: only what comes to ``source`` is heard (unicast).
    ``ifindex`` and ``interface`` may be 0 and "" with unicast. ``interface`` may be in a VRF.
    """

    def __init__(
        self,
        *,
        family: int,
        protocol: int,
        interface: str,
        ifindex: int,
        group: Address | None,
        source: Address | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self.six = family == socket.AF_INET6
        self._ifindex = ifindex
        self._authenticated = protocol == _AH
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(family, kind, protocol)
        try:
            self.hear(())  # until somebody is there to listen
            if receive_buffer:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _TC_PRIO_CONTROL)
            if interface:
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode(errors="surrogateescape")
                )
            if self.six:
                self._prepare_six(group, source)
            else:
                self._prepare_four(group, source)
        except OSError:
            self._socket.close()
            raise

    def _prepare_four(self, group: Address | None, source: Address | None) -> None:
        four = socket.IPPROTO_IP
        self._socket.setsockopt(four, socket.IP_HDRINCL, 1)
        self._socket.setsockopt(four, _IP_MULTICAST_ALL, 0)
        if group is not None:
            request = struct.pack("=4s4si", group.packed, bytes(4), self._ifindex)  # struct ip_mreqn
            self._socket.setsockopt(four, socket.IP_ADD_MEMBERSHIP, request)
            self._socket.setsockopt(four, socket.IP_MULTICAST_IF, request)
            self._socket.setsockopt(four, socket.IP_MULTICAST_LOOP, 0)
            self._socket.bind((str(group), 0))  # what comes to our own address is not for the group
        elif source is not None:
            self._socket.bind((str(source), 0))

    def _prepare_six(self, group: Address | None, source: Address | None) -> None:
        six = socket.IPPROTO_IPV6
        self._socket.setsockopt(six, socket.IPV6_RECVPKTINFO, 1)
        self._socket.setsockopt(six, _IPV6_RECVHOPLIMIT, 1)
        self._socket.setsockopt(six, _IPV6_MULTICAST_ALL, 0)
        self._socket.setsockopt(six, socket.IPV6_TCLASS, _TOS)
        if group is not None:
            request = struct.pack("=16si", group.packed, self._ifindex)  # struct ipv6_mreq
            self._socket.setsockopt(six, socket.IPV6_JOIN_GROUP, request)
            self._socket.setsockopt(six, socket.IPV6_MULTICAST_IF, self._ifindex)
            self._socket.setsockopt(six, socket.IPV6_MULTICAST_LOOP, 0)
            self._socket.bind((str(group), 0, 0, self._ifindex))
        elif source is not None:
            scope = self._ifindex if source.is_link_local else 0
            self._socket.bind((str(source), 0, 0, scope))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the group and close."""
        self._socket.close()

    def hear(self, router_ids: Collection[int]) -> None:
        """Let the kernel hand over packets of these virtual routers only."""
        at = 1 + (_AH_SIZE if self._authenticated else 0)
        if self.six:
            code = [(LDB_ABS, 0, 0, at)]
        else:
            code = [(LDX_MSH, 0, 0, 0), (LDB_IND, 0, 0, at)]
        if len(router_ids) > _FURTHEST:
            router_ids, code = (), [(RET, 0, 0, ALL)]
        wanted = sorted(router_ids)
        for place, router_id in enumerate(wanted):
            code.append((JEQ, len(wanted) - place, 0, router_id))
        attach(self._socket, [*code, (RET, 0, 0, 0), (RET, 0, 0, ALL)])

    def receive(self) -> Iterator[Arrival]:
        """What has come, but not all of a flood; raises OSError when the interface is gone or down."""
        for _ in range(_AT_ONCE):
            try:
                if not self.six:
                    data, (source, _) = self._socket.recvfrom(_DATAGRAM)
                    yield Arrival(data, IPv4Address(source))
                    continue
                data, extras, _, name = self._socket.recvmsg(_DATAGRAM, _ANCILLARY)
            except BlockingIOError:
                return
            destination, hops = None, 0
            for level, kind, value in extras:
                if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                    destination = IPv6Address(value[:16])
                elif level == socket.IPPROTO_IPV6 and kind == _IPV6_HOPLIMIT:
                    hops = struct.unpack("=i", value[:4])[0]
            # Link-local names come with their scope, which is the socket's own.
            source6 = ip_address(name[0].partition("%")[0])
            yield Arrival(data, source6, destination, hops)

    def send(self, packet: bytes, source: Address, destination: Address, hop_limit: int) -> None:
        """Send a whole IPv4 datagram, or the payload of an IPv6 one from ``source``."""
        if not self.six:
            self._socket.sendto(packet, (str(destination), 0))
            return
        scope = self._ifindex if destination.is_link_local or destination.is_multicast else 0
        extras = [
            (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(source.packed, self._ifindex)),
            (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT, struct.pack("=i", hop_limit)),
        ]
        self._socket.sendmsg([packet], extras, 0, (str(destination), 0, 0, scope))
