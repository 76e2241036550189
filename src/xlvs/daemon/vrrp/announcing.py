"""Announcements of addresses in keepalived's order: each address once, then all again, spaced out."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from xlvs.network.announce import Announcer
from xlvs.network.links import Links

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """One address on one interface; ``instance`` is whose it is, ``gap`` the seconds before the next.

    Those of one ``lane`` go one after the other: an interface, or a garp_group of several.
    """

    instance: str
    device: str
    address: IPv4Address | IPv6Address
    gap: float
    lane: str


class Announcing:
    """Sends announcements; without gaps at once, else one after the other, per lane."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._announcer = Announcer()
        self._waiting: dict[str, deque[Announcement]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def close(self) -> None:
        """Send no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._announcer.close()

    def announce(self, rounds: Iterable[Announcement], repeat: int) -> None:
        """Announce every address ``repeat`` times."""
        places = list(rounds)
        for number, one in enumerate(_repeated(places, repeat)):
            if number < len(places):
                _say(one)
            if not one.gap and one.lane not in self._waiting:
                self._send(one)
                continue
            self._waiting.setdefault(one.lane, deque()).append(one)
            if one.lane not in self._timers:
                self._next(one.lane)

    def forget(self, instance: str) -> None:
        """The instance's addresses have left: what is still waiting would be a lie."""
        for lane, waiting in self._waiting.items():
            self._waiting[lane] = deque(one for one in waiting if one.instance != instance)

    def _next(self, lane: str) -> None:
        waiting = self._waiting[lane]
        if not waiting:
            del self._waiting[lane]
            self._timers.pop(lane, None)
            return
        one = waiting.popleft()
        self._send(one)
        self._timers[lane] = asyncio.get_running_loop().call_later(one.gap, self._next, lane)

    def _send(self, one: Announcement) -> None:
        link = self._links.get(one.device)
        if link is None or not link.mac:
            return
        if isinstance(one.address, IPv4Address):
            log.debug("Sending gratuitous ARP on %s for %s", one.device, one.address)
        else:
            log.debug("Sending unsolicited Neighbour Advert on %s for %s", one.device, one.address)
        try:
            self._announcer.announce(link.name, link.mac, one.address)
        except OSError as error:
            if error.errno not in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO, errno.EAGAIN):
                log.warning("Announcing %s on %s: %s", one.address, one.device, error)


def _say(one: Announcement) -> None:
    what = "gratuitous ARPs" if one.address.version == 4 else "Unsolicited Neighbour Adverts"
    log.debug("(%s) Sending/queueing %s on %s for %s", one.instance, what, one.device, one.address)


def _repeated(rounds: list[Announcement], repeat: int) -> Iterator[Announcement]:
    for _ in range(repeat):
        yield from rounds
