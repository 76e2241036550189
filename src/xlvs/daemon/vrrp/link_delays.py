"""Interfaces whose changes count only after a while (interface_up_down_delays)."""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.keepalived.config import LinkDelay


class LinkDelays:
    """Turns what an interface is into what it counts as. Pure: told the time, it tells when to look again."""

    def __init__(self) -> None:
        self._delays: dict[str, LinkDelay] = {}
        self._counts: dict[str, bool] = {}
        self._since: dict[str, float] = {}  # since when an interface is not what it counts as

    def load(self, delays: Iterable[LinkDelay]) -> None:
        """Other delays from now on."""
        self._delays = {one.interface: one for one in delays}

    def up(self, name: str, up: bool, now: float) -> bool:
        """What the interface counts as, which is ``up`` now."""
        counts = self._counts.setdefault(name, up)
        if counts == up:
            self._since.pop(name, None)
            return up
        since = self._since.setdefault(name, now)
        if now >= since + self._delay(name, up):
            self._counts[name] = up
            del self._since[name]
            return up
        return counts

    def deadline(self) -> float | None:
        """When to look again; None: nothing waits."""
        ends = (since + self._delay(name, not self._counts[name]) for name, since in self._since.items())
        return min(ends, default=None)

    def _delay(self, name: str, up: bool) -> float:
        delay = self._delays.get(name)
        if delay is None:
            return 0.0
        return delay.up if up else delay.down
