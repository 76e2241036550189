"""How a command line gets its final form: what is forgotten, given twice or mistyped, and spellings."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.conformance.fuzz.vocabulary import COMMANDS, OPTIONS, SPELLINGS, VALUES, Item, Line


class Typist:
    """Types command lines; ``accidents`` is the share of those that go wrong, more or less."""

    def __init__(self, source: random.Random, accidents: float) -> None:
        self._random = source
        self._accidents = accidents
        self._last = ""  # the option typed before

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def any_options(self, most: int) -> Line:
        """Options that need not make sense, ``most`` of them at most."""
        return [self._any_option() for _ in range(self._random.randint(0, most))]

    def _any_option(self) -> Item:
        option = self._random.choice(OPTIONS)
        value = SPELLINGS[option][2]
        if value == 1 or (value == 2 and self._chance(0.5)):
            return Item(option, self._random.choice(VALUES[option]))
        return Item(option)

    def accident(self, items: Line) -> Line:
        """Leave an option out, give one too many, twice, at the wrong place, or with another value."""
        items = list(items)
        while items and self._chance(self._accidents * 0.6):
            place = self._random.randrange(len(items))
            kind = self._random.randrange(12)
            if kind < 2:
                del items[place]
            elif kind < 6:
                items.insert(self._random.randint(1, len(items)), self._any_option())
            elif kind < 7:
                items.insert(self._random.randint(1, len(items)), items[place])
            elif kind < 8:
                items.append(items.pop(place))
            elif kind < 11:
                values = VALUES.get(items[place].option)
                if values:
                    items[place] = items[place]._replace(value=self._random.choice(values))
            else:
                option = self._random.choice(COMMANDS)
                items[place] = Item(option, self._random.choice(VALUES.get(option, ("",))))
        return items

    def spell(self, items: Iterable[Item]) -> list[str]:
        """The arguments as they are typed: long or short, apart or together, with slips."""
        arguments: list[str] = []
        for item in items:
            words_ = self._spell_item(item)
            # Letters in a bunch, as in -Ln.
            bunch = (
                len(arguments) > 0
                and len(arguments[-1]) == 2
                and arguments[-1][0] == "-"
                and SPELLINGS.get(self._last, ("", "", 1))[2] == 0
                and len(words_[0]) == 2
                and words_[0][0] == "-"
            )
            if bunch and self._chance(0.4):
                arguments[-1] += words_[0][1:]
                arguments += words_[1:]
            else:
                arguments += words_
            self._last = item.option
        while self._chance(self._accidents * 0.12):
            self._slip(arguments)
        return arguments

    def _spell_item(self, item: Item) -> list[str]:
        if not item.option:
            return [item.value or ""]
        long, short, takes = SPELLINGS[item.option]
        letter = short if short and self._chance(0.75) else ""
        if item.option == "list" and letter and self._chance(0.2):
            letter = "l"
        if takes == 0 or item.value is None:
            return [f"-{letter}"] if letter else [f"--{long}"]
        style = self._random.choices((0, 1, 2), (80, 12, 8))[0]
        if takes == 2 and style == 0 and self._chance(0.1):
            style = 1
        if letter:
            return ([f"-{letter}", item.value], [f"-{letter}{item.value}"], [f"-{letter}={item.value}"])[
                style
            ]
        return ([f"--{long}", item.value], [f"--{long}={item.value}"], [f"--{long}={item.value}"])[style]

    def _slip(self, arguments: list[str]) -> None:
        """A slip of the fingers."""
        kind = self._random.randrange(8)
        place = self._random.randint(0, len(arguments))
        if kind == 0:
            arguments.insert(
                place, self._random.choice(("", "-", "--", "foo", "80", "é", "10.0.0.1:80", "-q"))
            )
            return
        if not arguments:
            return
        place = min(place, len(arguments) - 1)
        text = arguments[place]
        if kind == 1:
            del arguments[place]
        elif kind == 2:
            arguments[place] = text[:-1]
        elif kind == 3:
            arguments[place] = text + self._random.choice("x-= 7")
        elif kind == 4 and len(text) > 2:
            at = self._random.randrange(1, len(text))
            arguments[place] = text[:at] + text[at + 1 :]
        elif kind == 5:
            arguments[place] = "-" + text
        elif kind == 6:
            arguments[place] = text * self._random.choice((2, 5, 20))
        elif kind == 7:
            arguments[place] = text.upper()

    def odd_text(self, text: str) -> str:
        """A line for -R with something about it."""
        return self._random.choice(
            (
                f"# {text}",
                f"ipvsadm {text}",
                f"  {text}\t ",
                "",
                "#",
                f"{text} # why",
                f"\t{text}  ",
                f"'{text}'",
            )
        )
