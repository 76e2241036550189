"""Local addresses as they are typed: lists of addresses, ranges and prefixes; and written back in short."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from xlvs.ipvsadm.request import fail

MOST = 1 << 17  # addresses of one command: all that an engine has room for
_WORD = 3000  # bytes of a list that is written; -R reads 4096 of a word


def parse(text: str) -> list[bytes]:
    """The addresses of ``A[-B][,...]`` and ``A/BITS`` in their order; raises ``Quit`` with the reason.

    A range has both its ends. A prefix stands for the addresses that hosts of such a network can
    have: not IPv4's network and broadcast address (but for /31 and /32), not IPv6's first
    (the routers' anycast address; but for /127 and /128).
    """
    found: list[bytes] = []
    for part in text.split(","):
        first, last, size = _bounds(part)
        if last - first + len(found) >= MOST:
            raise fail(f"more than {MOST} local addresses specified: `{part}'")
        found += [number.to_bytes(size, "big") for number in range(first, last + 1)]
    return found


def written(addresses: Iterable[bytes]) -> Iterator[str]:
    """Lists of ranges that :func:`parse` reads back in the same order, none too long a word for ``-R``."""
    parts: list[str] = []
    length = 0
    for first, last in _runs(addresses):
        part = _text(first) if first == last else f"{_text(first)}-{_text(last)}"
        if parts and length + len(part) > _WORD:
            yield ",".join(parts)
            parts, length = [], 0
        parts.append(part)
        length += len(part) + 1
    if parts:
        yield ",".join(parts)


def _bounds(part: str) -> tuple[int, int, int]:
    """First and last address as numbers, and their bytes."""
    if "/" in part:
        return _prefix(part)
    low, dash, high = part.partition("-")
    first = _address(low, part)
    last = _address(high, part) if dash else first
    if len(first) != len(last) or last < first:
        raise _illegal(part)
    return int.from_bytes(first, "big"), int.from_bytes(last, "big"), len(first)


def _prefix(part: str) -> tuple[int, int, int]:
    text, _, length = part.partition("/")
    address = _address(text, part)
    whole = 8 * len(address)
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= whole):
        raise _illegal(part)
    host_bits = whole - int(length)
    first = int.from_bytes(address, "big")
    last = first | (1 << host_bits) - 1
    if first & (1 << host_bits) - 1:
        raise fail(f"local addresses `{part}' have bits set behind the prefix")
    if host_bits > 1:
        first += 1
        last -= len(address) == 4
    return first, last, len(address)


def _address(text: str, part: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise _illegal(part) from None


def _illegal(part: str) -> Exception:
    return fail(f"illegal local address specified: `{part}'")


def _runs(addresses: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """First and last of each stretch of addresses that follow each other."""
    first = last = b""
    for address in addresses:
        number = int.from_bytes(last, "big") + 1
        if last and len(address) == len(last) and int.from_bytes(address, "big") == number:
            last = address
            continue
        if last:
            yield first, last
        first = last = address
    if last:
        yield first, last


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
