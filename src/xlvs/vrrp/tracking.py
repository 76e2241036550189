"""What tracked things do to an instance: a fault, or a step of its priority (keepalived.conf(5))."""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.vrrp.packet import OWNER
from xlvs.vrrp.settings import Track, TrackKind

_LIMIT = 253  # of a step; below it a file's number is a fault
_LOWEST, _HIGHEST = 1, 254  # of a priority that is moved: 0 and 255 have meanings of their own


def verdict(track: Track, value: int) -> tuple[bool, int]:
    """Whether it is a fault, and the step. ``value`` is a file's number, or whether the thing is up."""
    sign = -1 if track.reverse else 1
    if track.kind is TrackKind.FILE:
        if track.weight == 0:
            return bool(value) != track.reverse, 0
        product = value * track.weight * sign
        return product < -_LIMIT, max(-_LIMIT, min(_LIMIT, product))
    up = bool(value)
    if track.weight == 0:
        return up == track.reverse, 0
    # A weight above 0 counts while the thing is up, one below 0 while it is down.
    return False, track.weight * sign if up == (track.weight > 0) else 0


def effective(priority: int, steps: Iterable[int]) -> int:
    """The priority that is told: an owner's stays, others within 1 to 254."""
    if priority == OWNER:
        return OWNER
    return max(_LOWEST, min(_HIGHEST, priority + sum(steps)))
