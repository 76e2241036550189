"""A dialogue whose steps have an end: no check may keep all the others waiting.

Python's regular expressions know no limit as PCRE's do, and a page may be such that one takes for ever.
They do look for signals, though: an alarm ends them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from xlvs.health.answers import Answer, Dialogue

_LONGEST = 1.0  # seconds of work on one step


class Patient:
    """A dialogue that fails where one of its steps takes too long. Only the main thread can be told so."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def opened(self) -> bytes | Answer:
        return self._dialogue.opened()

    def received(self, data: bytes) -> bytes | Answer:
        return _limited(lambda: self._dialogue.received(data))

    def ended(self, *, reset: bool = False) -> Answer:
        answer = _limited(lambda: self._dialogue.ended(reset=reset))
        assert isinstance(answer, Answer)
        return answer


def _limited(step: Callable[[], bytes | Answer]) -> bytes | Answer:
    if threading.current_thread() is not threading.main_thread():
        return step()
    before = signal.signal(signal.SIGALRM, _late)
    try:
        signal.setitimer(signal.ITIMER_REAL, _LONGEST)
        return step()
    except TimeoutError:
        return Answer(False, "Regex match took too long")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _late(*_: object) -> None:
    raise TimeoutError
