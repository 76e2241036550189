"""Bytes written in hexadecimal, for UDP_CHECK: what is sent, and what an answer must be."""

from __future__ import annotations

import re

MOST = 65507  # bytes of an IPv4 datagram's payload
_DIGITS = re.compile("[0-9a-fA-F]+")
_PATTERN = re.compile("[0-9a-fA-FxX]+")


def octets(words: list[str]) -> bytes | None:
    """Bytes from words of hexadecimal digits, None where they are not.

    Digits pair up within a word; an odd last one is a byte by itself: "Ab1" is ab 01.
    """
    pairs = _pairs(words, _DIGITS)
    return None if pairs is None else bytes(int(pair, 16) for pair in pairs)


def pattern(words: list[str]) -> tuple[tuple[int, int], ...] | None:
    """As :func:`octets`, as pairs of value and mask; "x" stands for four bits of any value."""
    pairs = _pairs(words, _PATTERN)
    if pairs is None:
        return None
    return tuple(
        (
            int(pair.lower().replace("x", "0"), 16),
            int("".join("0" if digit in "xX" else "f" for digit in pair.rjust(2, "0")), 16),
        )
        for pair in pairs
    )


def _pairs(words: list[str], digits: re.Pattern[str]) -> list[str] | None:
    found: list[str] = []
    for word in " ".join(words).split():
        if not digits.fullmatch(word):
            return None
        found += [word[at : at + 2] for at in range(0, len(word), 2)]
    return found if 0 < len(found) <= MOST else None
