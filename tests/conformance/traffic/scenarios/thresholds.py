"""Servers that are full, and when they take connections again."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.traffic.scenarios.common import EVERYWHERE, ask, knock, service, talk
from tests.conformance.traffic.stage import Scenario, Stage

LISTED = ("-Ln", "-Ln --thresholds")


def fills_up(stage: Stage) -> None:
    stage.rules("-e -t {vip}:80 -r {rs1}:80 {method} -x 3 -y 2", "-e -t {vip}:80 -r {rs2}:80 {method} -x 2")
    knock(stage, 40000, 4)
    talk(stage, 40010, 3)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -x 4")
    knock(stage, 40020, 3)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method}")
    knock(stage, 40030, 3)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -x 5")
    knock(stage, 40040, 1)
    stage.rules("-d -t {vip}:80 -r {rs1}:80", "-a -t {vip}:80 -r {rs1}:80 {method} -x 6 -y 5")
    knock(stage, 40050, 3)


def empties(stage: Stage) -> None:
    """Hysteresis: under a lower threshold, and where there is none under three quarters of the upper."""
    stage.timeouts(0, 0, 4)
    stage.rules("-a -u {vip}:53 -r {rs1}:53 {method} -x 4 -y 2")
    stage.rules("-A -u {vip}:54 -s rr", "-a -u {vip}:54 -r {rs1}:54 {method} -x 4")
    for pause, count in ((0, 2), (2.5, 3), (3, 1), (2.5, 2)):
        if pause:
            stage.wait(pause)
        for vport in (53, 54):
            for _ in range(count):
                ask(stage, 40000 + len(stage.lines), vport=vport)


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for scheduler in ("rr", "wlc") if family == 4 else ("wrr", "sed"):
            name = f"{where} thresholds: {scheduler} fills up"
            rules = service("-t", 80, scheduler)
            yield Scenario(name, family, rules, fills_up, method=method, listed=LISTED)
    for scheduler in ("lc", "nq", "sh", "mh", "lblc", "lblcr", "dh", "fo", "ovf", "sh -b sh-fallback"):
        rules = service("-t", 80, scheduler, weights=(1, 2))
        name = f"dr4 thresholds: {scheduler} fills up"
        yield Scenario(name, 4, rules, fills_up, method="-g", listed=LISTED)
    for where, method, family in EVERYWHERE[:2]:
        name = f"{where} thresholds: hysteresis"
        yield Scenario(name, family, ["-A -u {vip}:53 -s rr"], empties, method=method, world="slow")
