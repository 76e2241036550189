"""``xlvs lab``: a cluster in network namespaces, to try things in."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from xlvs.errors import XlvsError
from xlvs.lab import build, namespaces, pair, wire
from xlvs.lab.topology import (
    CLIENTS,
    LOCAL_ADDRESSES,
    MOST_LOCAL_ADDRESSES,
    MOST_REAL_SERVERS,
    Encapsulation,
    Method,
    drawing,
)

SUMMARY = "build a cluster in network namespaces: client, router, director, real servers"

_EPILOG = """\
examples:
  xlvs lab up --method dr --real-servers 3
  xlvs lab exec client -- curl http://10.1.252.161
  xlvs lab exec director -- xlvs ipvsadm -Ln
  xlvs lab up --name far --method fullnat --local-addresses 28
  xlvs lab up --name two --pair --method dr
  xlvs lab loss 2 --reorder 10
  xlvs lab down
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs lab ARGUMENTS`` and return the exit status."""
    chosen = _parser().parse_args(arguments)
    status: int = chosen.run(chosen)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xlvs lab",
        description=SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    up = verbs.add_parser("up", help="build a lab")
    up.add_argument(
        "--method", choices=[method.value for method in Method], default="nat", help="(default: nat)"
    )
    up.add_argument(
        "--real-servers", type=int, default=2, metavar="N", help=f"1 to {MOST_REAL_SERVERS} (default: 2)"
    )
    up.add_argument(
        "--tun-type",
        choices=[each.value for each in Encapsulation],
        default="ipip",
        help="what method tun wraps packets in (default: ipip)",
    )
    up.add_argument(
        "--local-addresses",
        type=int,
        metavar="N",
        help=f"of method fullnat, 1 to {MOST_LOCAL_ADDRESSES} (default: {LOCAL_ADDRESSES})",
    )
    up.add_argument(
        "--no-toa", action="store_true", help="method fullnat: leave real servers in the dark about clients"
    )
    up.add_argument(
        "--pair",
        nargs="?",
        choices=pair.PROGRAMS,
        const="xlvs",
        default="",
        help="two directors: 'xlvs keepalived' runs them, or the real keepalived elects (VRRP alone)",
    )
    up.add_argument("--ipv6", action="store_true", help="IPv6 beside IPv4, with a service in each")
    up.add_argument("--no-rules", action="store_true", help="leave the director without a service")
    _name(up)
    up.set_defaults(run=_up)

    loss = verbs.add_parser("loss", help="have a segment lose frames, or bring some late")
    _name(loss)
    loss.add_argument(
        "percent",
        type=float,
        nargs="?",
        metavar="PERCENT",
        help="of frames lost (nothing: show all segments)",
    )
    loss.add_argument("--reorder", type=float, metavar="PERCENT", help="of frames late, overtaken by others")
    loss.add_argument("--segment", default=CLIENTS, help=f"which wire (default: {CLIENTS})")
    loss.add_argument("--json", action="store_true", help="show as JSON")
    loss.set_defaults(run=_loss)

    execute = verbs.add_parser("exec", help="run a command on a node, as ip netns exec does")
    _name(execute)
    execute.add_argument(
        "node", metavar="NODE", help="client, router, director, director2 (of a pair), rs1, rs2, ..."
    )
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND [ARGUMENT]...")
    execute.set_defaults(run=_exec)

    listing = verbs.add_parser("list", help="the labs that are there")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)

    down = verbs.add_parser("down", help="take a lab down")
    _name(down)
    down.set_defaults(run=_down)
    return parser


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", default="lab", help="which lab (default: lab); several can stand side by side"
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _up(chosen: argparse.Namespace) -> int:
    method, tunnel = Method(chosen.method), Encapsulation(chosen.tun_type)
    if tunnel is not Encapsulation.IPIP and method is not Method.TUN:
        raise XlvsError("--tun-type goes with --method tun only")
    if method is not Method.FULLNAT and (chosen.no_toa or chosen.local_addresses is not None):
        raise XlvsError("--local-addresses and --no-toa go with --method fullnat only")
    if chosen.pair == "xlvs" and chosen.no_rules:
        raise XlvsError("--no-rules leaves the daemon of a --pair without a service: leave it out")
    lab = build.Lab(
        chosen.name,
        method,
        chosen.real_servers,
        chosen.ipv6,
        tunnel=tunnel,
        toa=not chosen.no_toa,
        pair=chosen.pair,
        local_addresses=LOCAL_ADDRESSES if chosen.local_addresses is None else chosen.local_addresses,
    )
    build.up(lab, rules=not chosen.no_rules, say=_say)
    at = f" --name {lab.name}" if lab.name != "lab" else ""
    _say(f"\n{drawing(lab.topology)}\n")
    if not chosen.no_rules:
        _say(f"try:  xlvs lab exec{at} client -- curl {lab.topology.url()}")
    _say(f"      xlvs lab exec{at} director -- xlvs ipvsadm -Ln\nend:  xlvs lab down{at}")
    return 0


def _loss(chosen: argparse.Namespace) -> int:
    lab = build.load(chosen.name)
    if chosen.percent is not None or chosen.reorder is not None:
        if chosen.json:
            raise XlvsError("--json goes with showing only: leave PERCENT out")
        wire.spoil(lab, chosen.segment, wire.Quality(chosen.percent or 0.0, chosen.reorder or 0.0))
        return 0
    found = wire.qualities(lab)
    if chosen.json:
        print(json.dumps({name: asdict(quality) for name, quality in found.items()}, indent=2))
        return 0
    for name, quality in found.items():
        bad = f"{quality.lost:g} % lost, {quality.late:g} % late"
        print(f"{name:<10} {'good' if quality.good else bad}")
    return 0


def _exec(chosen: argparse.Namespace) -> int:
    lab = build.load(chosen.name)
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if not command:
        raise XlvsError("lab exec: which command? For example: xlvs lab exec client -- ip address")
    namespace = lab.namespace(chosen.node)
    if not namespaces.exists(namespace):
        raise XlvsError(f"lab '{lab.name}' lost its node '{chosen.node}': 'xlvs lab down' clears the rest")
    # The xlvs that built the lab is found there by name, installed or not.
    path = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"
    sys.stdout.flush()
    os.execvpe("ip", namespaces.typed_inside(namespace, command), {**os.environ, "PATH": path})  # noqa: S606  the point is to become the command


def _list(chosen: argparse.Namespace) -> int:
    labs = build.present()
    if chosen.json:
        print(json.dumps([_described(lab) for lab in labs], indent=2))
        return 0
    for lab in labs:
        families = "IPv4 and IPv6" if lab.ipv6 else "IPv4"
        families += f", a pair by {lab.pair}" if lab.pair else ""
        unfinished = "" if lab.finished else "; half built: xlvs lab down removes it"
        print(f"{lab.name}: {lab.method.value}, {lab.real_servers} real servers, {families}{unfinished}")
        for node in lab.topology.nodes:
            print(f"  {node.name:<10} {' '.join(node.addresses)}")
    return 0


def _described(lab: build.Lab) -> dict[str, object]:
    return {
        "name": lab.name,
        "method": lab.method.value,
        "ipv6": lab.ipv6,
        "pair": lab.pair,
        "finished": lab.finished,
        "vips": list(lab.topology.vips),
        "nodes": [
            {"name": node.name, "namespace": lab.namespace(node.name), "addresses": node.addresses}
            for node in lab.topology.nodes
        ],
    }


def _down(chosen: argparse.Namespace) -> int:
    lab = build.load(chosen.name)
    build.down(lab, say=_say)
    _say(f"lab '{lab.name}' is gone")
    return 0
