"""A cgroup for each real server's programs, so that what is attached there is that server's alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from xlvs.errors import XlvsError

_OWN_MOUNT = "/run/xlvs/cgroup"
# Moves itself into the cgroup of $0, then becomes the command.
_ENTER = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


def root() -> str:
    """Where cgroup v2 is mounted; mounts it where nobody has."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, point, kind = line.split(" ", 3)[:3]
            if kind == "cgroup2":
                return point
    os.makedirs(_OWN_MOUNT, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "cgroup2", "xlvs", _OWN_MOUNT], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        raise XlvsError(f"cgroup v2 cannot be mounted: {mounted.stderr.strip()}")
    return _OWN_MOUNT


def path(name: str) -> str:
    """The folder of a cgroup, there or not."""
    return f"{root()}/{name}"


def inside(folder: str, command: Sequence[str]) -> list[str]:
    """The command line that makes the cgroup and runs ``command`` in it."""
    os.makedirs(folder, exist_ok=True)
    return ["sh", "-c", _ENTER, folder, *command]


def remove(folder: str) -> None:
    """Take away a cgroup whose processes have ended."""
    with suppress(FileNotFoundError):
        os.rmdir(folder)
