"""What the helper asks of a module that answers one kind of the data plane's events."""

from __future__ import annotations

from typing import Protocol

from xlvs.dataplane.events import Event


class Handler(Protocol):
    """Answers events of one kind; whatever it raises is noted and ends nothing."""

    @property
    def pause(self) -> float:
        """Seconds until :meth:`step` is due; it may be called sooner."""

    def handle(self, event: Event, now: float) -> None:
        """Answer an event. ``now`` is in seconds, monotonic."""

    def step(self, now: float) -> None:
        """Do what time has made due; called after each round of events."""
