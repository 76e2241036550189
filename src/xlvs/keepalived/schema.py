"""How keywords are declared, and how a block's statements find theirs.

A table maps the keywords of a block to rows. Most rows are one line: keyword, field, kind of value.
A block's values gather in a :class:`Draft`, which its ``close`` turns into a typed value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xlvs.keepalived.config import STATUS_FATAL, STATUS_REFUSED, Message, Origin
from xlvs.keepalived.host import Host
from xlvs.keepalived.reader import Reader, Statement
from xlvs.keepalived.words import Unmatched, split, split_escaped

MOST_MESSAGES = 20_000


class Refused(Exception):
    """A value is not accepted: the keyword keeps its default, the text is told."""


class Fatal(Exception):
    """The configuration cannot be read on (the message has been told)."""


@dataclass(slots=True)
class Draft:
    """A block while it is being read: its values by field, and where each keyword was written."""

    kind: str
    name: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    parent: Draft | None = None
    origin: Origin | None = None
    dropped: bool = False  # read for its messages only: its close is not called
    skipped: bool = False  # not even read

    def add(self, name: str, value: object) -> None:
        """Append to a field that is a list."""
        self.values.setdefault(name, []).append(value)

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or what it is without the keyword."""
        return self.values.get(name, default)


@dataclass(slots=True)
class Line:
    """A statement on its way to its row: ``words`` begins with the keyword, braces taken off."""

    parser: Parser
    draft: Draft
    text: str
    words: list[str]
    origin: Origin
    opened: bool

    @property
    def keyword(self) -> str:
        return self.words[0]

    def word(self, index: int = 1) -> str:
        """The word at ``index`` (0: the keyword); without it the whole configuration is refused."""
        if index < len(self.words) and not (self.opened and self.words[index] == "{"):
            return self.words[index]
        words = [self.words[0], *self.names]
        raise self.fatal(
            f"*** Configuration line starting `{words[0]}` is missing a parameter after keyword "
            f"`{words[-1]}` at word position {len(words) + 1}"
        )

    @property
    def names(self) -> list[str]:
        """The words between the keyword and the brace of its block."""
        return self.words[1:-1] if self.opened and self.words[-1] == "{" else self.words[1:]

    def shell(self) -> list[str]:
        """The words as a shell would part them (scripts, passwords, names with escapes)."""
        try:
            return split_escaped(self.text)
        except Unmatched as error:
            self.warn(f"Unmatched quote: '{self.text}'")
            return error.words or [self.words[0]]

    def warn(self, text: str, status: int = STATUS_REFUSED) -> None:
        """Tell a message about this line."""
        self.parser.tell(Message(self.origin, self.words[0] if self.words else "", text, status=status))

    def fatal(self, text: str) -> Fatal:
        """Tell a message, and give the exception that ends reading."""
        self.parser.tell(Message(self.origin, self.words[0], text, fatal=True, status=STATUS_FATAL))
        return Fatal(text)


