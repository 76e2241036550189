"""``xlvs fwmark``: which packets get which firewall mark, for services by mark (ipvsadm -f).

XDP runs before netfilter, so the marks of iptables come too late for it: xlvs has a
classifier of its own, with rules as iptables has them.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from xlvs.cli.engine import open_data_plane
from xlvs.errors import IpvsError, XlvsError
from xlvs.model import AF_INET, AF_INET6, MarkRule

SUMMARY = "mark packets for firewall-mark services (ipvsadm -f), as iptables -j MARK does"
_EPILOG = """\
Rules are in order, and the last that matches a packet gives its mark, as MARK rules of iptables do.
  xlvs fwmark add 1 --to 10.1.252.161 --protocol tcp --port 80
  xlvs fwmark add 1 --to 10.1.252.161 --protocol tcp --port 8000:8100
  xlvs fwmark add 2 --to 2001:db8::/64
  xlvs fwmark import             takes over the MARK rules of this machine's iptables"""
_PROTOCOLS = {"any": 0, "tcp": 6, "udp": 17, "sctp": 132}
_WITH_PORTS = (6, 17, 132)
_NAMES = {number: name for name, number in _PROTOCOLS.items()}


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs fwmark ARGUMENTS``; 3 where an import left rules out."""
    chosen = _parser().parse_args(arguments)
    return int(chosen.run(chosen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xlvs fwmark",
        description=SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="add a rule at the end of the list")
    _add_rule(add)
    add.add_argument("--at", type=int, metavar="NUMBER", help="put it before the rule of this number")
    add.set_defaults(run=_add)
    delete = commands.add_parser("del", help="delete the first rule that is exactly so, or one by its number")
    _add_rule(delete, optional=True)
    delete.add_argument("--number", type=int, metavar="NUMBER", help="as `list` numbers them")
    delete.set_defaults(run=_delete)
    show = commands.add_parser("list", help="show the rules")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_list)
    take = commands.add_parser("import", help="take over MARK rules of iptables (mangle, PREROUTING)")
    take.add_argument("-6", dest="ipv6", action="store_true", help="of ip6tables")
    take.add_argument("-f", "--file", help="what iptables-save printed (- for standard input)")
    take.add_argument("--replace", action="store_true", help="instead of the rules of that family")
    take.set_defaults(run=_import)
    flush = commands.add_parser("flush", help="delete all rules")
    flush.set_defaults(run=_flush)
    return parser


def _add_rule(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument(
        "mark", metavar="MARK", nargs="?" if optional else None, help="0 to 4294967295, or 0x..."
    )
    parser.add_argument("--to", metavar="ADDRESS[/LENGTH]", help="destination (default: any)")
    parser.add_argument("--protocol", default="any", help="tcp, udp, sctp, any or a number (default: any)")
    parser.add_argument("--port", metavar="N[:M]", help="destination port or range, of tcp, udp or sctp")
    parser.add_argument(
        "-6", dest="ipv6", action="store_true", help="IPv6 (as --to tells, where it is given)"
    )


def _add(chosen: argparse.Namespace) -> int:
    rule = _rule(chosen)
    with open_data_plane().transaction() as transaction:
        rules = transaction.marks()
        at = len(rules) + 1 if chosen.at is None else chosen.at
        if not 1 <= at <= len(rules) + 1:
            raise XlvsError(f"--at takes 1 to {len(rules) + 1} here")
        rules.insert(at - 1, rule)
        _set(transaction, rules)
    return 0


def _delete(chosen: argparse.Namespace) -> int:
    if (chosen.mark is None) == (chosen.number is None):
        raise XlvsError("say which rule: as it was added, or by --number")
    with open_data_plane().transaction() as transaction:
        rules = transaction.marks()
        if chosen.number is not None:
            if not 1 <= chosen.number <= len(rules):
                raise XlvsError(f"there is no rule {chosen.number}: `xlvs fwmark list` numbers them")
            del rules[chosen.number - 1]
        else:
            rule = _rule(chosen)
            if rule not in rules:
                raise XlvsError("there is no such rule")
            rules.remove(rule)
        _set(transaction, rules)
    return 0


def _flush(_chosen: argparse.Namespace) -> int:
    with open_data_plane().transaction() as transaction:
        _set(transaction, [])
    return 0


def _list(chosen: argparse.Namespace) -> int:
    rules = open_data_plane().marks()
    if chosen.json:
        found = [{"number": number, **_document(rule)} for number, rule in enumerate(rules, 1)]
        print(json.dumps({"rules": found}, indent=2))
        return 0
    print(f"{'':>5} {'mark':<10} {'protocol':<8} {'port':<11} to")
    for number, rule in enumerate(rules, 1):
        print(
            f"{number:>5} {rule.mark:<10} {_protocol_name(rule):<8} {_ports(rule):<11} "
            f"{socket.inet_ntop(rule.family, rule.address)}/{rule.bits}"
        )
    return 0


def _import(chosen: argparse.Namespace) -> int:
    from xlvs.network import iptables

    family = AF_INET6 if chosen.ipv6 else AF_INET
    if chosen.file is None:
        text = iptables.save_text(family)
    else:
        text = _read(chosen.file)
    found = iptables.import_marks(text, family)
    with open_data_plane().transaction() as transaction:
        kept = [rule for rule in transaction.marks() if not (chosen.replace and rule.family == family)]
        _set(transaction, [*kept, *found.rules])
    for line in iptables.lines(found):
        print(f"not taken over: {line}", file=sys.stderr)
    print(f"{found.taken} MARK rules taken over as {len(found.rules)}; {len(found.refusals)} left out")
    return 3 if found.refusals else 0


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise XlvsError(f"cannot read {path}: {error}") from None


def _set(transaction: Any, rules: list[MarkRule]) -> None:
    try:
        transaction.set_marks(rules)
    except IpvsError as error:
        raise XlvsError(f"the rules cannot be taken: {error}") from None


def _rule(chosen: argparse.Namespace) -> MarkRule:
    network = _network(chosen.to, chosen.ipv6)
    protocol = _protocol(chosen.protocol)
    first, last = 0, 0xFFFF
    if chosen.port is not None:
        if protocol not in _WITH_PORTS:
            raise XlvsError("--port needs --protocol tcp, udp or sctp")
        low, colon, high = chosen.port.partition(":")
        first = _number(low, 0xFFFF, "port")
        last = _number(high, 0xFFFF, "port") if colon else first
        if first > last:
            raise XlvsError(f"the ports {chosen.port} are the wrong way round")
    family = AF_INET6 if network.version == 6 else AF_INET
    mark = _number(chosen.mark, 0xFFFFFFFF, "mark")
    return MarkRule(mark, family, network.network_address.packed, network.prefixlen, protocol, first, last)


def _network(text: str | None, ipv6: bool) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if text is None:
        return ipaddress.ip_network("::/0" if ipv6 else "0.0.0.0/0")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise XlvsError(f"--to takes an address or a prefix: {error}") from None
    if ipv6 and network.version != 6:
        raise XlvsError(f"{text} is no IPv6 address")
    return network


def _protocol(text: str) -> int:
    return _PROTOCOLS[text] if text in _PROTOCOLS else _number(text, 255, "protocol")


def _number(text: str, most: int, what: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise XlvsError(f"'{text}' is no {what}: 0 to {most}")
    return number


def _protocol_name(rule: MarkRule) -> str:
    return _NAMES.get(rule.protocol, str(rule.protocol))


def _ports(rule: MarkRule) -> str:
    if (rule.first_port, rule.last_port) == (0, 0xFFFF):
        return "any"
    return (
        str(rule.first_port) if rule.first_port == rule.last_port else f"{rule.first_port}:{rule.last_port}"
    )


def _document(rule: MarkRule) -> dict[str, Any]:
    return {
        "mark": rule.mark,
        "family": "ipv6" if rule.family == AF_INET6 else "ipv4",
        "to": f"{socket.inet_ntop(rule.family, rule.address)}/{rule.bits}",
        "protocol": (rule.protocol and _protocol_name(rule)) or None,
        "first_port": rule.first_port,
        "last_port": rule.last_port,
    }
