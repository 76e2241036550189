"""``xlvs bench``: runs the benchmarks of the checkout that this xlvs was installed from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from xlvs.errors import XlvsError

SUMMARY = "measure packets per second and nanoseconds per packet (from a checkout)"

_CHECKOUT = Path(__file__).resolve().parents[3]


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m bench ARGUMENTS`` and return its exit status."""
    if not (_CHECKOUT / "bench" / "__main__.py").exists():
        raise XlvsError(
            "the benchmarks are not part of the installed package: "
            "clone the project and type 'make bench' there"
        )
    sys.stdout.flush()
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
