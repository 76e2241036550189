"""``xlvs ipvsadm``, and the programs ``ipvsadm-save`` and ``ipvsadm-restore``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from xlvs.cli.engine import open_data_plane, take_engine
from xlvs.ipvsadm.program import Program

SUMMARY = "administer services and real servers, as ipvsadm 1.31 does"


def main(arguments: Sequence[str]) -> int:
    """Run ``ipvsadm ARGUMENTS``; ``--engine xdp|kernel`` before them picks the engine."""
    engine, rest = take_engine(arguments)
    return _program(engine).run(rest)


def save(arguments: Sequence[str]) -> int:
    """Run ``ipvsadm-save ARGUMENTS``."""
    return _program().save(arguments)


def restore(_arguments: Sequence[str]) -> int:
    """Run ``ipvsadm-restore``."""
    return _program().restore()


def _program(engine: str = "") -> Program:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Arguments come back in messages as the bytes they were.
            stream.reconfigure(errors="surrogateescape")
    return Program(lambda: open_data_plane(engine), _read_input, sys.stdout, sys.stderr)


def _read_input() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
