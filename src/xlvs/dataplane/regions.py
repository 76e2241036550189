"""Stretches of a table of rows that services name by one word, first | count << 32."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from errno import ENOMEM

from xlvs.errors import IpvsError


class Regions:
    """Hands stretches out ever onwards (next fit), so that one given up is not soon written over.

    ``used`` are the words in use; ``following`` is where to look first.
    """

    def __init__(self, name: str, size: int, following: int, used: Iterable[int]) -> None:
        self.following = following
        self._name = name
        self._size = size
        firsts_and_counts = ((word & 0xFFFFFFFF, word >> 32) for word in used)
        self._used = sorted((first, first + count) for first, count in firsts_and_counts if count)

    def take(self, count: int) -> int:
        """The word of a free stretch of so many rows; ENOMEM where none is as long."""
        if not count:
            return 0
        start, wrapped = self.following, False
        while True:
            if start + count > self._size:
                if wrapped:
                    raise IpvsError(ENOMEM, f"no room for {count} more {self._name}")
                start, wrapped = 0, True
            after = bisect_right(self._used, (start, self._size))
            if after and self._used[after - 1][1] > start:
                start = self._used[after - 1][1]
            elif after < len(self._used) and self._used[after][0] < start + count:
                start = self._used[after][1]
            else:
                insort(self._used, (start, start + count))
                self.following = start + count
                return start | count << 32