Handler = Callable[[Line], None]
Value = Callable[[Line], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """What a keyword does. With ``block`` it opens one: ``open`` gives its draft, ``close`` ends it."""

    handle: Handler | None = None
    block: Mapping[str, Row] | None = None
    open: Callable[[Line], Draft] | None = None
    close: Callable[[Parser, Draft], None] | None = None


Table = Mapping[str, Row]


def value(name: str, kind: Value) -> Row:
    """``keyword VALUE``: sets field ``name`` to what ``kind`` makes of the line."""

    def handle(line: Line) -> None:
        line.draft.values[name] = kind(line)
        line.draft.origins[name] = line.origin

    return Row(handle)


def once(name: str, kind: Value, told: str) -> Row:
    """As :func:`value`, but a second one is ignored; ``told`` is a format of block and word."""

    def handle(line: Line) -> None:
        if name in line.draft.values:
            line.warn(told.format(block=line.draft.name, word=line.words[1] if len(line.words) > 1 else ""))
            return
        line.draft.values[name] = kind(line)
        line.draft.origins[name] = line.origin

    return Row(handle)


def flag(name: str, meaning: object = True) -> Row:
    """A keyword without a value: sets the field to ``meaning``."""
    return value(name, lambda _line: meaning)


def entries(each: Handler, name: str = "") -> Row:
    """A block of free lines, each given to ``each``; ``name``: the field whose origin it is."""

    def handle(line: Line) -> None:
        if name:
            line.draft.values.setdefault(name, [])
            line.draft.origins[name] = line.origin
        for entry in line.parser.entries(line):
            each(entry)

    return Row(handle)


def block(table: Table, open_: Callable[[Line], Draft], close: Callable[[Parser, Draft], None]) -> Row:
    """A block with keywords of its own."""
    return Row(None, table, open_, close)


class Parser:
    """Reads a whole configuration through its tables. ``top`` gathers what stands outside blocks."""

    def __init__(self, reader: Reader, host: Host, messages: list[Message]) -> None:
        self.reader = reader
        self.host = host
        self.messages = messages
        self.top = Draft("configuration")
        self._statements: Iterator[Statement] = iter(())
        self._again: Statement | None = None

    def tell(self, message: Message) -> None:
        """Keep a message; raises Fatal once there are more than anybody reads."""
        self.messages.append(message)
        if len(self.messages) == MOST_MESSAGES:
            text = f"{MOST_MESSAGES} messages: this is no configuration"
            self.messages.append(Message(message.origin, "", text, fatal=True, status=STATUS_FATAL))
            raise Fatal(text)

    def run(self, path: str, table: Table) -> None:
        """Read ``path`` and everything it includes; raises Fatal, OSError."""
        self._statements = self.reader.statements(path)
        self._block(table, self.top)

    def warn(self, draft: Draft, text: str, status: int = STATUS_REFUSED) -> None:
        """Tell a message about a whole block."""
        self.tell(Message(draft.origin, draft.name, text, status=status))

    def missing_link(self, line: Line, text: str) -> None:
        """Tell of an interface that is not there: in the end dynamic_interfaces decides what it means."""
        self.top.add("missing_links", (line.origin, text))

    # -- statements ---------------------------------------------------------------

    def _next(self) -> Statement | None:
        if self._again is not None:
            statement, self._again = self._again, None
            return statement
        return next(self._statements, None)

    def _line(self, statement: Statement, draft: Draft) -> Line:
        text, opened = statement.text, False
        if text.endswith("{"):
            text, opened = text[:-1].rstrip(), True
        try:
            words = split(text)
        except Unmatched as error:
            self.tell(Message(statement.origin, text, f"Unmatched quote: '{text}'"))
            words = error.words
        return Line(self, draft, text, words, statement.origin, opened)

    def _block(self, table: Table, draft: Draft) -> None:
        """Statements up to the brace that closes the block (at the top: to the end)."""
        while (statement := self._next()) is not None:
            if statement.text == "}" and draft is not self.top:
                return
            line = self._line(statement, draft)
            if not line.words:
                if line.opened:
                    line.warn("Unexpected '{' - ignoring")
                continue
            row = table.get(line.keyword)
            if row is None:
                line.warn(f"Unknown keyword '{line.keyword}'")
                if line.opened:
                    line.warn("Unexpected '{' - ignoring")
                continue
            self._row(row, line)

    def _row(self, row: Row, line: Line) -> None:
        if row.block is not None and row.open is not None:
            draft = row.open(line)
            draft.parent, draft.origin = line.draft, line.origin
            opened = self.opened(line)
            if not opened and self._again is not None:
                line.warn("Missing '{' at beginning of configuration block")
            if draft.skipped and opened:
                self._skip()
                return
            draft.dropped = draft.dropped or draft.skipped
            self._block(row.block, draft)
            if row.close is not None and not draft.dropped:
                row.close(self, draft)
            return
        assert row.handle is not None
        if line.opened:  # a word like any other, unless the keyword has a block: see opened()
            line.words.append("{")
            line.text += " {"
        try:
            row.handle(line)
        except Refused as refusal:
            line.warn(str(refusal))

    def _skip(self) -> None:
        """Pass over the rest of a block unseen."""
        depth = 1
        while depth and (statement := self._next()) is not None:
            depth += statement.text.endswith("{") - (statement.text == "}")

    def opened(self, line: Line) -> bool:
        """Take the brace that begins the block of this line, here or in the next statement."""
        if line.opened:
            if line.words[-1] == "{":
                line.words.pop()
            line.opened = False
            return True
        following = self._next()
        if following is not None and following.text == "{":
            return True
        self._again = following
        return False

    def entries(self, line: Line, *, named: bool = False) -> Iterator[Line]:
        """The lines of a block of free entries, which may do without its opening brace.

        ``named``: the keyword has words of its own; others are told to be too many.
        """
        if line.names and not named:
            line.warn(f"Block {line.keyword} has extra parameters {line.names[0]} ...")
        # keepalived's other processes do not know the block, and nothing tells them to pass over it.
        unseen = not self.opened(line) and line.draft is self.top
        while (statement := self._next()) is not None:
            if statement.text == "}":
                return
            entry = self._line(statement, line.draft)
            if entry.opened and entry.words:
                entry.words.append("{")
            if entry.words:
                if unseen:
                    entry.warn(f"Unknown keyword '{entry.words[0]}'")
                    unseen = False
                yield entry
