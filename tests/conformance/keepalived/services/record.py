"""Ask the real keepalived about every case, and keep its answers (some minutes):
``python -m tests.conformance.keepalived.services.record``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.keepalived.services import compare, corpus, recording
from tests.conformance.keepalived.services.dump import Real, standing

AT_ONCE = 6


def ask(real: Real, place: str, statement: str) -> recording.Answer:
    """The real program's answer to one case."""
    text = corpus.text(place, statement)
    status = real.status(text)
    values = real.values(text) if status in (0, 5, 6) else None
    return recording.Answer(status, None if values is None else compare.real(values))


def _some(cases: Sequence[tuple[str, str]]) -> list[recording.Answer]:
    with standing() as real:
        return [ask(real, *case) for case in cases]


def main() -> None:
    cases = list(corpus.cases())
    parts = [cases[at : at + 20] for at in range(0, len(cases), 20)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [answer for part in pool.map(_some, parts) for answer in part]
    recording.save(dict(zip(cases, answers, strict=True)))


if __name__ == "__main__":
    main()
