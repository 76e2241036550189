"""Configuration text to statements: comments, includes, conditions, parameters, sequences, braces.

A reader yields one statement after another, because what a brace closes depends on whether the
keyword before it was known. Every way to multiply text has a limit, so that no input makes it grow.
"""

from __future__ import annotations

import posixpath
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from xlvs.keepalived.config import STATUS_MISSING, Message, Origin
from xlvs.keepalived.files import Files, braces
from xlvs.keepalived.words import BLANKS, pieces, without_comment

LONGEST = 8192  # characters of a line after substitution, and more than any line keepalived reads
DEEPEST = 64  # includes within each other, and expansions within each other
MOST_FILES = 100_000  # waiting to be read at once
MOST = 2_000_000  # lines of one configuration, everything expanded
_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
_PARAMETER = re.compile(
    r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)((?: +\d+){0,2}) *\}|([A-Za-z_][A-Za-z0-9_]*)(?=\s|\Z))"
)
_INCLUDE = re.compile(r"include([rmwba]?)[ \t]+(.*)\Z", re.DOTALL)
_BLOCK = re.compile(r"~(SEQx|SEQ|LST)\s*\(")
_WORD = re.compile(r"(\S*)\s*(.*)\Z", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
CHECKS = {"r": "readable", "m": "match", "w": "wildcard_match", "b": "brace_match"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: a keyword and its words, perhaps with "{" at its end, or "}" alone."""

    text: str
    origin: Origin


class TooMuch(Exception):
    """The configuration multiplies itself beyond every limit."""


@dataclass(slots=True)
class _Frame:
    """Lines to be read before those of the frame below. Expansions share their file's ``place``."""

    lines: Iterator[tuple[str, Origin]]
    place: _Place


@dataclass(slots=True)
class _Place:
    """What holds within one file: its directory, the include checks, how deep it was included."""

    directory: str
    checks: frozenset[str]
    depth: int


class Reader:
    """The statements of a file and of what it includes.

    ``complain`` gets every message of this layer. ``depth`` counts open braces. ``everything``: each
    ``include`` is checked as ``includea`` is.
    """

    def __init__(
        self,
        files: Files,
        config_id: str,
        complain: Callable[[Message], None],
        seed: int = 0,
        *,
        everything: bool = False,
    ) -> None:
        self.config_id = config_id
        self.depth = 0
        self.origin: Origin | None = None
        self._files = files
        self._complain = complain
        self._random = random.Random(seed)
        self._frames: list[_Frame] = []
        self._parameters: dict[str, list[str]] = {}
        self._place = _Place("", frozenset(CHECKS.values() if everything else ()), 0)
        self._count = 0

    def seed(self, seed: int) -> None:
        """What ${_RANDOM} draws from now on."""
        self._random = random.Random(seed)

    @property
    def checks(self) -> frozenset[str]:
        """The include checks in force in the file being read; a file begins with its includer's."""
        return self._place.checks

    @checks.setter
    def checks(self, checks: frozenset[str]) -> None:
        self._place.checks = checks

    def statements(self, path: str) -> Iterator[Statement]:
        """Every statement of the file ``path``; OSError where it cannot be read."""
        self._frames.append(self._file(path))
        while self._frames:
            line = self._next()
            if line is None:
                continue
            text, origin = line
            self.origin = origin
            for piece in pieces(text):
                if piece == "}":
                    self.depth -= 1
                    if self.depth < 0:
                        self.depth = 0
                        self._say(origin, "}", "Extra '}' found")
                elif piece.endswith("{"):
                    self.depth += 1
                yield Statement(piece, origin)
        if self.depth > 0:
            self._say(None, "{", f"There are {self.depth} missing '}}'s or extra '{{'s")

    # -- frames -------------------------------------------------------------------

    def _say(self, origin: Origin | None, word: str, text: str) -> None:
        self._complain(Message(origin, word, text))

    def _push(self, lines: Iterable[tuple[str, Origin]]) -> None:
        if len(self._frames) >= 4 * DEEPEST:
            raise TooMuch("expansions within expansions without end")
        self._frames.append(_Frame(iter(lines), self._place))

    def _file(self, path: str) -> _Frame:
        text = self._files.read(path)
        depth = self._place.depth + 1
        if depth > DEEPEST:
            raise TooMuch(f"{path}: included too deep")
        place = _Place(self._files.directory(path), self._place.checks, depth)
        return _Frame(self._file_lines(path, text), place)

    @staticmethod
    def _file_lines(path: str, text: str) -> Iterator[tuple[str, Origin]]:
        for number, line in enumerate(text.split("\n"), 1):
            yield line, Origin(path, number)

    def _raw(self, *, blank: bool = False) -> tuple[str, Origin] | None:
        """The next line, its comment off; None where a frame has ended. Without ``blank`` none is empty."""
        while self._frames:
            frame = self._frames[-1]
            self._place = frame.place
            line = next(frame.lines, None)
            if line is None:
                self._frames.pop()
                return None
            self._count += 1
            if self._count > MOST:
                raise TooMuch(f"more than {MOST} lines")
            text, open_quote = without_comment(line[0])
            if open_quote:
                self._say(line[1], text, f"Unterminated quote '{text}'")
            if text or (blank and not line[0].strip(BLANKS)):
                return text, line[1]
        return None

    # -- one line -----------------------------------------------------------------

    def _next(self) -> tuple[str, Origin] | None:
        """A whole line, everything done to it; None where it was a definition or the like."""
        line = self._raw()
        if line is None:
            return None
        text, origin = line
        if self._include(text, origin):
            return None
        for _ in range(DEEPEST):
            if text.startswith("@"):
                text = self._condition(text)
                if not text:
                    return None
                continue
            definition = _DEFINITION.match(text)
            if definition:
                self._define(definition[1], definition[2])
                return None
            if text.startswith("~") and self._block(text, origin):
                return None
            replaced = self._replace(text, origin)
            if replaced == text:
                return (text, origin) if text else None
            text = replaced.strip(BLANKS)
            if not text:
                return None
        self._say(origin, text[:80], f"Parameter substitution without end in '{text[:80]}'")
        return None

    def _condition(self, text: str) -> str:
        """What follows a condition that holds; "" for one that does not."""
        word, rest = _WORD.match(text, 1).groups()  # type: ignore[union-attr]
        holds = word[1:] != self.config_id if word.startswith("^") else word == self.config_id
        return rest.strip(BLANKS) if holds else ""

    def _define(self, name: str, value: str) -> None:
        value = value.strip(BLANKS)
        lines = [value]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1].strip(BLANKS)
            following = self._raw(blank=True)
            if following is None or not following[0]:
                break
            lines.append(following[0])
        self._parameters[name] = [line for line in lines if line] or [""]

    def _replace(self, text: str, origin: Origin) -> str:
        """The line with its first parameters replaced; a definition of many lines is queued behind."""
        if "$" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[3]
            if name.startswith("_"):
                special = self._special(name, match[2] or "")
                if special is not None:
                    return special
            lines = self._parameters.get(name)
            if lines is None or (match[2] or "").strip():
                return match[0]
            if len(lines) > 1:
                if match.end() != len(text):
                    return match[0]
                self._push([(line, origin) for line in lines[1:]])
            return lines[0]

        result = _PARAMETER.sub(value, text)
        if len(result) > LONGEST:
            self._say(origin, text[:80], f"Line too long after substitution: '{text[:80]}'")
            return ""
        return result

    def _special(self, name: str, limits: str) -> str | None:
        if name == "_PWD":
            return self._place.directory
        if name == "_INSTANCE":
            return self.config_id
        if name in ("_HASH", "_BANG"):
            return "#" if name == "_HASH" else "!"
        if name == "_RANDOM":
            low, high = (*map(int, limits.split()), *(0, 32767)[len(limits.split()) :])
            return str(self._random.randint(min(low, high), max(low, high)))
        return None

    # -- ~SEQ and ~LST ------------------------------------------------------------

    def _block(self, text: str, origin: Origin) -> bool:
        """Queue what a sequence or list stands for; False where the line is none."""
        match = _BLOCK.match(text)
        if match is None:
            return False
        kind = match[1][:3]
        end = _closing(text, match.end())
        try:
            if end < 0:
                raise ValueError("no closing parenthesis")
            inside, rest = text[match.end() : end], text[end + 1 :].strip(BLANKS)
            rounds = _listed(inside) if kind == "LST" else _sequence(inside, match[1] == "SEQx")
        except ValueError:
            self._say(origin, text, f"Invalid ~{kind} specification '{text}'")
            return True
        if rest:
            self._push(self._rounds(rounds, rest, origin))
        return True

    def _rounds(
        self, rounds: Iterable[dict[str, str]], rest: str, origin: Origin
    ) -> Iterator[tuple[str, Origin]]:
        for values in rounds:
            self._parameters.update((name, [value]) for name, value in values.items())
            yield rest, origin

    # -- include ------------------------------------------------------------------

    def _include(self, text: str, origin: Origin) -> bool:
        match = _INCLUDE.match(text)
        if match is None:
            return False
        checks = self.checks | frozenset(
            CHECKS.values() if match[1] == "a" else [CHECKS[match[1]]] if match[1] else ()
        )
        pattern = match[2]
        wild = any(character in pattern for character in "*?[")
        found: list[_Frame] = []
        for part in braces(pattern):
            absolute = posixpath.join(self._place.directory, part)
            paths = self._files.glob(absolute) if any(c in part for c in "*?[") else [absolute]
            if not paths and "wildcard_match" in checks:
                self._missing(origin, f"No config files matched '{pattern}'.", checks)
            for path in paths:
                try:
                    found.append(self._file(path))
                except OSError:
                    if wild or "{" not in pattern or "brace_match" in checks:
                        self._missing(origin, f"Config files missing '{pattern}'.", checks)
        if len(self._frames) + len(found) > MOST_FILES:
            raise TooMuch(f"'{pattern}' includes more than {MOST_FILES} files")
        self._frames += reversed(found)
        return True

    def _missing(self, origin: Origin, text: str, checks: frozenset[str]) -> None:
        """keepalived does not run without a file that it was told to check for."""
        status = STATUS_MISSING if checks else 0
        self._complain(Message(origin, "include", text, fatal=bool(checks), status=status))


def _closing(text: str, at: int) -> int:
    """Where the parenthesis ends that was opened before ``at``, or -1."""
    return text.find(")", at)


def _number(text: str) -> int:
    if not re.fullmatch(r"[ \t]*[-+]?(0[xX][0-9a-fA-F]+|[0-9]+)[ \t]*", text):
        raise ValueError(text)
    return int(text, 0) if "x" in text.lower() else int(text)


def _sequence(inside: str, hexadecimal: bool) -> Iterator[dict[str, str]]:
    """The rounds of "var, start, step, end", where start and step may be left out."""
    name, *words = inside.split(",")
    name = name.strip(BLANKS)
    numbers = [_number(word) for word in words]
    if not _NAME.match(name) or not 1 <= len(numbers) <= 3:
        raise ValueError(inside)
    end = numbers[-1]
    start = numbers[0] if len(numbers) > 1 else (1 if end > 0 else -1)
    step = numbers[1] if len(numbers) == 3 else (1 if end >= start else -1)
    if step == 0 or (end - start) * step < 0:
        raise ValueError(inside)
    values = range(start, end + (1 if step > 0 else -1), step)
    if len(values) > MOST:
        raise TooMuch(f"~SEQ({inside}) has more than {MOST} rounds")
    form = (lambda n: f"{n:x}") if hexadecimal else str
    return ({name: form(number)} for number in values)


def _listed(inside: str) -> Iterator[dict[str, str]]:
    """The rounds of "var, value, ..." or "{var, ...}, {value, ...}, ..."."""
    groups = [
        [word.strip(BLANKS) for word in (match[1].split(",") if match[1] is not None else [match[2]])]
        for match in re.finditer(r"\s*(?:\{([^{}]*)\}|([^,{}]*))\s*(?:,|\Z)", inside)
        if match.start() < len(inside)
    ]
    if len(groups) < 2 or not all(_NAME.match(name) for name in groups[0]):
        raise ValueError(inside)
    names = groups[0]
    if any(len(group) > len(names) for group in groups[1:]):
        raise ValueError(inside)
    return (
        dict(zip(names, [*group, *[""] * (len(names) - len(group))], strict=True)) for group in groups[1:]
    )
