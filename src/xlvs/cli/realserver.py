"""``xlvs realserver``: what a Linux machine needs to be a real server for DR or TUN."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence

from xlvs.errors import XlvsError
from xlvs.realserver import prepare as preparation
from xlvs.realserver.plan import METHODS

SUMMARY = "prepare this machine as a real server for DR or TUN, and undo it"

_EPILOG = """\
examples:
  xlvs realserver prepare --method dr --vip 10.1.252.161
  xlvs realserver prepare --method tun --vip 10.1.252.161 2001:db8:a::161 --dry-run
  xlvs realserver prepare --method tun --vip 10.1.252.161 --gue-port 6080
  xlvs realserver undo
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs realserver ARGUMENTS`` and return the exit status."""
    chosen = _parser().parse_args(arguments)
    status: int = chosen.run(chosen)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xlvs realserver", description=SUMMARY, epilog=_EPILOG)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    prepare = verbs.add_parser("prepare", help="VIP on lo, ARP silence, and for TUN the tunnel's end")
    prepare.add_argument("--method", choices=METHODS, required=True)
    prepare.add_argument(
        "--vip", nargs="+", required=True, metavar="ADDR", help="IPv4 or IPv6, without a prefix"
    )
    prepare.add_argument(
        "--interface", metavar="IF", help="where packets come in (default: the default route's)"
    )
    prepare.add_argument(
        "--kernel-tunnel",
        action="store_true",
        help="for TUN the kernel's tunnel devices, not eBPF",
    )
    prepare.add_argument(
        "--gue-port",
        nargs="+",
        type=_port,
        default=[],
        metavar="PORT",
        help="for TUN: UDP ports that GUE (--tun-type gue --tun-port PORT) comes in by",
    )
    prepare.add_argument("--dry-run", action="store_true", help="print the plain commands, change nothing")
    prepare.set_defaults(run=_prepare)

    verbs.add_parser("undo", help="give back everything that was changed").set_defaults(run=_undo)

    status = verbs.add_parser(
        "status", help="what was changed, and whether it still holds (exit status 1: not)"
    )
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=_status)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is no port")
    return int(text)


def _prepare(chosen: argparse.Namespace) -> int:
    if chosen.kernel_tunnel and chosen.method != "tun":
        raise XlvsError("--kernel-tunnel goes with --method tun only")
    if chosen.gue_port and (chosen.method != "tun" or chosen.kernel_tunnel):
        raise XlvsError("--gue-port is for the tunnel's end of ours: --method tun without --kernel-tunnel")
    wanted = (chosen.method, chosen.vip, chosen.interface, chosen.kernel_tunnel, chosen.gue_port)
    if chosen.dry_run:
        for step in preparation.steps_for(*wanted):
            for command in step.commands():
                print(shlex.join(command))
        return 0
    _demand_root()
    for step in preparation.prepare(*wanted):
        print(f"done: {step.identity}")
    return 0


def _undo(_: argparse.Namespace) -> int:
    _demand_root()
    steps = preparation.undo()
    for step in steps:
        print(f"undone: {step.identity}")
    if not steps:
        print("this machine is not prepared: nothing to undo")
    return 0


def _status(chosen: argparse.Namespace) -> int:
    _demand_root()
    status = preparation.status()
    if chosen.json:
        print(json.dumps(_described(status), indent=2))
    elif status is None:
        print("not prepared")
    else:
        print(f"prepared for {' and '.join(status.methods)}: VIP {', '.join(status.vips)}")
        for step, holds in status.steps:
            print(f"  {'ok   ' if holds else 'LOST '} {step.identity}")
        for interface, counters in status.counters.items():
            for name, value in counters.items():
                print(f"  {interface} {name.replace('_', ' '):<20} {value}")
        if not status.complete:
            print("something was changed since: 'xlvs realserver prepare' again restores it")
    return 0 if status and status.complete else 1


def _described(status: preparation.Status | None) -> dict[str, object]:
    if status is None:
        return {"prepared": False}
    return {
        "prepared": True,
        "complete": status.complete,
        "methods": list(status.methods),
        "vips": list(status.vips),
        "steps": [{"step": step.identity, "holds": holds} for step, holds in status.steps],
        "counters": status.counters,
    }


def _demand_root() -> None:
    if os.geteuid() != 0:
        raise XlvsError("this changes or reads root's settings: run it as root")
