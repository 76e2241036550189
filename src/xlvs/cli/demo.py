"""``xlvs demo``: watch NAT, DR, TUN and FULLNAT spread real requests over real nginx servers."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from xlvs.errors import XlvsError
from xlvs.lab.demo import Demo, Screen, can_run
from xlvs.lab.topology import Method

SUMMARY = "watch NAT, DR, TUN and FULLNAT at work in a lab, explained step by step"


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs demo ARGUMENTS``; 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="xlvs demo", description=SUMMARY)
    parser.add_argument("--method", choices=list(map(str, Method)), help="only this one (default: all)")
    chosen = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise XlvsError("the demo needs root: it makes network namespaces")
    can_run()
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    demo = Demo(Screen(lambda line: print(line, flush=True), colours), name=f"demo{os.getpid()}")
    start = time.monotonic()
    demo.run([Method(chosen.method)] if chosen.method else list(Method))
    seconds = time.monotonic() - start
    if demo.held:
        print(f"\nAll as it must be, in {seconds:.0f} seconds. Build one yourself: xlvs lab up --help")
        return 0
    print(f"\nNot everything was as it must be: see the lines marked NOT. ({seconds:.0f} seconds)")
    return 1
