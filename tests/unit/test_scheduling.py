"""A child runs as global_defs has it; what the kernel refuses is said, and the child goes on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from xlvs.daemon.keepalived import scheduling
from xlvs.daemon.keepalived.scheduling import Hurry
from xlvs.keepalived.config import Config, Global

PROGRAM = """
import json, logging, os, sys
from xlvs.daemon.keepalived.scheduling import schedule
from xlvs.keepalived.config import Config, Global
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
others = {name: tuple(words) for name, words in json.loads(sys.argv[2]).items()}
schedule(Config(Global(others=others)), sys.argv[1])
print(json.dumps([os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]))
"""


def scheduled(child: str, words: dict[str, list[str]]) -> tuple[list[object], str]:
    command = [sys.executable, "-c", PROGRAM, child, json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(("child", "prefix"), [("vrrp", "vrrp"), ("checkers", "checker"), ("bfd", "bfd")])
def test_priority_and_processor_are_the_child_s_own(child: str, prefix: str) -> None:
    first = min(os.sched_getaffinity(0))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    words = {f"{prefix}_priority": ["19"], f"{prefix}_cpu_affinity": [str(first)], "other_priority": ["18"]}
    assert scheduled(child, words) == ([19, [first]], "")
    assert scheduled(child, {"other_priority": ["19"]})[0] == [nice, sorted(os.sched_getaffinity(0))]


def test_what_may_not_be_is_said() -> None:
    answer, said = scheduled("bfd", {"bfd_cpu_affinity": ["1023"]})
    assert answer[1] == sorted(os.sched_getaffinity(0))
    assert "Unable to set the scheduling of the bfd process" in said


def hurrying(monkeypatch: pytest.MonkeyPatch, **words: tuple[str, ...]) -> tuple[Hurry, list[int]]:
    """Of a process that has no real-time priority yet, and those it takes."""
    taken: list[int] = []
    monkeypatch.setattr(os, "sched_getparam", lambda _: os.sched_param(taken[-1] if taken else 0))
    monkeypatch.setattr(os, "sched_setscheduler", lambda *to: taken.append(to[2].sched_priority))
    monkeypatch.setattr(scheduling, "_limit", lambda _: None)
    return Hurry(Config(Global(others=words)), "vrrp"), taken


def test_who_is_late_hurries_a_step_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry, taken = hurrying(monkeypatch, max_auto_priority=("3",), min_auto_priority_delay=("5000",))
    hurry.late(0.0049)
    assert taken == []
    for _ in range(5):
        hurry.late(0.005)
    assert taken == [1, 2, 3]


def test_without_a_number_it_is_the_most_and_without_a_delay_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry, taken = hurrying(monkeypatch, max_auto_priority=())
    hurry.late(0.9)
    assert taken == []
    for _ in range(200):
        hurry.late(1.0)
    assert taken == [*range(1, os.sched_get_priority_max(os.SCHED_RR) + 1)]


@pytest.mark.parametrize("words", [{}, {"max_auto_priority": ("0",)}, {"max_auto_priority": ("-1",)}])
def test_nobody_hurries_who_was_not_told_to(
    words: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry, taken = hurrying(monkeypatch, **words)
    hurry.late(100.0)
    assert taken == []


def test_a_kernel_that_refuses_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hurry, _ = hurrying(monkeypatch, max_auto_priority=())

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    for _ in range(3):
        hurry.late(2.0)
    assert caplog.text.count("Unable to set the scheduling of the vrrp process") == 1
