"""Ask the real keepalived about every case, and keep its answers (some minutes):
``python -m tests.conformance.keepalived.vrrp.record``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.keepalived.real import namespace
from tests.conformance.keepalived.real import real as tested
from tests.conformance.keepalived.services import recording
from tests.conformance.keepalived.vrrp import compare, corpus
from tests.conformance.keepalived.vrrp.dump import Real, standing

PATH = Path(__file__).with_name("recording.xz")
AT_ONCE = 5


def ask(real: Real, place: str, statement: str) -> recording.Answer:
    """The real program's answer to one case; within :func:`namespace`."""
    text = corpus.text(place, statement)
    status = tested(text).status
    values = real.values(text) if status in (0, 5, 6) else None
    return recording.Answer(status, None if values is None else compare.real(values))


def main() -> None:
    cases = list(corpus.cases())
    with namespace(), standing() as real, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda case: ask(real, *case), cases))
    recording.save(dict(zip(cases, answers, strict=True)), PATH)
    print(f"{len(answers)} answers, {sum(answer.values is not None for answer in answers)} with values")


if __name__ == "__main__":
    main()
