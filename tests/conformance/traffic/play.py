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

from tests.conformance.traffic.engines import ENGINES, Director
from tests.conformance.traffic.scenarios import scenarios
from tests.conformance.traffic.stage import ESTIMATOR, Stage
from tests.conformance.traffic.world import World

STATISTICS = "-Ln --stats --exact"

Record = dict[str, list[str]]


def play(director: Director, names: Iterable[str]) -> Record:
    """What came of each scenario, line by line."""
    chosen = [scenarios()[name] for name in names]
    world = World(scenario.vip for scenario in chosen)
    stages = [Stage(scenario, world, director) for scenario in chosen]
    director.start()
    try:
        for stage in stages:
            _run(stage)
        time.sleep(ESTIMATOR)
        statistics = director.ipvsadm(STATISTICS.split())
        for stage in stages:
            stage.note(STATISTICS, statistics)
        return {stage.scenario.name: stage.lines for stage in stages}
    finally:
        director.stop()


def _run(stage: Stage) -> None:
    """A director that stops forwarding spoils this scenario, and lets the others tell more of it."""
    try:
        stage.run()
    except TimeoutError as silence:
        stage.lines.append(f"! {silence}")


def main() -> None:
    engine, output, *names = sys.argv[1:]
    record = play(ENGINES[engine](), names or scenarios())
    Path(output).write_text(json.dumps(record, indent=0))


if __name__ == "__main__":
    main()
