"""Where code runs: in which network namespace, on which CPU, under which settings of the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path

from xlvs.dataplane import thread
from xlvs.errors import XlvsError

_FIRST = -20  # of setpriority(2)


def inside(namespace: str) -> AbstractContextManager[None]:
    """This thread in a named network namespace."""
    return thread.in_network(f"/run/netns/{namespace}")


@contextmanager
def on_cpu(number: int) -> Iterator[None]:
    """This thread on one CPU, before all others that would like to run there.

    But for the CPU's softirq thread: were the generator to run while that has packets to
    forward, their queue would overflow.
    """
    before, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    softirqs = _softirq_thread(number)
    os.sched_setaffinity(0, {number})
    os.setpriority(os.PRIO_PROCESS, 0, _FIRST)
    os.sched_setscheduler(softirqs, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(softirqs, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setaffinity(0, before)


@cache
def _softirq_thread(cpu: int) -> int:
    """The process id of ksoftirqd."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # ended meanwhile
            if entry.name.isdigit() and (entry / "comm").read_text() == f"ksoftirqd/{cpu}\n":
                return int(entry.name)
    raise XlvsError("no ksoftirqd to be seen: the benchmark needs the machine's own process namespace")


@contextmanager
def settings(values: Mapping[str, int]) -> Iterator[None]:
    """Files under /proc/sys or /sys with other values, put back afterwards; those not there are left out."""
    before = {path: Path(path).read_text() for path in values if os.path.exists(path)}
    try:
        for path, old in before.items():
            if int(old) != values[path]:
                Path(path).write_text(f"{values[path]}\n")
        yield
    finally:
        for path, old in before.items():
            if int(old) != values[path]:
                Path(path).write_text(old)
