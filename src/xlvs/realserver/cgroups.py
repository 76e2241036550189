"""Where cgroup v2 is, and which cgroup a path names."""

from __future__ import annotations

import os

from xlvs.dataplane import pins
from xlvs.errors import XlvsError


def root() -> str:
    """The root of cgroup v2 as this machine mounts it (hybrid: /sys/fs/cgroup/unified)."""
    for point, kind in pins.outer_mounts():
        if kind == "cgroup2":
            return point
    raise XlvsError("cgroup v2 is not mounted: 'mount -t cgroup2 none /sys/fs/cgroup' does it")


def opened(path: str) -> int:
    """A descriptor of the cgroup at ``path``, which the caller closes.

    A path that is not there is looked for in the outermost mount namespace: ``ip netns exec``
    hides /sys/fs/cgroup from the command it runs.
    """
    _, descriptor = _found(path)
    return descriptor


def identity(path: str) -> int:
    """The id of the cgroup at ``path``: the number by which the kernel knows it."""
    place, descriptor = _found(path)
    try:
        return os.stat(place).st_ino
    finally:
        os.close(descriptor)


def _found(path: str) -> tuple[str, int]:
    absolute = os.path.abspath(path)
    for place in (absolute, pins.outer_root() + absolute):
        # Every cgroup has this file, the root included, and nothing else has.
        if os.path.isfile(f"{place}/cgroup.controllers"):
            return place, os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    raise XlvsError(f"{path} is no cgroup of version 2 (this machine's root is {root()})")
