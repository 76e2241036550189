"""The addresses of a virtual router: put on interfaces and taken away again."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from xlvs.network.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    RTM_DELADDR,
    RTM_NEWADDR,
    Rtnetlink,
    attribute,
)

_MESSAGE = struct.Struct("=4BI")  # struct ifaddrmsg
# linux/if_addr.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 3, 4, 6, 8
_IFA_F_NODAD, _IFA_F_HOMEADDRESS, _IFA_F_NOPREFIXROUTE = 0x02, 0x10, 0x200
# What keywords add.
_FLAGS = {"mngtmpaddr": 0x100, "autojoin": 0x400}
_CACHEINFO = struct.Struct("=4I")  # struct ifa_cacheinfo: preferred, valid, two stamps
_FOREVER = 0xFFFFFFFF
# linux/rtnetlink.h, enum rt_scope_t; more names in rt_scopes of iproute2
_SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
_RT_SCOPES = ("/etc/iproute2/rt_scopes", "/usr/share/iproute2/rt_scopes")
_GONE = (errno.EADDRNOTAVAIL, errno.ENODEV)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """An address and the interface (by its number) that it goes to; scope as ip-address names it."""

    address: IPv4Interface | IPv6Interface
    ifindex: int
    scope: str | None = None
    label: str | None = None
    broadcast: IPv4Address | IPv6Address | None = None
    peer: IPv4Interface | IPv6Interface | None = None
    home: bool = False
    no_prefix_route: bool = False
    preferred_lifetime: int | None = None  # seconds; None: for ever, but for an IPv6 address of all bits
    flags: tuple[str, ...] = ()  # nodad (duplicate address detection is wanted), mngtmpaddr, autojoin


class VirtualAddresses:
    """Adds and removes addresses; what is there already, or is not, is no error."""

    def __init__(self, netlink: Rtnetlink) -> None:
        self._netlink = netlink

    def add(self, addresses: Sequence[Placed]) -> None:
        """Put them in place, in order; one that the kernel refuses is logged."""
        flags = NLM_F_CREATE | NLM_F_REPLACE
        answers = self._netlink.change([(RTM_NEWADDR, flags, _message(one)) for one in addresses])
        for one, number in zip(addresses, answers, strict=True):
            if number not in (0, errno.EEXIST):
                log.error("Cannot add address %s: %s", one.address, os.strerror(number))

    def remove(self, addresses: Sequence[Placed]) -> None:
        """Take them away, in order."""
        answers = self._netlink.change([(RTM_DELADDR, 0, _message(one)) for one in addresses])
        for one, number in zip(addresses, answers, strict=True):
            if number and number not in _GONE:
                log.error("Cannot remove address %s: %s", one.address, os.strerror(number))


def _message(one: Placed) -> bytes:
    local = one.address.ip.packed
    family = socket.AF_INET if one.address.version == 4 else socket.AF_INET6
    prefix = (one.peer or one.address).network.prefixlen
    flags = 0
    if family == socket.AF_INET6 and "nodad" not in one.flags:
        # Nobody else may have it: waiting for DAD would only make the takeover late.
        flags |= _IFA_F_NODAD
    if one.home:
        flags |= _IFA_F_HOMEADDRESS
    if one.no_prefix_route:
        flags |= _IFA_F_NOPREFIXROUTE
    for word in one.flags:
        flags |= _FLAGS.get(word, 0)
    text = _MESSAGE.pack(family, prefix, flags & 0xFF, _scope(one.scope), one.ifindex)
    text += attribute(_IFA_LOCAL, local)
    text += attribute(_IFA_ADDRESS, one.peer.ip.packed if one.peer else local)
    if one.label and family == socket.AF_INET:
        text += attribute(_IFA_LABEL, one.label.encode() + b"\0")
    if one.broadcast is not None:
        text += attribute(_IFA_BROADCAST, one.broadcast.packed)
    if flags:
        text += attribute(_IFA_FLAGS, struct.pack("=I", flags))
    preferred = one.preferred_lifetime
    if preferred is None and family == socket.AF_INET6 and prefix == one.address.max_prefixlen:
        preferred = 0  # deprecated: it serves, and is not what this node's own connections come from
    if preferred is not None:
        text += attribute(_IFA_CACHEINFO, _CACHEINFO.pack(preferred, _FOREVER, 0, 0))
    return text


def _scope(name: str | None) -> int:
    if name is None:
        return 0
    if name.isdecimal():
        return int(name) & 0xFF
    return _SCOPES.get(name) or _scope_of_files(name)


def _scope_of_files(name: str) -> int:
    for path in map(Path, _RT_SCOPES):
        if not path.exists():
            continue
        for line in path.read_text(errors="replace").splitlines():
            words = line.split("#")[0].split()
            if len(words) == 2 and words[1] == name:
                return int(words[0], 0) & 0xFF
    return 0
