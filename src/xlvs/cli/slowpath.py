"""``xlvs slowpath``: the helper beside the data plane; `up` starts it, anyone may stop it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xlvs.cli.engine import open_plane
from xlvs.daemon import supervise
from xlvs.daemon.slowpath import SlowPath
from xlvs.dataplane import pins

SUMMARY = "run the data plane's helper in the foreground (forwarding does not need it)"


def main(arguments: Sequence[str]) -> int:
    """Run the helper until it is told to stop or its data plane is gone."""
    argparse.ArgumentParser(prog="xlvs slowpath", description=SUMMARY).parse_args(arguments)
    pins.leave_mount_namespace()
    with supervise.claim():
        SlowPath(open_plane()).run()
    return 0
