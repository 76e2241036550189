"""Numbers and addresses as the C library reads them, with its leniencies."""

from __future__ import annotations

import socket

from xlvs.ipvsadm.names import Names
from xlvs.model import AF_INET, AF_INET6

_SPACE = " \t\n\v\f\r"
_DIGITS = frozenset("0123456789")


def to_number(text: str, low: int, high: int) -> int | None:
    """A decimal number as strtol() reads it (blanks and a sign before it), or None."""
    if not (text.isascii() and text.isdigit()):
        text = text.lstrip(_SPACE)
        digits = text[1:] if text[:1] in ("+", "-") else text
        if not digits or not _DIGITS.issuperset(digits):
            return None
        if text[0] == "-" and digits.strip("0"):
            return None  # every range here begins at 0 or above
        text = digits
    if len(text) > 18:  # past any range once the zeros are gone, and int() refuses thousands of digits
        text = text.lstrip("0") or "0"
        if len(text) > 18:
            return None
    number = int(text)
    return number if low <= number <= high else None


def leading_number(text: str) -> int:
    """What atoi() makes of a text: the number it begins with, 0 without one."""
    text = text.lstrip(_SPACE)
    end = 1 if text[:1] in ("+", "-") else 0
    while end < len(text) and text[end] in _DIGITS and end < 20:
        end += 1
    return int(text[:end]) if text[:end].strip("+-") else 0


def to_address(text: str, names: Names) -> bytes | None:
    """An IPv4 address in any of inet_aton()'s forms, or of a host by name; None without one."""
    try:
        return socket.inet_aton(text)
    except (OSError, ValueError):
        return names.address(text)


def to_endpoint(text: str, protocol: int, names: Names) -> tuple[int, bytes, int | None] | None:
    """``ADDRESS[:PORT]`` as (family, address, port or None), or None where it is neither.

    IPv6 goes in brackets with a port, bare without one; in brackets without a port it
    is refused, as the real program does.
    """
    if (text.isascii() and text.isdigit()) or not text:
        return None
    if text[0] == "[":
        closing = text.find("]")
        if text[closing + 1 : closing + 2] != ":" or closing < 0:
            return None
        host, port_text = text[1:closing], text[closing + 2 :]
        address = _to_address6(host)
        if address is not None:
            return _with_port(AF_INET6, address, port_text, protocol, names)
        # The real program looks for the port once more, in what was between the brackets.
        text = host
    elif text.count(":") > 1:
        address = _to_address6(text)
        if address is not None:
            return AF_INET6, address, None
    colon = text.rfind(":")
    address = to_address(text if colon < 0 else text[:colon], names)
    if address is None:
        return None
    if colon < 0:
        return AF_INET, address, None
    return _with_port(AF_INET, address, text[colon + 1 :], protocol, names)


def _to_address6(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None


def _with_port(
    family: int, address: bytes, text: str, protocol: int, names: Names
) -> tuple[int, bytes, int] | None:
    port = to_number(text, 0, 65535)
    if port is None:
        port = names.port(text, protocol)
    return None if port is None else (family, address, port)
