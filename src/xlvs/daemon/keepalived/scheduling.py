"""What global_defs asks of a process: its name, priorities and processors, and no swapping."""

from __future__ import annotations

import logging
import os
import resource
import signal
from contextlib import suppress

from xlvs.dataplane import thread
from xlvs.keepalived.config import Config

log = logging.getLogger(__name__)

_PREFIXES = {"checkers": "checker"}  # of the words for a child, where that is not its name
# What process_names calls them; without it every one is "keepalived", for those who look for that.
_NAMES = {"": "keepalived", "vrrp": "keepalived_vrrp", "checkers": "keepalived_lvs", "bfd": "keepalived_bfd"}
_RT_LIMIT = 10_000  # microseconds of a real-time process between two waits, where nothing else is said
# keepalived's limits are those of a C program. Ours may take seconds to read a large configuration, and
# must not be killed for it: only what runs on and on is.
_RT_LEAST = 10_000_000


def name(config: Config, process: str) -> None:
    """Call this process what it is to be called; "" is the parent."""
    others = config.globals.others
    called = _NAMES[process] if "process_names" in others else _NAMES[""]
    for word in ("process_name", f"{_prefix(process)}_process_name"):
        called = next(iter(others.get(word, ())), called)
    thread.set_name(called)


def schedule(config: Config, child: str) -> None:
    """Apply the rest to this process, the child of that name; where it may not be, that is said."""
    prefix = _prefix(child)
    others = config.globals.others
    try:
        if number := _number(others.get(f"{prefix}_rt_priority", ())):
            _limit(_number(others.get(f"{prefix}_rlimit_rttime", ())) or _RT_LIMIT)
            highest = os.sched_get_priority_max(os.SCHED_RR)
            parameters = os.sched_param(max(1, min(number, highest)))
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, parameters)
        if number := _number(others.get(f"{prefix}_priority", ())):
            os.setpriority(os.PRIO_PROCESS, 0, number)
        processors = [_number((word,)) for word in others.get(f"{prefix}_cpu_affinity", ())]
        if chosen := {number for number in processors if number is not None}:
            os.sched_setaffinity(0, chosen)
        if f"{prefix}_no_swap" in others:
            thread.lock_memory()
    except OSError as error:
        log.warning("Unable to set the scheduling of the %s process: %s", prefix, error.strerror)


def _prefix(process: str) -> str:
    return _PREFIXES.get(process, process)


def _limit(microseconds: int) -> None:
    """A word at half of it, as keepalived has it; the kernel kills at the whole, or at ten seconds."""
    half = microseconds // 2
    signal.signal(signal.SIGXCPU, lambda *_: log.debug("CPU time limit exceeded: no wait for %d us", half))
    resource.setrlimit(resource.RLIMIT_RTTIME, (half, max(microseconds, _RT_LEAST)))


def _number(words: tuple[str, ...]) -> int | None:
    with suppress(IndexError, ValueError):
        return int(words[0])
    return None
