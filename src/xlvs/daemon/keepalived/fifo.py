"""A notify fifo: lines for a program of the operator's, who must never keep us waiting."""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress

log = logging.getLogger(__name__)


class NotifyFifo:
    """The fifo of a path, made where it is not there, and removed on :meth:`close` only if we made it.

    It is open for reading, too, so that a line waits for a reader to come; a line for which the
    pipe has no room is lost, and that is said.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._made = False
        self._file = -1
        self._trouble = 0
        try:
            try:
                os.mkfifo(path, 0o600)
                self._made = True
            except FileExistsError:
                if not stat.S_ISFIFO(os.stat(path).st_mode):
                    log.warning("Configured notify fifo %s is not a fifo", path)
                    return
            self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            log.warning("Unable to open notify fifo %s: %s", path, error.strerror)

    def tell(self, line: str) -> None:
        """Write a line, if there is room."""
        if self._file < 0:
            return
        try:
            os.write(self._file, f"{line}\n".encode("utf-8", "surrogateescape"))
            self._trouble = 0
        except OSError as error:
            if error.errno != self._trouble:  # said once, until a line gets through again
                why = "it is full, nobody reads it" if error.errno == errno.EAGAIN else error.strerror
                log.warning("notify fifo %s: %s; lost from '%s' on", self.path, why, line)
            self._trouble = error.errno or 0

    def close(self) -> None:
        """Write no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._made:
            with suppress(OSError):
                os.unlink(self.path)
