"""The text that ``xlvs defence export`` writes and ``import`` reads.

One statement a line, ``#`` begins a comment. What follows a line ``service`` is that service's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from xlvs.errors import XlvsError
from xlvs.ipvsadm.names import Names, endpoint
from xlvs.ipvsadm.numbers import to_endpoint
from xlvs.model import AF_INET, AF_INET6, L4, Defence, Prefix, ServiceKey

OPTIONS: dict[str, L4] = {
    "-t": L4.TCP,
    "--tcp-service": L4.TCP,
    "-u": L4.UDP,
    "--udp-service": L4.UDP,
    "--sctp-service": L4.SCTP,
}
_WRITTEN = {L4.TCP: "-t", L4.UDP: "-u", L4.SCTP: "--sctp-service"}
_STATEMENTS = ("service", "new", "per-source", "every-packet", "deny", "allow")
MOST = 0xFFFFFFFF


def service_of(option: str, text: str, *, ipv6: bool) -> ServiceKey:
    """The service that ``-t 10.1.252.161:80`` or ``-f 5`` names, as ipvsadm does."""
    if option in ("-f", "--fwmark-service"):
        mark = number_of(text, "firewall mark", low=1)
        return ServiceKey(AF_INET6 if ipv6 else AF_INET, 0, b"", 0, mark)
    protocol = OPTIONS[option]
    found = to_endpoint(text, protocol, Names())
    if found is None:
        raise XlvsError(f"'{text}' is no address and port of a service")
    family, address, port = found
    return ServiceKey(family, protocol, address, port or 0)


def service_text(key: ServiceKey) -> str:
    """The same, written."""
    if key.fwmark:
        return f"-f {key.fwmark}" + " -6" * (key.family == AF_INET6)
    return f"{_WRITTEN[L4(key.protocol)]} {endpoint(key.family, key.address, key.port, key.protocol, None)}"


def number_of(text: str, what: str, low: int = 0) -> int:
    """A decimal number of 32 bits."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or not low <= int(text) <= MOST:
        raise XlvsError(f"'{text}' is no {what}: {low} to {MOST}")
    return int(text)


def prefix_of(text: str, family: int) -> Prefix:
    """An address, or a prefix whose host bits are zero, of this family."""
    host, slash, length = text.partition("/")
    other = AF_INET if family == AF_INET6 else AF_INET6
    address, size = _packed(host, family), 32 if family == AF_INET else 128
    if address is None:
        if _packed(host, other) is not None:
            raise XlvsError(f"'{text}' is of the other family than the service")
        raise XlvsError(f"'{text}' is no address or prefix")
    if not slash:
        return address, size
    if not (length.isascii() and length.isdigit()) or len(length) > 3 or int(length) > size:
        raise XlvsError(f"'{text}' has no length from 0 to {size} behind its slash")
    rest = size - int(length)
    value = int.from_bytes(address, "big")
    network = (value >> rest << rest).to_bytes(size // 8, "big")
    if network != address:
        meant = f"{socket.inet_ntop(family, network)}/{length}"
        raise XlvsError(f"'{text}' goes beyond its length: {meant} is the prefix, {host} an address")
    return address, int(length)


def prefix_text(prefix: Prefix) -> str:
    """The same, written."""
    address, bits = prefix
    return f"{socket.inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)}/{bits}"


def _packed(text: str, family: int) -> bytes | None:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None


def write(defences: Iterable[tuple[ServiceKey, Defence]]) -> Iterator[str]:
    """The lines of a file."""
    for key, defence in defences:
        yield f"service {service_text(key)}"
        if defence.limit:
            yield f"new {defence.limit}"
        if defence.source_limit:
            yield f"per-source {defence.source_limit}"
        if defence.every_packet:
            yield "every-packet"
        for prefix, allowed in sorted(defence.clients.items()):
            yield f"{'allow' if allowed else 'deny'} {prefix_text(prefix)}"


@dataclass
class _Section:
    """What a file says of one service."""

    key: ServiceKey
    limit: int = 0
    source_limit: int = 0
    every_packet: bool = False
    clients: dict[Prefix, bool] = field(default_factory=dict)
    lines: dict[Prefix, int] = field(default_factory=dict)


def read(lines: Iterable[str], name: str) -> dict[ServiceKey, tuple[Defence, int]]:
    """The defences of a file, each with the line of its service; XlvsError names file and line."""
    sections: dict[ServiceKey, tuple[_Section, int]] = {}
    current: _Section | None = None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if words[0] == "service":
                key = _named(words[1:])
                if key in sections:
                    raise XlvsError(f"{service_text(key)} is in line {sections[key][1]} already")
                current = _Section(key)
                sections[key] = current, number
            elif words[0] not in _STATEMENTS:
                raise XlvsError(f"'{words[0]}' is none of {', '.join(_STATEMENTS)}")
            elif current is None:
                raise XlvsError(f"'{words[0]}' stands before any service")
            else:
                _TAKE[words[0]](current, words, number)
        except XlvsError as error:
            raise XlvsError(f"{name}, line {number}: {error}") from None
    return {
        key: (Defence(each.limit, each.source_limit, each.every_packet, each.clients), number)
        for key, (each, number) in sections.items()
    }


def _named(words: list[str]) -> ServiceKey:
    ipv6 = words[2:] == ["-6"] and words[0] in ("-f", "--fwmark-service")
    if len(words) != 2 + ipv6 or words[0] not in (*OPTIONS, "-f", "--fwmark-service"):
        raise XlvsError(
            "a service is named as for ipvsadm: -t, -u or --sctp-service ADDRESS:PORT, -f MARK [-6]"
        )
    return service_of(words[0], words[1], ipv6=ipv6)


def _one(words: list[str]) -> str:
    if len(words) != 2:
        raise XlvsError(f"'{words[0]}' takes one number")
    return words[1]


def _new(section: _Section, words: list[str], _number: int) -> None:
    section.limit = number_of(_one(words), "number of connections")


def _per_source(section: _Section, words: list[str], _number: int) -> None:
    section.source_limit = number_of(_one(words), "number of connections")


def _every_packet(section: _Section, words: list[str], _number: int) -> None:
    if len(words) > 1:
        raise XlvsError(f"'every-packet' stands alone, not before '{words[1]}'")
    section.every_packet = True


def _prefixes(section: _Section, words: list[str], number: int) -> None:
    allowed = words[0] == "allow"
    if len(words) < 2:
        raise XlvsError(f"'{words[0]}' of whom?")
    for word in words[1:]:
        prefix = prefix_of(word, section.key.family)
        if section.clients.setdefault(prefix, allowed) != allowed:
            other = "denied" if allowed else "allowed"
            raise XlvsError(f"{prefix_text(prefix)} is {other} in line {section.lines[prefix]}")
        section.lines.setdefault(prefix, number)


_TAKE: dict[str, Callable[[_Section, list[str], int], None]] = {
    "new": _new,
    "per-source": _per_source,
    "every-packet": _every_packet,
    "deny": _prefixes,
    "allow": _prefixes,
}
