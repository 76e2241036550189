"""Packets too long for the next hop that may be fragmented: cut here, forwarded by the data plane."""

from __future__ import annotations

from xlvs.daemon import frames
from xlvs.dataplane.events import Event
from xlvs.dataplane.inject import Injector


class Splitter:
    """Answers EVENT_SPLIT."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector

    @property
    def pause(self) -> float:
        """See Handler: it waits for nothing."""
        return float("inf")

    def handle(self, event: Event, now: float) -> None:
        """See Handler."""
        del now
        for part in frames.in_parts(event.frame, event.value):
            self._injector.inject(part, event.ifindex)

    def step(self, now: float) -> None:
        """See Handler."""
