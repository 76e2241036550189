"""What real servers' programs keep pinned: opened again, and loaded over."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from xlvs.dataplane import libbpf


def opened(path: str) -> int | None:
    """A descriptor of what is pinned there, the caller's to close; None where nothing is."""
    try:
        return libbpf.get_pinned(path)
    except libbpf.BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


def load(program: libbpf.BpfObject, folder: str, maps: Iterable[str]) -> None:
    """Load over those of the maps that are pinned in a folder, and pin the others there."""
    known = {name: opened(f"{folder}/{name}") for name in maps}
    try:
        for name, descriptor in known.items():
            if descriptor is not None:
                program.reuse_map(name, descriptor)
        program.load()
        for name, descriptor in known.items():
            if descriptor is None:
                libbpf.pin(program.map_fd(name), f"{folder}/{name}")
    finally:
        for descriptor in known.values():
            if descriptor is not None:
                os.close(descriptor)
