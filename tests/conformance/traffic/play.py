"""Play scenarios on one director, and write what came of them:

    python -m tests.conformance.traffic.play ipvs|xlvs OUTPUT.json [NAME...]

Everything happens in this one process and namespaces of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.conformance.traffic.engines import ENGINES, Director, listing
from tests.conformance.traffic.scenarios import scenarios
from tests.conformance.traffic.stage import ESTIMATOR, Stage
from tests.conformance.traffic.world import World

Record = dict[str, list[str]]


def play(director: Director, names: Iterable[str]) -> Record:
    """What came of each scenario, line by line."""
    stages = {name: scenarios()[name] for name in names}
    world = World(scenario.vip for scenario in stages.values())
    director.start()
    try:
        record = {name: _lines(Stage(scenario, world, director)) for name, scenario in stages.items()}
        time.sleep(ESTIMATOR)
        for name, lines in record.items():
            lines += listing(director, stages[name].vip, "-Ln", "--stats", "--exact")
        return record
    finally:
        director.stop()


def _lines(stage: Stage) -> list[str]:
    """A director that stops forwarding spoils this scenario, and lets the others tell more of it."""
    try:
        stage.run()
    except TimeoutError as silence:
        stage.lines.append(f"! {silence}")
    return stage.lines


def main() -> None:
    engine, output, *names = sys.argv[1:]
    record = play(ENGINES[engine](), names or scenarios())
    Path(output).write_text(json.dumps(record, indent=0))


if __name__ == "__main__":
    main()
