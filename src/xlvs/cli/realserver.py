"""``xlvs realserver``: what a Linux machine needs to be a real server, and the agent that tells its load."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence

from xlvs.errors import XlvsError
from xlvs.realserver import prepare as preparation
from xlvs.realserver.plan import METHODS

AGENT_PORT = 8558
SUMMARY = "prepare this machine as a real server for DR or TUN, undo it, tell directors its load"

_EPILOG = """\
examples:
  xlvs realserver prepare --method dr --vip 10.1.252.161
  xlvs realserver prepare --method tun --vip 10.1.252.161 2001:db8:a::161 --dry-run
  xlvs realserver prepare --method tun --vip 10.1.252.161 --gue-port 6080
  xlvs realserver undo
  xlvs realserver agent --load --memory
  xlvs realserver agent --port 9001 --command /usr/local/bin/how-busy
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
    _add_agent(verbs)
    return parser


def _add_agent(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    agent = verbs.add_parser(
        "agent",
        help="tell directors how busy this machine is",
        description="Answer AGENT_CHECK of xlvs keepalived, and agent-check of HAProxy, with the part of"
        " its weight that this machine can take (of --load and --memory the lower), or with what a"
        " command says: 75%%, drain, maint, ready, up, down.",
    )
    agent.add_argument("--port", type=_port, default=AGENT_PORT, help="TCP port (default %(default)s)")
    agent.add_argument("--address", nargs="+", default=[], metavar="ADDR", help="only there (default: all)")
    agent.add_argument("--load", action="store_true", help="what the load average leaves of the processors")
    agent.add_argument("--memory", action="store_true", help="the part of the memory that is available")
    agent.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="for the command")
    agent.add_argument("--drain-file", default="", metavar="FILE", help="drain while this file exists")
    agent.add_argument(
        "--command",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="WORD",
        help="run this, without a shell, for each answer: its first line is passed on; comes last",
    )
    agent.set_defaults(run=_agent)


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


def _agent(chosen: argparse.Namespace) -> int:
    import asyncio

    from xlvs.realserver.agent import Sources, serve

    if chosen.command and (chosen.load or chosen.memory):
        raise XlvsError("--command answers alone: without --load and --memory")
    if not (chosen.command or chosen.load or chosen.memory):
        raise XlvsError("say what to answer from: --load, --memory or --command")
    sources = Sources(chosen.load, chosen.memory, tuple(chosen.command), chosen.timeout, chosen.drain_file)
    try:
        asyncio.run(serve(sources, chosen.address, chosen.port))
    except OSError as error:
        raise XlvsError(f"cannot listen on port {chosen.port}: {error.strerror}") from None
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
