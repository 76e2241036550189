"""MISC_CHECK: what a program's exit status says."""

from __future__ import annotations

from xlvs.health.answers import Answer
from xlvs.health.checks import MiscCheck
from xlvs.health.verdict import Weighting

TIMED_OUT = "timed out"


def answer(check: MiscCheck, status: int, before: Weighting, *, late: bool = False) -> Answer:
    """``status`` is negative where a signal (-status) ended it; ``before`` is how the weight stands.

    ``late``: it had its time, and was ended for that.

    0 is well, and leaves the weight where the check last put it. With ``dynamic``, 2 to 255 are well
    too, and put it at the status less two. All else is a failure.
    """
    if status == 0:
        return Answer(True, "exited with status 0", before)
    if check.dynamic and 2 <= status <= 255:
        return Answer(True, f"exited with status {status}", Weighting(instead=status - 2))
    if late and status < 0:
        return Answer(False, TIMED_OUT)
    if status < 0:
        return Answer(False, f"due to signal {-status}")
    return Answer(False, f"exited with status {status}")
