"""Counters that programs keep in a per-CPU array, added up."""

from __future__ import annotations

from collections.abc import Sequence

from xlvs.dataplane import libbpf


def totals(descriptor: int, names: Sequence[str]) -> dict[str, int]:
    """The map's first rows over all CPUs, by these names."""
    size = 8 * _possible_cpus()
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        value = libbpf.lookup(descriptor, index.to_bytes(4, "little"), size) or b""
        found[name] = sum(int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8))
    return found


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return int(file.read().strip().rpartition("-")[2].rpartition(",")[2]) + 1
