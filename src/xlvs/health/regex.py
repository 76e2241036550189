"""Regular expressions as keepalived's users write them (PCRE2), in terms of Python's ``re``.

What both spell alike, which is nearly all, passes through. What PCRE spells differently is translated;
what Python cannot do at all raises ValueError, with the construct's name, when the check is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_POSIX = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\t-\r ",
    "blank": r" \t",
    "punct": r"!-/:-@\[-`{-~",
    "xdigit": "0-9A-Fa-f",
    "word": r"\w",
    "cntrl": r"\x00-\x1f\x7f",
    "print": " -~",
    "graph": "!-~",
}
_ESCAPES = {
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "h": r"[ \t]",
    "H": r"[^ \t]",
    "R": r"(?:\r\n|\n|\r|\f|\x0b)",
    "N": r"[^\n]",
    "e": r"\x1b",
}
# Options that only change speed or what groups capture, and nobody asks what was captured.
_HARMLESS = frozenset(
    (
        *("allow_empty_class", "alt_bsux", "alt_circumflex", "alt_verbnames", "auto_callout", "dupnames"),
        *("match_unset_backref", "never_backslash_c", "never_ucp", "never_utf", "no_auto_capture"),
        *("no_auto_possess", "no_dotstar_anchor", "no_start_optimize", "ucp", "use_offset_limit", "utf"),
    )
)
_FLAGS = {
    "caseless": re.IGNORECASE,
    "multiline": re.MULTILINE,
    "dotall": re.DOTALL,
    "extended": re.VERBOSE,
}
_OTHERS = frozenset(("dollar_endonly", "ungreedy", "firstline"))

Search = Callable[[bytes, int, int], bool]


def compiled(pattern: str, options: Iterable[str] = ()) -> Search:
    """A search of ``pattern``: ``search(body, start, limit)``, True where a match begins in between.

    Both are offsets at which one may begin; ``limit`` 0 is no limit. Raises ValueError, saying what is
    wrong, for patterns or options that are not understood.
    """
    chosen = set(options)
    unknown = chosen - _HARMLESS - _FLAGS.keys() - _OTHERS
    if unknown:
        raise ValueError(f"unknown regex option {sorted(unknown)[0]}")
    flags = re.RegexFlag(0)
    for name in chosen & _FLAGS.keys():
        flags |= _FLAGS[name]
    text = _translated(pattern, endonly="dollar_endonly" in chosen, ungreedy="ungreedy" in chosen)
    try:
        program = re.compile(text.encode(), flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"regex '{pattern}': {error}") from None
    firstline = "firstline" in chosen

    def search(body: bytes, start: int, limit: int) -> bool:
        found = program.search(body, min(start, len(body)))
        if found is None or (limit and found.start() > limit):
            return False
        return not (firstline and b"\n" in body[: found.start()])

    return search


def _translated(pattern: str, *, endonly: bool, ungreedy: bool) -> str:
    out: list[str] = []
    place = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            piece, place = _escape(pattern, place)
            out.append(piece)
        elif character == "[":
            piece, place = _class(pattern, place)
            out.append(piece)
        elif pattern.startswith(("(?<", "(?'"), place) and pattern[place + 3 : place + 4] not in ("=", "!"):
            end = pattern.find(">" if pattern[place + 2] == "<" else "'", place + 3)
            if end < 0:
                raise ValueError(f"regex '{pattern}': a group's name has no end")
            out.append(f"(?P<{pattern[place + 3 : end]}>")
            place = end + 1
        elif pattern.startswith(("(?|", "(?R", "(?&", "(*"), place):
            raise ValueError(f"regex '{pattern}': {pattern[place : place + 3]} is not known")
        elif character == "(" and pattern.startswith("(?", place):
            out.append("(?")
            place += 2
        elif character == "$" and endonly:
            out.append(r"\Z")
            place += 1
        elif (quantifier := _QUANTIFIER.match(pattern, place)) and ungreedy:
            lazy = pattern[quantifier.end() : quantifier.end() + 1] == "?"
            out.append(quantifier[0] + ("" if lazy else "?"))
            place = quantifier.end() + lazy
        else:
            out.append(character)
            place += 1
    return "".join(out)


_QUANTIFIER = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")


def _escape(pattern: str, place: int) -> tuple[str, int]:
    """What an escape outside of a class comes to, and where it ends."""
    letter = pattern[place + 1 : place + 2]
    if letter == "Q":
        end = pattern.find(r"\E", place + 2)
        end = len(pattern) if end < 0 else end
        return re.escape(pattern[place + 2 : end]), end + 2
    if letter == "E":
        return "", place + 2
    if letter == "x" and pattern[place + 2 : place + 3] == "{":
        return _braced(pattern, place)
    if letter in ("K", "G", "X", "C", "p", "P"):
        raise ValueError(f"regex '{pattern}': \\{letter} is not known")
    return _ESCAPES.get(letter, "\\" + letter), place + 2


def _braced(pattern: str, place: int) -> tuple[str, int]:
    end = pattern.find("}", place)
    try:
        value = int(pattern[place + 3 : end], 16)
        character = bytes([value]) if value < 256 else chr(value).encode()
    except (ValueError, OverflowError):
        raise ValueError(f"regex '{pattern}': \\x{{ wants hexadecimal digits and a }}") from None
    return "".join(f"\\x{byte:02x}" for byte in character), end + 1


def _class(pattern: str, place: int) -> tuple[str, int]:
    """A bracketed class, its POSIX names spelt out, and where it ends."""
    out, start = ["["], place
    place += 1
    if pattern[place : place + 1] == "^":
        out.append("^")
        place += 1
    if pattern[place : place + 1] == "]":
        out.append(r"\]")
        place += 1
    while place < len(pattern) and pattern[place] != "]":
        if pattern.startswith("[:", place) and (end := pattern.find(":]", place)) > 0:
            name = pattern[place + 2 : end]
            if name not in _POSIX:
                raise ValueError(f"regex '{pattern}': no class [:{name}:]")
            out.append(_POSIX[name])
            place = end + 2
        elif pattern[place] == "\\":
            letter = pattern[place + 1 : place + 2]
            out.append(r" \t" if letter == "h" else r"\x1b" if letter == "e" else "\\" + letter)
            place += 2
        else:
            out.append("\\[" if pattern[place] == "[" else pattern[place])
            place += 1
    if place >= len(pattern):
        raise ValueError(f"regex '{pattern}': the class {pattern[start:]} has no end")
    return "".join(out) + "]", place + 1
