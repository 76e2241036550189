"""Packets per second through a director, sent as fast as they are taken."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench.directors import Director
from bench.effort import Effort
from bench.road import ANSWERS, FRESH_TCP, KNOWN, Passage, Road, Traffic
from xlvs.errors import XlvsError

_WARM_UP = 20_000
# More than this lost is no rate of forwarding.
_MOST_LOST = 0.01


@dataclass(frozen=True)
class Rate:
    """A director's rates in packets a second; every packet of ``fresh`` begins a TCP flow."""

    name: str
    known: float
    fresh: float | None


def measure(name: str, director: Director, road: Road, traffic: Traffic, effort: Effort) -> Rate:
    """Set the director up, measure it, take it off."""
    with director(road, traffic):
        traffic.send(KNOWN, _WARM_UP)
        traffic.send(ANSWERS, 64, end="server")  # the flows are answered: established
        pace = traffic.send(KNOWN, _WARM_UP).rate
        packets = max(_WARM_UP, int(pace * effort.seconds))
        known = [_sound(name, traffic.send(KNOWN, packets)) for _ in range(effort.rounds)]
        fresh = [
            _sound(name, traffic.send(FRESH_TCP, effort.fresh, first=number * effort.fresh))
            for number in range(effort.fresh_rounds)
        ]
    time.sleep(effort.settle)
    return Rate(name, statistics.median(known), statistics.median(fresh) if fresh else None)


def _sound(name: str, passage: Passage) -> float:
    if passage.lost > _MOST_LOST:
        raise XlvsError(f"{name}: of {passage.packets} packets only {passage.arrived} arrived")
    return passage.rate
