"""ha_suspend: whose checks rest, because none of its addresses is on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from xlvs.keepalived.config import VirtualServer
from xlvs.network.links import Links
from xlvs.network.rtnetlink import Rtnetlink


class Suspension:
    """Calls back with the virtual servers that are to rest, whenever these are others."""

    def __init__(self, change: Callable[[Sequence[VirtualServer]], None]) -> None:
        self._change = change
        self._servers: list[VirtualServer] = []
        self._netlink: Rtnetlink | None = None
        self._links: Links | None = None
        self._asleep: list[VirtualServer] | None = None

    def watch(self, servers: Iterable[VirtualServer]) -> None:
        """From now on these; those without ha_suspend never rest."""
        self._servers = [server for server in servers if server.ha_suspend]
        if self._servers and self._links is None:
            self._netlink = Rtnetlink()
            self._links = Links(self._netlink)
            asyncio.get_running_loop().add_reader(self._links.fileno(), self._look)
        if self._links is not None:
            self._asleep = None
            self._look()

    def close(self) -> None:
        """Look no more."""
        if self._links is not None:
            asyncio.get_running_loop().remove_reader(self._links.fileno())
            self._links.close()
        if self._netlink is not None:
            self._netlink.close()

    def _look(self) -> None:
        assert self._links is not None
        self._links.read()
        here = {address for link in self._links for address in link.addresses}
        asleep = [server for server in self._servers if not _has_one(server, here)]
        if asleep != self._asleep:
            self._asleep = asleep
            self._change(asleep)


def _has_one(server: VirtualServer, here: Collection[object]) -> bool:
    addresses = [vip.address for vip in server.vips if vip.address is not None]
    return not addresses or any(address in here for address in addresses)
