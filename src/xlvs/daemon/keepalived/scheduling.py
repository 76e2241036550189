"""The scheduling that global_defs asks for a child: its rt_priority, priority and cpu_affinity."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from xlvs.keepalived.config import Config

log = logging.getLogger(__name__)


_PREFIXES = {"checkers": "checker"}  # of the words for a child, where that is not its name


def schedule(config: Config, child: str) -> None:
    """Apply it to this process, the child of that name; where it may not be, that is said."""
    prefix = _PREFIXES.get(child, child)
    others = config.globals.others
    try:
        if number := _number(others.get(f"{prefix}_rt_priority", ())):
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(number))
        if number := _number(others.get(f"{prefix}_priority", ())):
            os.setpriority(os.PRIO_PROCESS, 0, number)
        processors = [_number((word,)) for word in others.get(f"{prefix}_cpu_affinity", ())]
        if chosen := {number for number in processors if number is not None}:
            os.sched_setaffinity(0, chosen)
    except OSError as error:
        log.warning("Unable to set the scheduling of the %s process: %s", prefix, error.strerror)


def _number(words: tuple[str, ...]) -> int | None:
    with suppress(IndexError, ValueError):
        return int(words[0])
    return None
