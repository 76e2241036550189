"""``xlvs up``: load the data plane and attach it to interfaces."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from xlvs.cli.engine import open_plane
from xlvs.daemon import supervise
from xlvs.dataplane.loopback import forwarding
from xlvs.dataplane.plane import MODES

SUMMARY = "attach the data plane to interfaces (again: replace it under traffic)"

_FORWARDING = {
    "ipv4": ("IPv4", "net.ipv4.ip_forward"),
    "ipv6": ("IPv6", "net.ipv6.conf.all.forwarding"),
}

_EPILOG = """\
Name every interface that clients or real servers are reached by. Running it again
loads the installed version under traffic, and attaches to exactly these interfaces.

examples:
  xlvs up eth0 eth1
  xlvs up eth0 --connections 10000000
  xlvs up eth0 eth1 --connections 4000000 --migrate
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs up ARGUMENTS`` and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="xlvs up",
        description=SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interfaces", nargs="+", metavar="IFACE")
    parser.add_argument(
        "--mode", choices=MODES, default="auto", help="XDP mode (auto: native where the driver has it)"
    )
    parser.add_argument(
        "--connections",
        type=int,
        metavar="N",
        help="size of the connection table, rounded up to a power of two",
    )
    parser.add_argument(
        "--migrate", action="store_true", help="with --connections: move live connections to the new size"
    )
    parser.add_argument("--no-helper", action="store_true", help="do not start `xlvs slowpath`")
    chosen = parser.parse_args(arguments)
    plane = open_plane()
    attached = plane.up(chosen.interfaces, chosen.mode, chosen.connections, chosen.migrate)
    for each in attached:
        print(f"{each.name}: XDP in {each.mode} mode")
    print(f"connection table: size={plane.tables.settings.slots}")
    for warning in plane.warnings:
        print(f"xlvs: {warning}", file=sys.stderr)
    if not chosen.no_helper:
        supervise.start()
    for family, (name, switch) in _FORWARDING.items():
        if not forwarding()[family]:
            print(
                f"xlvs: {switch} is 0: answers of NAT's {name} real servers will not be forwarded "
                f"until `sysctl -w {switch}=1`",
                file=sys.stderr,
            )
    return 0
