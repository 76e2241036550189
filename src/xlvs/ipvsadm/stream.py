"""The lines that ``-R`` reads, cut into arguments as the real program cuts them."""

from __future__ import annotations

from collections.abc import Iterator

_WORD = 4096  # bytes of a word in the real program: what goes on is another word
_BLANKS = {ord("\t"): " ", ord("\r"): " "}


def command_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and arguments, without empty lines.

    There are no quotes and no remarks: ``#`` is an argument like any other. A word
    ``ipvsadm`` is left out wherever it stands, so that scripts can be fed as they are.
    """
    lines = text.split("\n")
    # The real program loses a last line that has no line end but two blanks.
    if len(lines[-1]) - len(lines[-1].rstrip(" \t\r")) > 1:
        del lines[-1]
    for number, line in enumerate(lines, 1):
        found = line.translate(_BLANKS).split(" ")
        if len(line) * 4 > _WORD:  # characters have four bytes at most
            found = [piece for word in found for piece in _pieces(word)]
        words = [word for word in found if word and word != "ipvsadm"]
        if words:
            # What C would not see, behind a zero byte, is not there for us either.
            yield number, [word.partition("\0")[0] for word in words] if "\0" in line else words


def _pieces(word: str) -> list[str]:
    data = word.encode("utf-8", "surrogateescape")
    cuts = range(0, len(data), _WORD)
    return [data[start : start + _WORD].decode("utf-8", "surrogateescape") for start in cuts]
