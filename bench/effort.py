"""How long to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Rounds and their lengths; every figure is the median of its rounds."""

    rounds: int  # of a rate
    seconds: float  # of sending, each
    fresh_rounds: int  # of new flows, which fill the table
    fresh: int  # new flows in each
    cost_rounds: int  # of a cost
    sittings: int  # of a cost of which something is asked
    repeat: int  # packets in each
    slots: int  # of the connection table: room for all new flows
    settle: float  # seconds after a director was taken off: the kernel frees its tables behind our backs


FULL = Effort(
    rounds=5,
    seconds=0.6,
    fresh_rounds=5,
    fresh=200_000,
    cost_rounds=11,
    sittings=5,
    repeat=200_000,
    slots=1 << 22,
    settle=1.0,
)
# To see that all works, not how fast.
QUICK = Effort(
    rounds=1,
    seconds=0.05,
    fresh_rounds=1,
    fresh=5_000,
    cost_rounds=1,
    sittings=1,
    repeat=5_000,
    slots=1 << 14,
    settle=0.0,
)
# In the guest's software emulation a packet takes thirty times as long.
GUEST = Effort(
    rounds=7,
    seconds=1.0,
    fresh_rounds=3,
    fresh=10_000,
    cost_rounds=1,
    sittings=1,
    repeat=5_000,
    slots=1 << 17,
    settle=1.0,
)
