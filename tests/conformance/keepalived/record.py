"""Ask the real keepalived about every case and keep its answers: ``python -m ...keepalived.record``.

With ``--differences`` only print where we answer otherwise, messages too.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.keepalived import cases
from tests.conformance.keepalived.real import Answer, namespace, ours, real

RECORDING = Path(__file__).parent / "recording.json"


def main() -> None:
    every = [*cases.keywords(), *((name, text) for name, text in cases.TEXTS.items())]
    with namespace(), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda case: real(case[1]), every))
    if "--differences" in sys.argv:
        for (name, text), answer in zip(every, answers, strict=True):
            _difference(name, answer, ours(text))
        return
    kept = {
        name: answer.status for (name, _), answer in zip(every, answers, strict=True) if answer.status >= 0
    }
    RECORDING.write_text(json.dumps(kept, indent=0) + "\n")
    print(f"{len(kept)} answers")


def _difference(name: str, real: Answer, ours: Answer) -> None:
    theirs, mine = {text for _, text in real.messages}, {text for _, text in ours.messages}
    if real.status != ours.status or theirs != mine:
        mark = "STATUS" if real.status != ours.status else "words"
        print(f"{mark} {name!r}: {real.status} {sorted(theirs - mine)},")
        print(f"    ours {ours.status} {sorted(mine - theirs)}")


if __name__ == "__main__":
    main()
