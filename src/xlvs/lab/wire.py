"""Bad wires: a lab's segments that lose frames, or bring some late (bpf/wire.bpf.c).

The program sits on a segment's ports of the switch, and goes with them: nothing is pinned.
What was asked for stands in the lab's folder, in ``wires.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xlvs import dataplane
from xlvs.dataplane import libbpf, pins
from xlvs.errors import XlvsError
from xlvs.lab import namespaces
from xlvs.lab.build import Lab
from xlvs.lab.topology import SWITCH

OBJECT = os.path.join(os.path.dirname(dataplane.__file__), "objects", "wire.bpf.o")
_PROGRAM, _DETOUR, _QUEUE = "wire", "detour", 512  # frames that may be late at once


@dataclass(frozen=True, slots=True)
class Quality:
    """How bad a segment is: percent of the frames that are lost, and of those that are late."""

    lost: float = 0.0
    late: float = 0.0

    @property
    def good(self) -> bool:
        return not self.lost and not self.late


def qualities(lab: Lab) -> dict[str, Quality]:
    """Every segment of a lab."""
    try:
        with open(_path(lab), encoding="ascii") as file:
            bad = {segment: Quality(**values) for segment, values in json.load(file).items()}
    except FileNotFoundError:
        bad = {}
    return {segment: bad.get(segment, Quality()) for segment in lab.topology.segments}


def spoil(lab: Lab, segment: str, quality: Quality) -> None:
    """Make a segment that bad from now on, in both directions; or good again."""
    known = qualities(lab)
    if segment not in known:
        raise XlvsError(f"lab '{lab.name}' has no segment '{segment}': it has {', '.join(known)}")
    if min(quality.lost, quality.late) < 0 or quality.lost + quality.late > 100:
        raise XlvsError("what is lost and what is late are percent, and together at most 100")
    ports = [
        (node.name, port.name)
        for node in lab.topology.nodes
        for port in node.interfaces
        if port.segment == segment
    ]
    # A frame that takes another way has no memory of a checksum that was left to hardware.
    offload = "on" if quality.good else "off"
    for node, port in ports:
        namespaces.run(namespaces.inside(lab.namespace(node), ["ethtool", "-K", port, "tx", offload]))
    names = [f"{node}-{port}" for node, port in ports]
    if quality.good:
        namespaces.batch((f"link set dev {name} xdp off" for name in names), lab.namespace(SWITCH))
    else:
        with _loaded(quality) as pinned:
            lines = [f"link set dev {name} xdp pinned {pinned}" for name in names]
            # One that is there already must go first: it may run in neither mode beside another.
            lines = [f"link set dev {name} xdp off" for name in names] + lines
            namespaces.batch(lines, lab.namespace(SWITCH))
    _write(lab, {**known, segment: quality})


@contextmanager
def _loaded(quality: Quality) -> Iterator[str]:
    """The program, loaded and pinned for as long as it takes to attach it."""
    if not os.path.exists(OBJECT):
        raise XlvsError(f"{OBJECT} is missing: 'make bpf' compiles it")
    with libbpf.BpfObject(OBJECT) as program:
        shares = (quality.lost, quality.late)
        millionths = b"".join(round(share * 10_000).to_bytes(4, "little") for share in shares)
        program.set_constants(".rodata.wire", millionths)
        program.load()
        libbpf.update(program.map_fd(_DETOUR), bytes(4), _QUEUE.to_bytes(4, "little") + bytes(4))
        path = f"{pins.bpffs_folder()}/wire-{os.getpid()}"
        libbpf.pin(program.program_fd(_PROGRAM), path)
        try:
            yield path
        finally:
            os.unlink(path)


def _path(lab: Lab) -> str:
    return f"{lab.folder}/wires.json"


def _write(lab: Lab, wanted: dict[str, Quality]) -> None:
    bad = {
        segment: {"lost": quality.lost, "late": quality.late}
        for segment, quality in wanted.items()
        if not quality.good
    }
    with open(f"{_path(lab)}.new", "w", encoding="ascii") as file:
        json.dump(bad, file)
    os.replace(f"{_path(lab)}.new", _path(lab))
