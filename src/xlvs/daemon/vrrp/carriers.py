"""Which interfaces count as up: by what the kernel tells or, where that is asked for, by asking them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from xlvs.daemon.vrrp.link_delays import LinkDelays
from xlvs.keepalived.config import Config
from xlvs.network.linkbeat import Linkbeat
from xlvs.network.links import Link

_PERIOD = 1.0  # seconds between two questions, as in keepalived

log = logging.getLogger(__name__)


class _Links(Protocol):
    def get(self, name: str) -> Link | None: ...


def polled(config: Config, needed: Collection[str], made: Collection[str]) -> dict[str, str]:
    """The interfaces to ask, and by what: of those that somebody needs, but never the ones we ``made``.

    linkbeat_use_polling is of instances' own interfaces, beside them or in one (seen with 2.2.7).
    """
    everybody = "linkbeat_use_polling" in config.globals.others
    own = (one.interface for one in config.instances if everybody or one.linkbeat_use_polling)
    wanted = dict.fromkeys(own, "") | dict(config.linkbeat)
    return {name: kind for name, kind in wanted.items() if name in needed and name not in made}


class Carriers:
    """Tells which interfaces are up, and calls ``changed`` where one that is asked has another answer."""

    def __init__(self, links: _Links, changed: Callable[[], None]) -> None:
        self._links, self._changed = links, changed
        self._delays = LinkDelays()
        self._told: dict[str, bool] = {}  # interfaces that somebody needs, as the log was told last
        self._linkbeat = Linkbeat()
        self._polled: Mapping[str, str] = {}
        self._beats: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    def load(self, config: Config, needed: Collection[str], made: Collection[str]) -> None:
        """Other interfaces from now on: those ``needed``, of which those ``made`` are our own."""
        self._delays.load(config.link_delays)
        self._polled = polled(config, needed, made)
        self._beats = {
            name: self._beats.get(name, self._linkbeat.beats(name, kind))
            for name, kind in self._polled.items()
        }
        self._told = {name: self._told.get(name, self._is_up(name)) for name in needed}
        if self._polled and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._linkbeat.close()

    def up(self, name: str, now: float) -> bool:
        """Whether the interface counts as up (interface_up_down_delays)."""
        return self._delays.up(name, self._is_up(name), now)

    def deadline(self) -> float | None:
        """When what counts becomes another thing with time."""
        return self._delays.deadline()

    def tell(self, changed: Iterable[str]) -> None:
        """The log's lines about these interfaces, if somebody needs them."""
        for name in sorted(self._told.keys() & set(changed)):
            up = self._is_up(name)
            if up != self._told[name]:
                self._told[name] = up
                teller = "Linkbeat" if name in self._polled else "Netlink"
                log.info("%s reports %s %s", teller, name, "up" if up else "down")

    def _is_up(self, name: str) -> bool:
        link = self._links.get(name)
        if link is None or name not in self._polled:
            return link is not None and link.up
        # That somebody switched it off is no matter of the carrier, and known at once.
        return link.enabled and self._beats[name]

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            # A driver may take its time: nobody waits for it.
            beats = await asyncio.to_thread(self._ask, dict(self._polled))
            other = {name for name, beat in beats.items() if self._beats.get(name, beat) != beat}
            self._beats |= {name: beats[name] for name in other}
            if other:
                self.tell(other)
                self._changed()

    def _ask(self, names: Mapping[str, str]) -> dict[str, bool]:
        return {name: self._linkbeat.beats(name, kind) for name, kind in names.items()}
