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
_LATE = 1_000_000  # microseconds that a process may be late, where min_auto_priority_delay is not said


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
            _real_time(config, prefix, number)
        if number := _number(others.get(f"{prefix}_priority", ())):
            os.setpriority(os.PRIO_PROCESS, 0, number)
        processors = [_number((word,)) for word in others.get(f"{prefix}_cpu_affinity", ())]
        if chosen := {number for number in processors if number is not None}:
            os.sched_setaffinity(0, chosen)
        if f"{prefix}_no_swap" in others:
            thread.lock_memory()
    except OSError as error:
        log.warning("Unable to set the scheduling of the %s process: %s", prefix, error.strerror)


class Hurry:
    """``max_auto_priority``: a process that runs late takes real-time scheduling, one step more each time.

    Nothing without that word. As keepalived does: first SCHED_RR of priority 1, then 2, and so on to
    the most that is allowed (no number: that there is), which it keeps.
    """

    def __init__(self, config: Config, child: str) -> None:
        others = config.globals.others
        self._config, self._prefix = config, _prefix(child)
        self._most = 0
        if (words := others.get("max_auto_priority")) is not None:
            number = _number(words)
            self._most = os.sched_get_priority_max(os.SCHED_RR) if number is None else number
        self._patience = (_number(others.get("min_auto_priority_delay", ())) or _LATE) / 1e6

    def late(self, seconds: float) -> None:
        """Something was done that much after it was due."""
        if self._most <= 0 or seconds < self._patience:
            return
        try:
            number = os.sched_getparam(0).sched_priority + 1
            if number <= self._most:
                _real_time(self._config, self._prefix, number)
                log.info("Set realtime priority %d", number)
        except OSError as error:
            self._most = 0
            log.warning("Unable to set the scheduling of the %s process: %s", self._prefix, error.strerror)


def _real_time(config: Config, prefix: str, number: int) -> None:
    _limit(_number(config.globals.others.get(f"{prefix}_rlimit_rttime", ())) or _RT_LIMIT)
    parameters = os.sched_param(max(1, min(number, os.sched_get_priority_max(os.SCHED_RR))))
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, parameters)


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
