"""Kinds of values: what a keyword's words may be. Each raises Refused with keepalived's own words."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, NetmaskValueError, ip_address, ip_interface

from xlvs.health.checks import Address, Script
from xlvs.keepalived.config import Interface
from xlvs.keepalived.schema import Line, Refused, Value
from xlvs.keepalived.words import Unmatched, split_escaped

TRUE = ("true", "on", "yes")
FALSE = ("false", "off", "no")
FOREVER = 2**32 - 1


def number(line: Line, text: str, low: int, high: int, *, told: bool = True) -> int | None:
    """An integer in [low, high], or None; ``told``: the reason is told."""
    try:
        if not re.fullmatch(r"[-+]?[0-9]+", text):
            raise ValueError(text)
        result = int(text)
    except ValueError:
        if told:
            line.warn(f"invalid number '{text}'")
        return None
    if low >= 0 and text.startswith("-"):
        if told:
            line.warn(f"negative number '{text}'")
        return None
    if not low <= result <= high:
        if told:
            line.warn(f"number '{text}' {_outside(result, low, high)}")
        return None
    return result


def _outside(result: int, low: int, high: int) -> str:
    """In keepalived's words: what C could hold is told before what the keyword allows."""
    if low >= 0 and result >= 2**32:
        return "outside unsigned integer range"
    if low < 0 and not -(2**31) <= result < 2**31:
        return "outside integer range"
    return f"outside range [{low}, {high}]"


def integer(low: int, high: int, refusal: str = "{keyword} '{word}' invalid - ignoring") -> Value:
    """``keyword N``. ``refusal`` is a format of keyword, word and block."""

    def kind(line: Line) -> int:
        result = number(line, line.word(), low, high)
        if result is None:
            raise Refused(refusal.format(keyword=line.keyword, word=line.word(), block=line.draft.name))
        return result

    return kind


_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)\Z")


def seconds(
    low: float, high: float, refusal: str = "{keyword} '{word}' invalid - ignoring", *, unit: float = 1.0
) -> Value:
    """``keyword TIMER``: a decimal number of ``unit`` seconds, to a microsecond, as seconds."""

    def kind(line: Line) -> float:
        return decimal(line, line.word(), low, high, refusal, unit=unit)

    return kind


def decimal(line: Line, text: str, low: float, high: float, refusal: str, *, unit: float = 1.0) -> float:
    """A decimal number of ``unit`` seconds in [low, high] units, as seconds; raises Refused."""
    problem = ""
    digits = 6 if unit == 1.0 else 3  # to a microsecond
    if not _DECIMAL.match(text) or len(text) > 40:
        problem = f"invalid number '{text}'"
    elif text.startswith("-"):
        problem = f"negative number '{text}'"
    elif not low <= float(text) <= high:
        problem = f"number '{text}' outside range [{low:.{digits}f}, {high:.{digits}f}]"
    if problem:
        line.warn(problem)
        raise Refused(refusal.format(keyword=line.keyword, word=text, block=line.draft.name))
    if unit == 1 and len(text.partition(".")[2]) > 6:
        line.warn(f"number '{text}' has too many decimal places")
        return round(float(text), 6)
    return round(float(text) * unit, 9)


def boolean(refusal: str = "Invalid value '{word}' for {keyword} specified", missing: bool = True) -> Value:
    """``keyword [BOOL]``: without one it is ``missing``."""

    def kind(line: Line) -> bool:
        if len(line.words) < 2:
            return missing
        if line.words[1] in TRUE:
            return True
        if line.words[1] in FALSE:
            return False
        raise Refused(refusal.format(keyword=line.keyword, word=line.words[1], block=line.draft.name))

    return kind


def text(line: Line) -> str:
    """``keyword WORD``, as it stands."""
    return line.word()


def escaped(line: Line) -> str:
    """``keyword WORD`` with a shell's quotes and escapes."""
    words = line.shell()
    return words[1] if len(words) > 1 else line.word()


def longest(limit: int, refusal: str = "Interface name '{word}' too long - ignoring") -> Value:
    """``keyword WORD`` of at most ``limit`` bytes."""

    def kind(line: Line) -> str:
        if len(line.word().encode(errors="surrogateescape")) > limit:
            raise Refused(refusal.format(keyword=line.keyword, word=line.word(), block=line.draft.name))
        return line.word()

    return kind


def choice(words: tuple[str, ...], refusal: str) -> Value:
    """``keyword WORD``, one of ``words``."""

    def kind(line: Line) -> str:
        if line.word() not in words:
            raise Refused(refusal.format(keyword=line.keyword, word=line.word(), block=line.draft.name))
        return line.word()

    return kind


def parse_address(word: str) -> Address | None:
    """An address without a prefix length, or None. A scope ("%eth0") is not part of it."""
    try:
        return ip_address(word)
    except ValueError:
        return None


def parse_interface(word: str) -> Interface | None:
    """An address with or without "/prefix", or None."""
    head, slash, prefix = word.partition("/")
    plain = parse_address(head)
    if plain is None:
        return None
    if slash and not re.fullmatch(r"[0-9]{1,3}", prefix):
        return None
    try:
        result = ip_interface(f"{plain}/{int(prefix)}" if slash else str(plain))
    except (AddressValueError, NetmaskValueError, ValueError):
        return None
    return result


def address(refusal: str, family: int = 0) -> Value:
    """``keyword ADDRESS``; ``family`` 4 or 6 allows one only."""

    def kind(line: Line) -> IPv4Address | IPv6Address:
        result = parse_address(line.word())
        if result is None or (family and result.version != family):
            raise Refused(refusal.format(keyword=line.keyword, word=line.word(), block=line.draft.name))
        return result

    return kind


def script(line: Line, index: int = 1) -> Script:
    """``keyword SCRIPT [USER [GROUP]]``: the script is one word, quoted where it has arguments."""
    try:
        words = split_escaped(line.text)
    except Unmatched:
        raise Refused(f"String '{line.text}': missing terminating \"") from None
    if len(words) <= index:
        line.word(index)
        raise Refused(f"{line.keyword}: no script given - ignoring")
    try:
        arguments = split_escaped(words[index])
    except Unmatched:
        raise Refused(f"String '{words[index]}': missing terminating \"") from None
    if not arguments:
        raise Refused(f"{line.keyword}: no script given - ignoring")
    user = words[index + 1] if len(words) > index + 1 else None
    group = words[index + 2] if len(words) > index + 2 else None
    return Script(tuple(arguments), user, group)
