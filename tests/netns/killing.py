"""xlvs killed in the middle of a change of the rules."""

from __future__ import annotations

import sys

# SIGKILL before the N-th write of a change; the note is there already.
_KILLED = """if True:
    import os, sys
    from xlvs.dataplane.tables import Tables
    left, apply = int(sys.argv[1]), Tables._apply
    def step(tables, change):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        apply(tables, change)
    Tables._apply = step
    from xlvs.cli.main import main
    sys.exit(main(["xlvs", *sys.argv[2:]]))"""


def killed_before(step: int, *arguments: str) -> list[str]:
    """The command line of an xlvs command that ends there, unless its change has fewer steps (from 0)."""
    return [sys.executable, "-c", _KILLED, str(step), *arguments]
