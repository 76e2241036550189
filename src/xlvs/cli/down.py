"""``xlvs down``: detach the data plane and leave nothing behind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xlvs.cli.engine import open_plane
from xlvs.daemon import supervise

SUMMARY = "detach the data plane, end its connections and forget its rules"


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs down ARGUMENTS`` and return the exit status."""
    parser = argparse.ArgumentParser(prog="xlvs down", description=SUMMARY)
    parser.add_argument(
        "--keep-rules", action="store_true", help="keep services and destinations for the next `up`"
    )
    chosen = parser.parse_args(arguments)
    supervise.stop()
    if not open_plane().down(chosen.keep_rules):
        print("the data plane was not up")
    return 0
