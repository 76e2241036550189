"""A line of configuration into its words, in keepalived's two ways, and its comments off."""

from __future__ import annotations

BLANKS = " \t\r\n\f\v"
_ESCAPES = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Unmatched(ValueError):
    """A quote was opened and not closed; ``words`` are those before it."""

    def __init__(self, words: list[str]) -> None:
        super().__init__("unmatched quote")
        self.words = words


def without_comment(text: str) -> tuple[str, bool]:
    """The line without its comment and outer blanks, and whether a double quote stays open.

    "!" and "#" begin a comment anywhere outside double quotes; a backslash protects what follows.
    """
    quoted = False
    at = 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == '"':
            quoted = not quoted
        elif character in "!#" and not quoted:
            text = text[:at]
            break
        at += 1
    return text.strip(BLANKS), quoted


def pieces(text: str) -> list[str]:
    """The statements of a line: it is cut behind each "{", and around each "}", outside quotes."""
    if "{" not in text and "}" not in text:
        return [text]
    result: list[str] = []
    begin = at = 0
    quoted = False
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == '"':
            quoted = not quoted
        elif character == "{" and not quoted:
            result.append(f"{text[begin:at].rstrip(BLANKS)} {{")
            begin = at + 1
        elif character == "}" and not quoted:
            result += [text[begin:at], "}"]
            begin = at + 1
        at += 1
    result.append(text[begin:])
    return [piece for piece in (part.strip(BLANKS) for part in result) if piece]


def split(text: str) -> list[str]:
    """Words parted by blanks; a double-quoted one is a word of its own, its quotes taken off.

    Raises :class:`Unmatched`.
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in BLANKS:
            at += 1
        elif text[at] == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise Unmatched(words)
            words.append(text[at + 1 : end])
            at = end + 1
        else:
            end = at
            while end < len(text) and text[end] not in BLANKS and text[end] != '"':
                end += 1
            words.append(text[at:end])
            at = end
    return words


def split_escaped(text: str) -> list[str]:
    """Words as a shell parts them: both quotes anywhere in a word, escapes in and outside quotes.

    Raises :class:`Unmatched`.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "\\" and at < len(text):
            value, at = _escape(text, at)
            word = word or []
            word.append(value)
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = word or []
                word.append(character)
        elif character in "\"'":
            quote = character
            word = word or []
        elif character in BLANKS:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word or []
            word.append(character)
    if quote:
        raise Unmatched(words)
    if word is not None:
        words.append("".join(word))
    return words


def _escape(text: str, at: int) -> tuple[str, int]:
    """What an escape means, its backslash read already, and where it ends."""
    character = text[at]
    if character in _ESCAPES:
        return _ESCAPES[character], at + 1
    if character == "x":
        end = at + 1
        while end < len(text) and text[end] in "0123456789abcdefABCDEF":
            end += 1
        return (chr(int(text[at + 1 : end], 16) & 0xFF), end) if end > at + 1 else ("x", end)
    if character in "01234567":
        end = at
        while end < min(len(text), at + 3) and text[end] in "01234567":
            end += 1
        return chr(int(text[at:end], 8) & 0xFF), end
    if character == "c" and at + 1 < len(text):
        return chr(ord(text[at + 1].upper()) & 0x1F), at + 2
    return character, at + 1
