"""FILE_CHECK: what a number in a tracked file means for a real server."""

from __future__ import annotations

from xlvs.health.answers import Answer
from xlvs.health.checks import FileCheck
from xlvs.health.verdict import Weighting

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


def number(text: str) -> int:
    """The number a file begins with; anything else, an empty or a missing file, is 0."""
    words = text.split(maxsplit=1)
    try:
        value = int(words[0], 10) if words else 0
    except ValueError:
        value = 0
    return min(max(value, _LOWEST), _HIGHEST)


def answer(check: FileCheck, value: int) -> Answer:
    """Without a weight any number but 0 is a failure; with one their product says.

    The product is added to the server's weight (keepalived 2.2.7 does so with and without
    ``dynamic``). The lowest number of 32 bits is a failure.
    """
    if check.weight == 0:
        return Answer(value == 0, f"value {value}")
    product = value * check.weight
    if product <= _LOWEST:
        return Answer(False, f"value {value}")
    return Answer(True, f"value {value}", Weighting(plus=product))
