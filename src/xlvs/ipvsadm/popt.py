"""Scanning a command line as libpopt 1.19 does it, as far as ipvsadm uses libpopt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xlvs.ipvsadm.options import FIRST, NONE, OPTIONAL, Option


class ScanError(Exception):
    """An argument that cannot be scanned; ``str()`` is libpopt's words with the argument."""


class Scanner:
    """Gives the options of ``arguments`` (without the program's name) one after the other.

    ``argument`` is the one that the last option came from, whole. What is no option
    collects in ``leftovers``. ``vocabulary`` is what is known from here on; whoever has read
    the command may change it.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.leftovers: list[str] = []
        self.argument = ""
        self.vocabulary = FIRST
        self._arguments = arguments
        self._next = 0

    def options(self) -> Iterator[tuple[Option, str | None]]:
        """Options and their values; raises :class:`ScanError` where one makes no sense."""
        arguments = self._arguments
        while self._next < len(arguments):
            argument = self.argument = arguments[self._next]
            self._next += 1
            if argument[:1] != "-" or argument == "-":
                self.leftovers.append(argument)
            elif argument == "--":
                self.leftovers.extend(arguments[self._next :])
                return
            elif argument[1] == "-":
                yield self._long(argument)
            else:
                yield from self._shorts(argument)

    def _long(self, argument: str) -> tuple[Option, str | None]:
        name, equals, value = argument[2:].partition("=")
        option = self.vocabulary.long.get(name)
        if option is None:
            raise self._error("unknown option")
        if option.value == NONE:
            if equals:
                raise self._error("option does not take an argument")
            return option, None
        return option, value if equals else self._following(option)

    def _shorts(self, argument: str) -> Iterator[tuple[Option, str | None]]:
        """Letters in a bunch: the first that takes a value takes the rest of the argument."""
        position = 1
        while position < len(argument):
            option = self.vocabulary.short.get(argument[position])
            if option is None:
                raise self._error("unknown option")
            position += 1
            rest = argument[position:]
            if option.value != NONE:
                yield option, (rest[1:] if rest[0] == "=" else rest) if rest else self._following(option)
                return
            if rest[:1] == "=":
                raise self._error("option does not take an argument")
            yield option, None

    def _following(self, option: Option) -> str | None:
        """The next argument as a value; an optional value is not one that looks like an option."""
        if self._next == len(self._arguments):
            if option.value == OPTIONAL:
                return None
            raise self._error("missing argument")
        value = self._arguments[self._next]
        if option.value == OPTIONAL and value[:1] == "-":
            return None
        self._next += 1
        # libpopt names the last argument it took, so that is the one in messages.
        self.argument = value
        return value

    def _error(self, reason: str) -> ScanError:
        return ScanError(f"{self.argument}: {reason}")
