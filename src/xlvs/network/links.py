"""The machine's interfaces and their addresses, kept up to date by what the kernel tells."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from xlvs.network.rtnetlink import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Rtnetlink,
    attributes,
    messages,
    route_socket,
)

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=4BI")  # struct ifaddrmsg
# linux/rtnetlink.h: groups as the bits of nl_groups
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
# linux/if_link.h and linux/if_addr.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_OPTIMISTIC = 0x08, 0x40, 0x04
_AF_BRIDGE = 7  # notices about bridge ports come as links, too
_IFF_UP, _IFF_RUNNING = 0x1, 0x40  # linux/if.h
_SPACE = 1 << 18
_RECEIVE_BUFFER = 1 << 20

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. ``addresses`` are those that can be used, in the kernel's order; ``kind`` is vrf, ..."""

    index: int
    name: str
    flags: int
    mac: bytes
    mtu: int = 0
    parent: int = 0
    master: int = 0
    kind: str = ""
    addresses: tuple[Address, ...] = field(default=())

    @property
    def up(self) -> bool:
        """Switched on, and with a carrier."""
        return self.enabled and self.flags & _IFF_RUNNING != 0

    @property
    def enabled(self) -> bool:
        """Switched on."""
        return self.flags & _IFF_UP != 0


class Links:
    """All interfaces by name. ``fileno`` is readable when something changed; then call ``read``."""

    def __init__(self, netlink: Rtnetlink) -> None:
        self._netlink = netlink
        self._socket = route_socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.setblocking(False)
        self._socket.bind((0, _GROUPS))  # before the first dump, so that nothing is missed
        self._links: dict[int, Link] = {}
        self._dump()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def get(self, name: str) -> Link | None:
        """The interface of that name."""
        return next((link for link in self._links.values() if link.name == name), None)

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def read(self) -> set[str]:
        """Take in what changed; the names of the interfaces that are not what they were."""
        before = dict(self._links)
        while True:
            try:
                data = self._socket.recv(_SPACE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._dump()  # some notices were lost
                continue
            for kind, _, body in messages(data):
                self._take(kind, body)
        changed = {**before, **self._links}
        return {
            link.name
            for index in changed
            if before.get(index) != self._links.get(index)
            for link in (before.get(index), self._links.get(index))
            if link is not None
        }

    def _dump(self) -> None:
        self._links = {}
        for kind, body in self._netlink.dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
            self._take(kind, body)
        for kind, body in self._netlink.dump(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
            self._take(kind, body)

    def _take(self, kind: int, body: bytes) -> None:
        if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= _LINK.size:
            self._take_link(kind, body)
        elif kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= _ADDRESS.size:
            self._take_address(kind, body)

    def _take_link(self, kind: int, body: bytes) -> None:
        family, _, index, flags, _ = _LINK.unpack_from(body)
        if family == _AF_BRIDGE:
            return
        if kind == RTM_DELLINK:
            self._links.pop(index, None)
            return
        found = attributes(body[_LINK.size :])
        known = self._links.get(index)
        self._links[index] = Link(
            index=index,
            name=_text(found.get(_IFLA_IFNAME)),
            flags=flags,
            mac=found.get(_IFLA_ADDRESS, b""),
            mtu=_number(found.get(_IFLA_MTU)),
            parent=_number(found.get(_IFLA_LINK)),
            master=_number(found.get(_IFLA_MASTER)),
            kind=_text(attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND)),
            addresses=known.addresses if known else (),
        )

    def _take_address(self, kind: int, body: bytes) -> None:
        family, _, flags, _, index = _ADDRESS.unpack_from(body)
        link = self._links.get(index)
        if link is None or family not in (socket.AF_INET, socket.AF_INET6):
            return
        found = attributes(body[_ADDRESS.size :])
        address = ip_address(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
        flags = _number(found.get(_IFA_FLAGS)) or flags
        others = tuple(one for one in link.addresses if one != address)
        unfit = flags & _IFA_F_DADFAILED or flags & (_IFA_F_TENTATIVE | _IFA_F_OPTIMISTIC) == _IFA_F_TENTATIVE
        if kind == RTM_NEWADDR and not unfit:
            if address in link.addresses:
                return
            others = (*others, address)
        self._links[index] = replace(link, addresses=others)


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="surrogateescape")


def _number(data: bytes | None) -> int:
    return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big") if data else 0
