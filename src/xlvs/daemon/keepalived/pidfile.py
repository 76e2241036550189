"""Files that say which process it is, at the paths where keepalived has them."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

# By child, "" is the parent: what keepalived 2.2.7 has, whatever its manual says of the children's.
DEFAULTS = {"": "keepalived", "vrrp": "vrrp", "checkers": "checkers", "bfd": "bfd"}
_FOLDER = "/run"
_MODE = 0o644


def default(
    name: str, own_folder: bool = False, instance: str | None = None, namespace: str | None = None
) -> str:
    """The usual path.

    ``own_folder`` is use_pid_dir. An instance's name (global_defs) is in its files' names, and those of
    a network namespace's daemon are in a folder of that name; both are in keepalived's own folder.
    """
    file = f"{DEFAULTS[name]}_{instance}.pid" if instance else f"{DEFAULTS[name]}.pid"
    folder = f"{_FOLDER}/keepalived" if own_folder or instance or namespace else _FOLDER
    return f"{folder}/{namespace}/{file}" if namespace else f"{folder}/{file}"


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
    _make_folder(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.fchmod(descriptor, _MODE)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def write(path: str, pid: int) -> None:
    """Write somebody's number."""
    _make_folder(path)
    with open(path, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), _MODE)
        file.write(f"{pid}\n")


def _make_folder(path: str) -> None:
    """The folder of a file, for everybody to read whatever the umask is."""
    before = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    finally:
        os.umask(before)


def remove(path: str) -> None:
    """It runs no more."""
    with suppress(OSError):
        os.unlink(path)


def tidy(path: str) -> None:
    """Take away the folders that were made for this file, when nothing is left in them."""
    folder = os.path.dirname(path)
    while folder.startswith(f"{_FOLDER}/keepalived"):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


def _is_keepalived(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) == b"keepalived"
