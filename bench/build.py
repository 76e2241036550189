"""The benchmarks' own BPF programs: compiled when their texts changed."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "build/bench"


def compiled(name: str) -> str:
    """The object file of ``name.bpf.c``."""
    source, target = HERE / f"{name}.bpf.c", OUTPUT / f"{name}.bpf.o"
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if not target.exists() or target.stat().st_mtime < newest:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
        flags += ["-Wno-unused-parameter", f"-I/usr/include/{platform.machine()}-linux-gnu"]
        subprocess.run(["clang-16", *flags, "-c", str(source), "-o", str(target)], check=True)
    return str(target)
