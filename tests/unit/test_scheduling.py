"""A child runs as global_defs has it; what the kernel refuses is said, and the child goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
