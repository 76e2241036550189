"""When each of many machines has something to do, and which is first."""

from __future__ import annotations

from heapq import heappop, heappush


class Deadlines:
    """Times by name. A time that moves later costs nothing: every advert moves a backup's.

    What is there already is looked at when it comes, and found to be too early.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._known: dict[str, float] = {}  # of each name the entry that counts: the earliest

    @property
    def first(self) -> float | None:
        """No name is due before this, in the unit of the times; None: none ever is."""
        return self._heap[0][0] if self._heap else None

    def expect(self, name: str, moment: float | None) -> None:
        """The name is due then; None: never, as it stands."""
        known = self._known.get(name)
        if moment is not None and (known is None or moment < known):
            self._known[name] = moment
            heappush(self._heap, (moment, name))

    def take(self, now: float) -> set[str]:
        """The names that may be due at ``now``; they are to be told ``expect`` again."""
        names = set()
        while self._heap and self._heap[0][0] <= now:
            moment, name = heappop(self._heap)
            if self._known.get(name) == moment:
                del self._known[name]
                names.add(name)
        return names
