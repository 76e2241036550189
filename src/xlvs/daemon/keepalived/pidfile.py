"""Files that say which process it is, at the paths where keepalived has them."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

# By child; "" is the parent.
DEFAULTS = {
    "": "keepalived.pid",
    "vrrp": "keepalived_vrrp.pid",
    "checkers": "keepalived_checkers.pid",
    "bfd": "keepalived_bfd.pid",
}
_FOLDER = "/run"


def default(
    name: str, own_folder: bool = False, instance: str | None = None, namespace: str | None = None
) -> str:
    """The usual path.

    ``own_folder`` is use_pid_dir. An instance's name (global_defs) is in its files' names. The files of
    a network namespace's daemon are where keepalived(8) shows them to everybody.
    """
    file = DEFAULTS[name]
    if instance:
        stem, dot, suffix = file.partition(".")
        file = f"{stem}_{instance}{dot}{suffix}"
    if namespace:
        return f"{_FOLDER}/keepalived/keepalived_{namespace}/{file}"
    return f"{_FOLDER}/keepalived/{file}" if own_folder else f"{_FOLDER}/{file}"


def running(path: str) -> bool:
    """Whether a process has claimed this file; one without a living owner counts for nothing.

    A real keepalived's is told by its number: it must not run beside us.
    """
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read().split()[0])
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except (OSError, ValueError, IndexError, UnicodeDecodeError):
        return False
    return pid != os.getpid() and _is_keepalived(pid)


def claim(path: str) -> int:
    """Write our number, and hold the file until the descriptor given is closed, or we end."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def write(path: str, pid: int) -> None:
    """Write somebody's number."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{pid}\n")


def remove(path: str) -> None:
    """It runs no more."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _is_keepalived(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) == b"keepalived"
