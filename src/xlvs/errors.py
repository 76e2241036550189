"""Errors that a user sees: one clear sentence each, no traceback."""

from __future__ import annotations

import os


class XlvsError(Exception):
    """Something the user can understand and act on; ``str()`` is the whole message."""


class IpvsError(XlvsError):
    """A change that IPVS refuses, with the errno that the kernel's IPVS would give.

    ``ipvsadm`` turns the pair (command, errno) into the real program's words.
    """

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or os.strerror(errno))
        self.errno = errno


class NotCarried(XlvsError):
    """A feature of IPVS that this data plane does not carry yet: refused, never ignored."""
