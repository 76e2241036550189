"""The sockets that instances share: one for each interface, family, protocol and group or source."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from xlvs.network.vrrp_socket import Arrival, VrrpSocket
from xlvs.vrrp.packet import (
    PROTOCOL,
    PROTOCOL_AH,
    TTL,
    Address,
    Advert,
    Fault,
    PacketError,
    Received,
    datagram,
    message,
    parse4,
    parse6,
)

_RAW_IP_HEADER = 20
_EVERYBODY = range(1, 256)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """What tells pools apart. ``group`` None: unicast to ``source`` (None: to any address of ours)."""

    interface: str
    ifindex: int
    family: int  # 4 or 6
    authenticated: bool
    group: Address | None
    source: Address | None


@dataclass(frozen=True, slots=True)
class Membership:
    """An instance's pool and what it sends with; ``ttl`` of None is multicast's 255."""

    key: Key
    router_id: int
    destinations: tuple[Address, ...]
    ttl: int = TTL
    receive_buffer: int = 0


class Pools:
    """Opens, shares and closes sockets. ``fileno`` is readable when packets have come."""

    def __init__(self, take: Callable[[str, Received], None], refuse: Callable[[str, Fault], None]) -> None:
        """``take`` gets an instance's name and its packet, ``refuse`` the fault of one that is none."""
        self._take, self._refuse = take, refuse
        self._epoll = select.epoll()
        self._sockets: dict[Key, VrrpSocket] = {}
        self._by_fileno: dict[int, Key] = {}
        self._members: dict[str, Membership] = {}
        self._routers: dict[tuple[Key, int], list[str]] = {}
        self._identification: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self._tell_unknown = False

    def fileno(self) -> int:
        """The descriptor to wait on, for all sockets."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close all."""
        for key in list(self._sockets):
            self._close(key)
        self._epoll.close()

    def set_members(self, members: Mapping[str, Membership], tell_unknown: bool = False) -> None:
        """Who sends and hears what from now on; sockets that stay in use are not touched.

        ``tell_unknown``: the log is told of every packet of nobody's (log_unknown_vrids).
        """
        self._members = dict(members)
        self._tell_unknown = tell_unknown
        self._routers = {}
        for name, member in members.items():
            self._routers.setdefault((member.key, member.router_id), []).append(name)
        wanted = {member.key: 0 for member in members.values()}
        for member in members.values():
            wanted[member.key] += member.receive_buffer
        for key in set(self._sockets) - set(wanted):
            self._close(key)
        for key, size in wanted.items():
            if key not in self._sockets:
                self._open(key, size)
            if key in self._sockets:
                own = {router for pool, router in self._routers if pool == key}
                self._sockets[key].hear(_EVERYBODY if tell_unknown else own)

    def _open(self, key: Key, receive_buffer: int) -> None:
        try:
            opened = VrrpSocket(
                family=socket.AF_INET6 if key.family == 6 else socket.AF_INET,
                protocol=PROTOCOL_AH if key.authenticated else PROTOCOL,
                interface=key.interface,
                ifindex=key.ifindex,
                group=key.group,
                source=key.source,
                receive_buffer=receive_buffer,
            )
        except OSError as error:
            log.error("Cannot open a VRRP socket on %s: %s", key.interface or key.source, error)
            return
        self._sockets[key] = opened
        self._by_fileno[opened.fileno()] = key
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    def _close(self, key: Key) -> None:
        closed = self._sockets.pop(key)
        self._by_fileno.pop(closed.fileno(), None)
        with suppress(OSError):
            self._epoll.unregister(closed.fileno())
        closed.close()

    def missing(self, name: str | None = None) -> bool:
        """Whether a socket that somebody (or this one) needs could not be opened."""
        members = self._members if name is None else {name} & self._members.keys()
        return any(self._members[one].key not in self._sockets for one in members)

    # -- packets ------------------------------------------------------------------------

    def read(self) -> None:
        """Hand over what has come."""
        for fileno, _ in self._epoll.poll(0):
            key = self._by_fileno.get(fileno)
            if key is None or key not in self._sockets:
                continue
            try:
                for arrival in self._sockets[key].receive():
                    self._dispatch(key, arrival)
            except OSError as error:
                # The interface went down or away; who watches links knows it, too.
                log.debug("%s: %s", key.interface, error)

    def _dispatch(self, key: Key, arrival: Arrival) -> None:
        try:
            if key.family == 4:
                packet = parse4(arrival.data)
            else:
                destination = arrival.destination or key.group or key.source
                assert destination is not None
                packet = parse6(arrival.data, arrival.source, destination, arrival.hop_limit)  # type: ignore[arg-type]
        except PacketError as error:
            for name in self._named_in(key, arrival.data):
                self._refuse(name, error.fault)
                log.info("(%s) %s", name, error)
            return
        names = self._routers.get((key, packet.router_id), ())
        for name in names:
            self._take(name, packet)
        if not names and self._tell_unknown:
            text = "Unknown VRID(%d) received on interface(%s). ignoring..."
            log.info(text, packet.router_id, key.interface)

    def _named_in(self, key: Key, data: bytes) -> Iterable[str]:
        """Whose packet a bad one pretends to be."""
        at = 1 if key.family == 6 else _RAW_IP_HEADER + 1
        router_id = data[at] if len(data) > at else 0
        return self._routers.get((key, router_id), ())

    def send(self, name: str, advert: Advert, source: Address | None, old_checksum: bool = False) -> None:
        """Send an advert to all the instance's destinations; trouble is logged once, not each time."""
        member = self._members.get(name)
        opened = self._sockets.get(member.key) if member else None
        if member is None or opened is None or source is None:
            return
        trouble = ""
        for place, destination in enumerate(member.destinations):
            number = self._identification.get(name, 0) % 0xFFFF + 1
            self._identification[name] = number
            each = replace(advert, sequence=advert.sequence + place) if place else advert
            packet = (
                message(each, source, destination, old_checksum)
                if member.key.family == 6
                else datagram(each, source, destination, number, member.ttl, old_checksum)  # type: ignore[arg-type]
            )
            try:
                opened.send(packet, source, destination, member.ttl)
            except OSError as error:
                trouble = f"({name}) sending an advert to {destination}: {os.strerror(error.errno or 0)}"
        if trouble and trouble != self._troubles.get(name):
            log.warning("%s", trouble)
        self._troubles[name] = trouble
