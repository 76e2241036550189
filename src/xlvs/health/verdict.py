"""What checks say of a real server, and what that makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MOST_WEIGHT = 65535  # IPVS_WEIGHT_MAX of keepalived; the kernel takes as much


@dataclass(frozen=True, slots=True)
class Weighting:
    """How a check moves its server's weight.

    ``instead`` of the configured one, ``plus`` it, and a ``share`` of what comes out (the agent's
    per cent). Several checks of a server add up their differences and multiply their shares.
    """

    instead: int | None = None
    plus: int = 0
    share: float = 1.0


NEUTRAL = Weighting()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says from now on, until its next verdict; ``text`` says why, for the log."""

    up: bool
    weighting: Weighting = NEUTRAL
    text: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What all checks of a real server come to: ``weight`` is as configured where none moves it."""

    up: bool
    weight: int


def health(configured: int, verdicts: Iterable[Verdict]) -> Health:
    """Up while no check says down (so is a server without checks); its weight is 0 to 65535.

    A share above nothing of a weight above nothing is at least 1: a busy server is not drained.
    """
    up, weight, share = True, configured, 1.0
    for verdict in verdicts:
        up = up and verdict.up
        moves = verdict.weighting
        weight += moves.plus
        if moves.instead is not None:
            weight += moves.instead - configured
        share *= moves.share
    weight = min(max(weight, 0), MOST_WEIGHT)
    if share != 1.0 and weight:
        weight = min(max(round(weight * share), 1 if share > 0 else 0), MOST_WEIGHT)
    return Health(up, weight)
