"""Play scenarios on one director, and write what came of them:

    python -m tests.conformance.traffic.play ipvs|xlvs OUTPUT.json [NAME...]

Scenarios are played in troupes, each in a process and namespaces of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from itertools import groupby
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from tests.conformance.traffic.engines import ENGINES
from tests.conformance.traffic.recorded import Record, read_topics_of
from tests.conformance.traffic.scenarios import scenarios
from tests.conformance.traffic.stage import ESTIMATOR, Scenario, Stage
from tests.conformance.traffic.world import World

STATISTICS = "-Ln --stats --exact"
TROUPE = 64
# Services that stay: with its last one of a family the kernel's IPVS lets go of its connections' packets.
RESIDENT = "-A -t 10.9.0.1:9 -s rr\n-A -t [fd09::1]:9 -s rr\n"


def play(engine: str, names: Iterable[str]) -> Record:
    """What came of each scenario, line by line."""
    chosen = [scenarios()[name] for name in names]
    work = [(engine, [scenario.name for scenario in troupe]) for troupe in _troupes(chosen)]
    context = multiprocessing.get_context("fork")
    cpus = sorted(os.sched_getaffinity(0))
    cpus = cpus * ENGINES[engine].at_once or cpus[:1]
    free = context.SimpleQueue()
    for cpu in cpus:
        free.put(cpu)
    # Forked, one process a troupe: a namespace, and what was done in it, goes with its process.
    with context.Pool(len(cpus), _take_cpu, (free,), maxtasksperchild=1) as pool:
        records = pool.map(_play_troupe, work, chunksize=1)
    record = {name: lines for part in records for name, lines in part.items()}
    return {scenario.name: record[scenario.name] for scenario in chosen}


def _troupes(chosen: Sequence[Scenario]) -> list[list[Scenario]]:
    """Scenarios of one world together, evenly over the CPUs."""
    troupes = []
    for _, group in groupby(sorted(chosen, key=lambda scenario: scenario.world), lambda s: s.world):
        members = list(group)
        parts = max(-(-len(members) // TROUPE), min(os.cpu_count() or 1, len(members) // 4))
        troupes += [members[start :: max(1, parts)] for start in range(max(1, parts))]
    return sorted(troupes, key=len, reverse=True)


_free_cpus: SimpleQueue[int]


def _take_cpu(free: SimpleQueue[int]) -> None:
    global _free_cpus  # what a pool's initializer is for
    _free_cpus = free


def _play_troupe(work: tuple[str, list[str]]) -> Record:
    cpu = _free_cpus.get()
    try:
        return _play(*work, cpu)
    finally:
        _free_cpus.put(cpu)


def _play(engine: str, names: list[str], cpu: int) -> Record:
    director = ENGINES[engine]()
    world = World((scenarios()[name].vip for name in names), cpu)
    expected = read_topics_of(names) if director.patience else {}
    stages = [Stage(scenarios()[name], world, director, expected.get(name, ())) for name in names]
    director.start()
    director.ipvsadm(["-R"], RESIDENT)
    try:
        for stage in stages:
            begun = time.monotonic()
            _run(stage)
            print(f"{stage.scenario.name} ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
        time.sleep(ESTIMATOR)
        statistics = director.ipvsadm(STATISTICS.split())
        for stage in stages:
            stage.note(STATISTICS, statistics)
        return {stage.scenario.name: stage.lines for stage in stages}
    finally:
        director.stop()


def _run(stage: Stage) -> None:
    """What goes wrong spoils this scenario, and lets the others tell more of it."""
    try:
        stage.run()
    except Exception as trouble:  # whatever it is, it goes into the record
        where = traceback.extract_tb(trouble.__traceback__)[-1]
        stage.lines.append(f"! {type(trouble).__name__}: {trouble} ({Path(where.filename).name})")


def main() -> None:
    engine, output, *names = sys.argv[1:]
    record = play(engine, names or scenarios())
    Path(output).write_text(json.dumps(record, indent=0))


if __name__ == "__main__":
    main()
