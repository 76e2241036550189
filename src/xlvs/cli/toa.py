"""``xlvs toa``: have a real server's programs see the clients of FULLNAT, not the director."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from xlvs.errors import XlvsError
from xlvs.realserver import toa

SUMMARY = "on a real server: show programs the clients that a FULLNAT director tells of"

_EPILOG = """\
examples:
  xlvs toa attach --from 192.168.22.0/26 2001:db8:22::/64
  xlvs toa attach --from 192.168.22.4 --cgroup /sys/fs/cgroup/system.slice/nginx.service
  xlvs toa status
  xlvs toa detach
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs toa ARGUMENTS`` and return the exit status."""
    chosen = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        raise XlvsError("this attaches and reads BPF programs: run it as root")
    status: int = chosen.run(chosen)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xlvs toa", description=SUMMARY, epilog=_EPILOG)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    attach = verbs.add_parser("attach", help="attach, or bring what is attached up to date")
    attach.add_argument(
        "--from",
        dest="prefixes",
        nargs="+",
        required=True,
        metavar="PREFIX",
        help="whom to believe: the directors' local addresses",
    )
    attach.add_argument(
        "--kind",
        dest="kinds",
        nargs="+",
        type=_kind,
        default=list(toa.KINDS),
        metavar="N",
        help=f"TCP options to read (default: {' '.join(map(str, toa.KINDS))})",
    )
    _add_cgroup(attach)
    attach.set_defaults(run=_attach)

    detach = verbs.add_parser("detach", help="take everything away again")
    _add_cgroup(detach)
    detach.set_defaults(run=_detach)

    status = verbs.add_parser("status", help="what is attached where (exit status 1: nothing, or not all)")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=_status)
    return parser


def _add_cgroup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cgroup", metavar="PATH", help="whose programs (default: all, the root of cgroup v2)"
    )


def _kind(text: str) -> int:
    # 0 to 2 end the list, pad and give the MSS; 3 to 5, 8 and others are TCP's own, too.
    if not text.isdecimal() or not 2 < int(text) < 256:
        raise argparse.ArgumentTypeError(f"'{text}' is no TCP option kind from 3 to 255")
    return int(text)


def _attach(chosen: argparse.Namespace) -> int:
    prefixes = toa.networks(chosen.prefixes)
    path = toa.attach(prefixes, chosen.cgroup, chosen.kinds)
    print(f"attached to {path}: clients are believed from {', '.join(map(str, prefixes))}")
    return 0


def _detach(chosen: argparse.Namespace) -> int:
    path = toa.detach(chosen.cgroup)
    print(f"detached from {path}" if path else "not attached there: nothing to detach")
    return 0


def _status(chosen: argparse.Namespace) -> int:
    found = toa.status()
    if chosen.json:
        print(json.dumps({"attached": [_described(each) for each in found]}, indent=2))
    elif not found:
        print("not attached")
    else:
        for each in found:
            _print(each)
    return 0 if found and not any(each.lost for each in found) else 1


def _print(each: toa.Attachment) -> None:
    print(each.cgroup)
    print(f"  clients are believed from {', '.join(map(str, each.prefixes)) or 'nobody'}")
    print(f"  TCP option kinds {', '.join(map(str, each.kinds))}")
    for name, value in each.counters.items():
        print(f"  {name.replace('_', ' '):<20} {value}")
    for name in each.lost:
        print(f"  LOST {name}: 'xlvs toa attach' again restores it")


def _described(each: toa.Attachment) -> dict[str, Any]:
    return {
        "cgroup": each.cgroup,
        "id": each.identity,
        "from": [str(prefix) for prefix in each.prefixes],
        "kinds": list(each.kinds),
        "complete": not each.lost,
        "lost": list(each.lost),
        "counters": each.counters,
    }
