"""Addresses with ports, and ranges of addresses, as virtual and real servers are written."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

from xlvs.health.checks import Address
from xlvs.keepalived.config import Vip
from xlvs.keepalived.schema import Line, Refused
from xlvs.keepalived.values import FOREVER, number, parse_address
from xlvs.model import AF_INET, AF_INET6

MOST_PORTS = 65535
# A bound of all groups that keepalived has not: each of their addresses becomes a service of its own.
MOST_ADDRESSES = 65536

Range = tuple[Address, Address]


def family(address: Address) -> int:
    """The address family of an address."""
    return AF_INET if address.version == 4 else AF_INET6


def plain_address(text: str) -> Address | None:
    """An address without a scope; what follows "-" or "/" is not looked at, as keepalived does."""
    return parse_address(re.split("[-/]", text, maxsplit=1)[0]) if "%" not in text else None


def classic_ipv4(text: str) -> int | None:
    """An IPv4 address as inet_aton(3) reads it: one to four parts, decimal, 0octal or 0xhexadecimal."""
    parts = text.split(".")
    values: list[int] = []
    for part in parts:
        if re.fullmatch("0[xX][0-9a-fA-F]{1,8}", part):
            values.append(int(part, 16))
        elif re.fullmatch("0[0-7]{0,12}|[1-9][0-9]{0,9}", part):
            values.append(int(part, 8 if part[0] == "0" else 10))
        else:
            return None
    last_bits = 8 * (5 - len(parts))
    if len(parts) > 4 or any(value > 255 for value in values[:-1]) or values[-1] >= 1 << last_bits:
        return None
    high = sum(value << (24 - 8 * at) for at, value in enumerate(values[:-1]))
    return high | values[-1]


def port(line: Line, text: str) -> int | None:
    """A port, or 0 for none; None, and a message, where it is neither."""
    return 0 if text == "0" else number(line, text, 1, MOST_PORTS)


def endpoint(line: Line, index: int = 1) -> tuple[Address, int] | None:
    """``ADDRESS [PORT]`` from word ``index`` on, or None; port 0: none given."""
    address = plain_address(line.word(index))
    found = port(line, line.words[index + 1]) if len(line.words) > index + 1 else 0
    return None if address is None or found is None else (address, found)


def as_written(line: Line, index: int = 1) -> str:
    """The words of an endpoint, as keepalived's messages quote them."""
    return "/".join(line.words[index : index + 2])


def address_range(text: str) -> Range:
    """``A``, ``A-B``, ``A-N`` (N in the place of A's last part) or ``A/BITS``: first and last address.

    Raises Refused with the reason, or with nothing where it is no address at all.
    """
    first = plain_address(text)
    if first is None:
        raise Refused("")
    if "/" in text:
        return _prefix(text, first)
    _, dash, end = text.partition("-")
    if not dash:
        return first, first
    last = plain_address(end) if "." in end or ":" in end else _last_part(text, first, end)
    if last is None:
        raise Refused(f"Invalid range end {text} - skipping")
    if last.version != first.version:
        raise Refused("")
    if int(last) < int(first):
        raise Refused(f"Address range end is less than address range start - {text} - skipping")
    return first, last


def _prefix(text: str, first: Address) -> Range:
    bits = text.partition("/")[2]
    if not re.fullmatch("[0-9]{1,3}", bits) or not 1 <= int(bits) <= first.max_prefixlen:
        raise Refused(f"Invalid netmask - {text} - skipping")
    try:
        network = ip_network((first, int(bits)))
    except ValueError:
        raise Refused(f"Address mask bits not empty - {text} - skipping") from None
    return network[0], network[-1]


def _last_part(text: str, first: Address, end: str) -> Address:
    """The address whose last part (IPv4: decimal, IPv6: hexadecimal) is ``end``."""
    base, limit = (10, 0xFF) if first.version == 4 else (16, 0xFFFF)
    if not re.fullmatch("[0-9]{1,5}" if base == 10 else "[0-9a-fA-F]{1,5}", end):
        raise Refused(f"Virtual server group range '{text}' has extra characters at end '{end}'")
    value = int(end, base)
    if value > limit:
        raise Refused(f"Virtual server group range '{text}' end '{end}' too large")
    if value <= int(first) & limit:
        raise Refused(f"Address range end is not greater than address range start - {text} - skipping")
    return type(first)(int(first) & ~limit | value)


def addresses(line: Line, have: int, limit: int = MOST_ADDRESSES) -> list[Address]:
    """The addresses of the range that is the line's first word; ``have``: how many groups have already."""
    first, last = address_range(line.keyword)
    count = int(last) - int(first) + 1
    if have + count > limit:
        raise Refused(f"'{line.keyword}': more than {limit} addresses in groups - skipping")
    kind: type[IPv4Address] | type[IPv6Address] = type(first)
    return [kind(number) for number in range(int(first), int(last) + 1)]


def group_entry(line: Line, name: str, have: int) -> list[Vip]:
    """A line of a virtual_server_group: ``RANGE [PORT]`` or ``fwmark N [inet|inet6]``; family 0: any."""
    if line.keyword == "fwmark":
        return [_mark(line, name)]
    skipping = f"Invalid virtual server group IP address {line.keyword}"
    where = port(line, line.words[1]) if len(line.words) > 1 else 0
    if where is None:
        raise Refused(f"{skipping} /port/{line.words[1]} - skipping")
    try:
        return [Vip(family(address), address, where) for address in addresses(line, have)]
    except Refused as refusal:
        raise Refused(str(refusal) or f"{skipping} - skipping") from None


def _mark(line: Line, name: str) -> Vip:
    mark = number(line, line.word(), 0, FOREVER)
    if mark is None:
        raise Refused(f"({name}): fwmark '{line.word()}' must be in [0, {FOREVER}] - ignoring")
    if len(line.words) < 3:
        return Vip(0, None, 0, mark)
    if line.words[2] not in ("inet", "inet6"):
        raise Refused(f"({name}): fwmark '{mark}' family {line.words[2]} unknown - ignoring")
    return Vip(AF_INET if line.words[2] == "inet" else AF_INET6, None, 0, mark)
