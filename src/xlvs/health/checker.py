"""When a check is asked, and what its answers make of its server: keepalived's rules, without a clock.

A failure of a server that was up is asked again ``retries`` times before it counts; the very first
answer counts at once. One that is down is asked once each interval, and comes back with the first
success. Checks in steps (the URLs of HTTP_GET) ask one step each interval, as keepalived does: the
server is up when a whole round has passed, and after a failure the failed step, even the only one,
must pass before that round begins.

Times to ask at lie on a grid of the check's own, one interval wide: however long attempts and
retries take, checks that began evenly spread stay so.
"""

from __future__ import annotations

from xlvs.health.answers import Answer
from xlvs.health.checks import Check
from xlvs.health.verdict import Verdict

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the interval evenly at any number


def fraction(number: int, start: float = 0.0) -> float:
    """The place in its interval, in [0, 1), of the check with this number: evenly spread for any many."""
    return (start + number * _GOLDEN) % 1.0


class Checker:
    """One check. ``due`` is when to ask next; ``answered`` takes what came of it.

    ``place`` is the fraction of the interval (and of the warmup) that it begins at; ``steps`` is 0
    for a check that has none.
    """

    __slots__ = (
        "_grid",
        "attempts",
        "check",
        "due",
        "failed_step",
        "failures",
        "fast",
        "ran",
        "step",
        "steps",
        "text",
        "tries",
        "verdict",
    )

    def __init__(self, check: Check, now: float, place: float, *, steps: int = 0, fast: bool = False) -> None:
        self.check = check
        self.verdict = Verdict(not check.alpha)
        self.steps, self.step, self.failed_step = steps, 0, False
        self.fast = fast  # fast_recovery: the steps of a server that comes back without a pause
        self.ran = False  # it has said something
        self.tries = self.attempts = self.failures = 0
        self.text = ""
        self.begin(now, place)

    def begin(self, now: float, place: float) -> None:
        """Anew, with its verdict as it is: the first time comes within the warmup."""
        self.tries = self.step = 0
        self.failed_step = False
        self._grid = now + self.check.interval * place
        self.due = now + self.check.warmup * place

    def inherit(self, before: Checker, *, alike: bool) -> None:
        """Take over what is known of the server from the check in whose place this one comes."""
        weighting = before.verdict.weighting if alike else self.verdict.weighting
        self.verdict = Verdict(before.verdict.up, weighting, before.verdict.text)
        self.ran = before.ran
        self.attempts, self.failures, self.text = before.attempts, before.failures, before.text

    def answered(self, answer: Answer, now: float) -> bool:
        """What an attempt came to. True where the verdict is new (or the first)."""
        self.attempts += answer.asked
        if not answer.asked:
            self.text = answer.text
            self.due = self._next(now)
            return False
        return self._passed(answer, now) if answer.ok else self._failed(answer, now)

    def _passed(self, answer: Answer, now: float) -> bool:
        self.text = answer.text
        self.tries = 0
        if self.failed_step and self.steps:
            # The step that failed is well again: now all of them, from the first.
            self.failed_step, self.step, whole = False, 0, False
        else:
            self.failed_step = False
            self.step = (self.step + 1) % max(self.steps, 1)
            whole = self.step == 0
        settled = self._settle(Verdict(True, answer.weighting, answer.text)) if whole else False
        self.due = now if self.fast and not whole and not (self.ran and self.verdict.up) else self._next(now)
        return settled

    def _failed(self, answer: Answer, now: float) -> bool:
        self.text = answer.text
        self.failures += 1
        if self.verdict.up and self.ran and self.tries < self.check.retries:
            self.tries += 1
            self.due = now + self.check.retry_delay
            return False
        settled = self._settle(Verdict(False, self.verdict.weighting, answer.text))
        self.tries, self.failed_step = 0, True
        self.due = self._next(now)
        return settled

    def told(self, answer: Answer) -> bool:
        """Something that is not asked (a file, a BFD session) says this: it counts at once."""
        self.attempts += 1
        self.failures += not answer.ok
        self.text = answer.text
        weighting = answer.weighting if answer.ok else self.verdict.weighting
        return self._settle(Verdict(answer.ok, weighting, answer.text))

    def _settle(self, verdict: Verdict) -> bool:
        """Take a verdict over; text alone is no news."""
        before, first = self.verdict, not self.ran
        self.verdict, self.ran = verdict, True
        return first or (before.up, before.weighting) != (verdict.up, verdict.weighting)

    def _next(self, now: float) -> float:
        """The next place on the grid that leaves at least half an interval."""
        interval = self.check.interval
        earliest = now + interval / 2
        rounds = max(0.0, -((self._grid - earliest) // interval))
        return self._grid + rounds * interval
