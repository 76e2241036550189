"""Quorum: whether enough of a virtual server's real servers are up."""

from __future__ import annotations


class Quorum:
    """Gained at ``quorum`` + ``hysteresis`` of live weight, lost below ``quorum`` - ``hysteresis``.

    It begins as lost, as keepalived's does: the first :meth:`heard` of a virtual server that starts
    with enough real servers gains it (and its quorum_up runs). No live weight at all is no quorum,
    whatever the numbers.
    """

    def __init__(self, quorum: int, hysteresis: int) -> None:
        self.quorum = quorum
        self.hysteresis = hysteresis
        self.up = False

    @property
    def threshold(self) -> int:
        """The weight below which it is lost, or from which on it is gained: what messages show."""
        return self.quorum + (-self.hysteresis if self.up else self.hysteresis)

    def heard(self, weight: int) -> bool:
        """The weight that is alive now. True where quorum was gained or lost by that."""
        up = weight >= self.threshold and not (self.up and weight == 0)
        changed, self.up = up != self.up, up
        return changed

    def reconfigured(self, quorum: int, hysteresis: int) -> None:
        """Other numbers after a reload: whether they change anything is for :meth:`heard` to say."""
        self.quorum, self.hysteresis = quorum, hysteresis
