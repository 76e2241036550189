"""``xlvs defence``: limits of new connections, and lists of clients to allow or deny, by service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xlvs.cli import defence_file
from xlvs.cli.defence_file import prefix_of, prefix_text, service_text
from xlvs.cli.engine import open_data_plane
from xlvs.errors import IpvsError, XlvsError
from xlvs.model import Defence, DefenceEntry, Prefix, ServiceKey

if TYPE_CHECKING:
    from xlvs.dataplane.port import Transaction

SUMMARY = "limit how fast connections to a service begin, allow or deny its clients"
_EPILOG = """\
Limits are new connections a second: TCP's SYN, SCTP's INIT, the first datagram of UDP. One second's worth may
come at once. A client is an IPv4 address, or the first 64 bits of an IPv6 one.
Of prefixes the longest decides: an allowed one within a denied one is an exception from it. An allowed prefix
within no denied one makes an allow list: who is in no prefix of the service is denied.
  xlvs defence limit -t 10.1.252.161:80 --new 2000 --per-source 20
  xlvs defence deny -t 10.1.252.161:80 203.0.113.0/24 198.51.100.9
  xlvs defence allow -t 10.1.252.161:80 203.0.113.7
  xlvs defence export > FILE; xlvs defence import FILE
Lists and limits go with their service (ipvsadm -D, -C): import what export saved after ipvsadm -R."""


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs defence ARGUMENTS``."""
    chosen = _parser().parse_args(arguments)
    return int(chosen.run(chosen) or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xlvs defence",
        description=SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        return made

    limit = command("limit", _limit, "limit new connections a second; 0 takes a limit away")
    _add_service(limit)
    limit.add_argument("--new", metavar="N", help="of all clients together")
    limit.add_argument("--per-source", metavar="N", help="of one client")
    for name, verb in (("deny", "deny these clients"), ("allow", "allow these clients")):
        made = command(name, _set_prefixes, verb)
        _add_service(made)
        made.add_argument("prefixes", nargs="+", metavar="PREFIX", help="an address or a prefix")
        made.set_defaults(allowed=name == "allow")
    remove = command("remove", _remove, "take prefixes from a service's lists")
    _add_service(remove)
    remove.add_argument("prefixes", nargs="+", metavar="PREFIX", help="as they were given")
    check = command("check", _check, "whether lists are for new connections only")
    _add_service(check)
    check.add_argument(
        "packets", choices=("new", "every-packet"), help="every-packet: of connections that exist"
    )
    show = command("list", _list, "show limits and lists, and how many packets they refused or let pass")
    _add_service(show, optional=True)
    show.add_argument("--json", action="store_true", help="as JSON")
    take = command("import", _import, "give the services in a file exactly what it says of them")
    take.add_argument("file", metavar="FILE", help="as `export` writes it; - for standard input")
    command("export", _export, "write all limits and lists as `import` reads them")
    flush = command("flush", _flush, "take away all limits and lists, of one service or of all")
    _add_service(flush, optional=True)
    return parser


def _add_service(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    group = parser.add_mutually_exclusive_group(required=not optional)
    group.add_argument("-t", "--tcp-service", metavar="ADDRESS:PORT")
    group.add_argument("-u", "--udp-service", metavar="ADDRESS:PORT")
    group.add_argument("--sctp-service", metavar="ADDRESS:PORT")
    group.add_argument("-f", "--fwmark-service", metavar="MARK")
    parser.add_argument("-6", "--ipv6", action="store_true", help="of an IPv6 service by mark")


def _key(chosen: argparse.Namespace) -> ServiceKey | None:
    for name in ("tcp-service", "udp-service", "sctp-service", "fwmark-service"):
        text = getattr(chosen, name.replace("-", "_"))
        if text is not None:
            if chosen.ipv6 and name != "fwmark-service":
                raise XlvsError("-6 is for services by mark (-f)")
            return defence_file.service_of(f"--{name}", text, ipv6=chosen.ipv6)
    return None


@contextmanager
def _defence(chosen: argparse.Namespace) -> Iterator[tuple[ServiceKey, Defence, Callable[[Defence], None]]]:
    """The service that was chosen, its defence, and what gives it another."""
    key = _key(chosen)
    assert key is not None  # argparse asks for it
    with open_data_plane().transaction() as transaction:
        yield key, _of(transaction, key), lambda defence: _give(transaction, key, defence)


def _of(transaction: Transaction, key: ServiceKey) -> Defence:
    try:
        return transaction.defence(key)
    except IpvsError:
        raise XlvsError(f"there is no service {service_text(key)}") from None


def _give(transaction: Transaction, key: ServiceKey, defence: Defence) -> None:
    try:
        transaction.set_defence(key, defence)
    except IpvsError as error:
        raise XlvsError(f"the defence of {service_text(key)} cannot be taken: {error}") from None


def _limit(chosen: argparse.Namespace) -> None:
    if chosen.new is None and chosen.per_source is None:
        raise XlvsError("limit takes --new, --per-source or both")
    with _defence(chosen) as (_, defence, give):
        if chosen.new is not None:
            defence = replace(defence, limit=_connections(chosen.new))
        if chosen.per_source is not None:
            defence = replace(defence, source_limit=_connections(chosen.per_source))
        give(defence)


def _connections(text: str) -> int:
    return defence_file.number_of(text, "number of connections")


def _prefixes(chosen: argparse.Namespace, key: ServiceKey) -> list[Prefix]:
    return [prefix_of(text, key.family) for text in chosen.prefixes]


def _set_prefixes(chosen: argparse.Namespace) -> None:
    with _defence(chosen) as (key, defence, give):
        changed = dict.fromkeys(_prefixes(chosen, key), bool(chosen.allowed))
        give(replace(defence, clients={**defence.clients, **changed}))


def _remove(chosen: argparse.Namespace) -> None:
    with _defence(chosen) as (key, defence, give):
        gone = _prefixes(chosen, key)
        for prefix in gone:
            if prefix not in defence.clients:
                raise XlvsError(f"{prefix_text(prefix)} is in no list of {service_text(key)}")
        kept = {prefix: allowed for prefix, allowed in defence.clients.items() if prefix not in gone}
        give(replace(defence, clients=kept))


def _check(chosen: argparse.Namespace) -> None:
    with _defence(chosen) as (_, defence, give):
        give(replace(defence, every_packet=chosen.packets == "every-packet"))


def _flush(chosen: argparse.Namespace) -> None:
    key = _key(chosen)
    plane = open_data_plane()
    keys = [entry.key for entry in plane.defences()] if key is None else [key]
    with plane.transaction() as transaction:
        for each in keys:
            _of(transaction, each)
            _give(transaction, each, Defence())


def _import(chosen: argparse.Namespace) -> None:
    name = "standard input" if chosen.file == "-" else chosen.file
    found = defence_file.read(_lines(chosen.file), name)
    with open_data_plane().transaction() as transaction:
        for key, (defence, line) in found.items():
            try:
                _of(transaction, key)
            except XlvsError as error:
                raise XlvsError(f"{name}, line {line}: {error}") from None
            _give(transaction, key, defence)


def _lines(path: str) -> list[str]:
    try:
        if path == "-":
            return sys.stdin.read().splitlines()
        with open(path) as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise XlvsError(f"cannot read {path}: {error}") from None


def _export(_chosen: argparse.Namespace) -> None:
    entries = _sorted(open_data_plane().defences())
    for line in defence_file.write((entry.key, entry.defence) for entry in entries):
        print(line)


def _sorted(entries: Iterable[DefenceEntry]) -> list[DefenceEntry]:
    return sorted(
        entries, key=lambda entry: (entry.key.fwmark, entry.key.protocol, entry.key.address, entry.key.port)
    )


def _list(chosen: argparse.Namespace) -> None:
    key = _key(chosen)
    entries = _sorted(entry for entry in open_data_plane().defences() if key in (None, entry.key))
    if chosen.json:
        print(json.dumps({"services": [_document(entry) for entry in entries]}, indent=2))
        return
    for entry in entries:
        print("\n".join(_text(entry)))


def _text(entry: DefenceEntry) -> Iterator[str]:
    defence = entry.defence
    yield service_text(entry.key)
    for limit, what, refused in (
        (defence.limit, "of all clients", entry.over_limit),
        (defence.source_limit, "of one client", entry.over_source_limit),
    ):
        if limit:
            yield f"  new connections a second {what}: {limit}, {refused} refused"
    if defence.clients:
        yield f"  clients are looked up for {'every packet' if defence.every_packet else 'new connections'}"
        yield f"  {'':<6}{'packets':>12}  prefix"
    for prefix, allowed in sorted(defence.clients.items()):
        yield _client(allowed, entry.packets.get(prefix, 0), prefix_text(prefix))
    if entry.others is not None:
        yield _client(False, entry.others, "all others")


def _client(allowed: bool, packets: int, whom: str) -> str:
    return f"  {'allow' if allowed else 'deny':<6}{packets:>12}  {whom}"


def _document(entry: DefenceEntry) -> dict[str, Any]:
    defence = entry.defence
    return {
        "service": service_text(entry.key),
        "new": defence.limit or None,
        "new_refused": entry.over_limit,
        "per_source": defence.source_limit or None,
        "per_source_refused": entry.over_source_limit,
        "every_packet": defence.every_packet,
        "clients": [
            {
                "prefix": prefix_text(prefix),
                "verdict": "allow" if allowed else "deny",
                "packets": entry.packets.get(prefix, 0),
            }
            for prefix, allowed in sorted(defence.clients.items())
        ],
        "others": None if entry.others is None else {"verdict": "deny", "packets": entry.others},
    }
