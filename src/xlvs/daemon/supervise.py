"""Starting, finding and stopping the helper of a network namespace.

A lock on its pid file says that it runs; the lock goes with the process.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xlvs.dataplane import pins
from xlvs.errors import XlvsError

_PATIENCE = 5.0  # seconds that the helper may take to start or to end


def _path(what: str = "slowpath") -> str:
    return f"{pins.run_folder()}/{pins.netns_cookie():016x}.{what}"


def running() -> int | None:
    """The helper's pid, or None."""
    try:
        file = os.open(_path(), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(file, 20) or 0) or None
    finally:
        os.close(file)
    return None


@contextmanager
def claim() -> Iterator[None]:
    """Be the helper; XlvsError where there is one already."""
    file = os.open(_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise XlvsError("the helper runs already") from None
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    try:
        yield
    finally:
        _forget()
        os.close(file)


def start() -> None:
    """Start the helper in the background if it does not run, in this network namespace."""
    if running():
        return
    subprocess.Popen(
        [sys.executable, "-P", "-m", "xlvs.cli.main", "slowpath"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    deadline = time.monotonic() + _PATIENCE
    while not running() and time.monotonic() < deadline:
        time.sleep(0.02)


def stop() -> None:
    """Stop the helper, wait for its end, and remove what it left."""
    pid = running()
    if pid:
        with suppress(ProcessLookupError):
            _end(os.pidfd_open(pid))
    if not running():
        _forget()


def _end(process: int) -> None:
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [], _PATIENCE)
    finally:
        os.close(process)


def note_trouble(text: str) -> None:
    """Keep the helper's last trouble, for status."""
    with suppress(OSError), open(_path("trouble"), "w") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(text.split())}")


def forget_trouble() -> None:
    """What went wrong goes well now."""
    with suppress(FileNotFoundError):
        os.unlink(_path("trouble"))


def trouble() -> str | None:
    """The helper's trouble, if it has any: when, what."""
    try:
        with open(_path("trouble")) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _forget() -> None:
    forget_trouble()
    with suppress(FileNotFoundError):
        os.unlink(_path())
