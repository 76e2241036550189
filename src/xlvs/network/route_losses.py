"""Routes and rules that somebody takes away: what the kernel says of it, compared with ip's words."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise

from xlvs.network.rtnetlink import RTM_DELROUTE, RTM_DELRULE, attributes, notices, route_socket
from xlvs.network.socket_filter import ALL, JEQ, LDH_ABS, RET, attach

_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_RULE = struct.Struct("=5B3xI")  # struct fib_rule_hdr
# linux/rtnetlink.h and linux/fib_rules.h
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE, _FRA_OIFNAME = 1, 2, 3, 6, 15, 17
_TABLES = {"unspec": 0, "default": 253, "main": 254, "local": 255}
_METRIC6 = 1024  # what the kernel makes of none in IPv6 (linux/ipv6_route.h)
# linux/netlink.h and linux/rtnetlink.h: RTNLGRP_ of routes and rules, of IPv4 and IPv6
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_GROUPS = (7, 11, 8, 19)
_TYPE_AT = 4  # of a struct nlmsghdr
_SPACE = 1 << 16

Network = IPv4Network | IPv6Network
_ANY = ("default", "all", "any")
_EVERYWHERE: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """A route as far as it tells itself from others. ``table`` None: not known (a VRF's)."""

    prefix: Network
    table: int | None
    metric: int
    tos: int
    device: str  # "": of none, or of several
    gateway: str

    def __str__(self) -> str:
        return f"route {self.prefix}"


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule as far as it tells itself from others."""

    family: int
    preference: int
    source: Network
    destination: Network
    incoming: str
    outgoing: str
    table: int

    def __str__(self) -> str:
        return f"rule {self.preference}"


Lost = Way | Policy


def same(wanted: Lost, lost: Lost) -> bool:
    """Whether what was lost is what is wanted."""
    if isinstance(wanted, Way) and isinstance(lost, Way) and wanted.table is None:
        return wanted == Way(lost.prefix, None, lost.metric, lost.tos, lost.device, lost.gateway)
    return wanted == lost


# -- from words ---------------------------------------------------------------------

_LONE = ("onlink", "append", "prepend")
_LOCAL = ("local", "broadcast", "anycast")  # of that table, unless another is named
_KINDS = (*_LOCAL, *["unicast", "multicast", "throw", "unreachable", "prohibit", "blackhole"])


def way_of(words: Sequence[str]) -> Way:
    """A route of an interface of its own, from the words that ip-route(8) adds it by."""
    family, left = (6, list(words[1:])) if words[0] == "inet6" else (4, list(words))
    kind = left.pop(0) if left[0] in _KINDS or left[0].isdigit() else ""
    found: dict[str, str] = {}
    prefix = "default"
    while left and left[0] not in ("encap", "nexthop"):
        word = left.pop(0)
        if _is_network(word):
            prefix = word
        elif word not in _LONE:
            if left[0] == "lock":
                del left[0]
            found[word] = left.pop(0)
    metric = int(found.get("metric", 0))
    table = _table(found.get("table", "local" if kind in _LOCAL else "main"))
    if "nexthop" in left or "or" in found:
        # Of several ways the kernel names none first.
        found["dev"] = ""
        found.pop("via", None)
    return Way(
        prefix=_network(prefix, family),
        table=None if "vrf" in found else table or _TABLES["main"],  # as the kernel takes none for
        metric=metric or (_METRIC6 if family == 6 else 0),
        tos=int(found.get("tos", "0"), 16) if family == 4 else 0,
        device=found.get("dev", ""),
        gateway=str(ip_address(found["via"])) if "via" in found else "",
    )


def policy_of(words: Sequence[str]) -> Policy:
    """A rule, from the words that ip-rule(8) adds it by: a preference is among them."""
    family = 6 if words[0] == "inet6" else 4
    found = dict(pairwise(words))
    return Policy(
        family=family,
        preference=int(found["preference"]),
        source=_network(found.get("from", "all"), family),
        destination=_network(found.get("to", "all"), family),
        incoming=found.get("iif", ""),
        outgoing=found.get("oif", ""),
        table=_table(found.get("table", "0")),
    )


def _is_network(word: str) -> bool:
    try:
        ip_network(word, strict=False)
    except ValueError:
        return word in _ANY
    return True


def _network(word: str, family: int) -> Network:
    return _EVERYWHERE[family] if word in _ANY else ip_network(word, strict=False)


def _table(word: str) -> int:
    return _TABLES[word] if word in _TABLES else int(word)


# -- from the kernel ----------------------------------------------------------------


class RouteLosses:
    """Hears of routes and rules that go. ``fileno`` is readable when some did; ``watch`` begins it."""

    def __init__(self) -> None:
        self._socket = route_socket()
        self._socket.setblocking(False)
        self._socket.bind((0, 0))  # a socket without a port is passed over by notices that none is to miss
        # A router's tables change all the time: what comes is of no interest, and is not handed over.
        code = [
            (LDH_ABS, 0, 0, _TYPE_AT),
            (JEQ, 2, 0, socket.htons(RTM_DELROUTE)),
            (JEQ, 1, 0, socket.htons(RTM_DELRULE)),
            (RET, 0, 0, 0),
            (RET, 0, 0, ALL),
        ]
        attach(self._socket, code)
        self._watching = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def watch(self, on: bool) -> None:
        """Whether anybody wants to hear of it: where nobody does, the kernel tells nothing."""
        if on != self._watching:
            for group in _GROUPS:
                option = _ADD_MEMBERSHIP if on else _DROP_MEMBERSHIP
                self._socket.setsockopt(_SOL_NETLINK, option, group)
        self._watching = on

    def read(self, links: dict[int, str], ours: Collection[int]) -> Iterator[Lost]:
        """What went, but for what processes of these numbers took away; ``links`` are names by number."""
        while True:
            try:
                data = self._socket.recv(_SPACE)
            except BlockingIOError:
                return
            except OSError as error:
                # More went at once than the socket holds.
                log.warning("routes and rules that went may have been missed: %s", error)
                continue
            for kind, port, body in notices(data):
                if port in ours:
                    continue
                if kind == RTM_DELROUTE and len(body) >= _ROUTE.size:
                    yield _way(body, links)
                elif kind == RTM_DELRULE and len(body) >= _RULE.size:
                    yield _policy(body)


def _way(body: bytes, links: dict[int, str]) -> Way:
    family, length, _, tos, table, *_ = _ROUTE.unpack_from(body)
    found = attributes(body[_ROUTE.size :])
    gateway = found.get(_RTA_GATEWAY)
    return Way(
        prefix=_of(found.get(_RTA_DST), length, 4 if family == socket.AF_INET else 6),
        table=_number(found.get(_RTA_TABLE)) or table,
        metric=_number(found.get(_RTA_PRIORITY)),
        tos=tos,
        device=links.get(_number(found.get(_RTA_OIF)), ""),
        gateway=str(ip_address(gateway)) if gateway else "",
    )


def _policy(body: bytes) -> Policy:
    family, to_length, from_length, _, table, _ = _RULE.unpack_from(body)
    version = 4 if family == socket.AF_INET else 6
    found = attributes(body[_RULE.size :])
    return Policy(
        family=version,
        preference=_number(found.get(_FRA_PRIORITY)),
        source=_of(found.get(_FRA_SRC), from_length, version),
        destination=_of(found.get(_FRA_DST), to_length, version),
        incoming=_name(found.get(_FRA_IIFNAME)),
        outgoing=_name(found.get(_FRA_OIFNAME)),
        table=_number(found.get(_FRA_TABLE)) or table,
    )


def _of(data: bytes | None, length: int, version: int) -> Network:
    return ip_network((ip_address(data), length)) if data else _EVERYWHERE[version]


def _number(data: bytes | None) -> int:
    number: int = struct.unpack("=I", data[:4])[0] if data else 0
    return number


def _name(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="surrogateescape")
