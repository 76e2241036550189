"""What is asked of a scheduler: connections, and everything that may change between them.

Made by random, but always the same: a recording holds nothing but the answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address

TCP, UDP = 6, 17
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
BY_TARGET = ("lblc", "lblcr", "dh")  # asked through services by mark: else there is but one target
FLAGGED = ("sh", "mh")
EXPIRATION = 2  # seconds, of lblcr's sets


@dataclass(frozen=True)
class Put:
    """Add a server (``new``) or edit it. ``number`` says which: its address and port follow."""

    number: int
    weight: int
    new: bool
    upper: int = 0
    lower: int = 0


@dataclass(frozen=True)
class Take:
    """Delete a server."""

    number: int


@dataclass(frozen=True)
class Ask:
    """Open a connection."""

    source: str
    port: int
    target: str


@dataclass(frozen=True)
class Close:
    """The client of an earlier connection sends FIN: it is an inactive one from now on."""

    ask: Ask


@dataclass(frozen=True)
class Wait:
    """Nothing happens until lblcr's sets have expired."""


Step = Put | Take | Ask | Close | Wait


@dataclass
class Scenario:
    """Steps on one service; its ``number`` makes its addresses and mark its own."""

    name: str
    number: int
    scheduler: str
    family: int
    protocol: int
    flags: str = ""  # ipvsadm's
    steps: list[Step] = field(default_factory=list)

    @property
    def by_mark(self) -> bool:
        """Whether it is a service by mark, for connections to many addresses."""
        return self.scheduler in BY_TARGET

    @property
    def asks(self) -> list[Ask]:
        """The connections, in their order."""
        return [step for step in self.steps if isinstance(step, Ask)]

    def target(self, number: int = 1) -> str:
        """An address of the service."""
        return f"10.80.{self.number}.{number}" if self.family == 4 else f"fd80:{self.number:x}::{number:x}"

    def targets(self) -> str:
        """All of them, as a network."""
        return f"10.80.{self.number}.0/24" if self.family == 4 else f"fd80:{self.number:x}::/64"

    def server(self, number: int) -> tuple[str, int]:
        """Where a server is."""
        address = f"10.19.{number >> 8}.{number & 255}" if self.family == 4 else f"fd19::{number:x}"
        return address, 0 if self.by_mark else 8000 + number


class _Author:
    """Writes a scenario, with a luck of its own."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.luck = random.Random(scenario.name)
        self.present: list[int] = []
        self.gone: list[int] = []
        self.next = 1

    def add(self, weight: int, upper: int = 0, lower: int = 0) -> None:
        self.present.append(self.next)
        self.scenario.steps.append(Put(self.next, weight, True, upper, lower))
        self.next += 1

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            bits = self.luck.getrandbits(24 if self.scenario.family == 4 else 112)
            base = 0x0B000000 if self.scenario.family == 4 else 0xFD18 << 112
            source, port = str(ip_address(base + bits)), self.luck.randint(1024, 65535)
            target = self.scenario.target(self.luck.randint(1, 6) if self.scenario.by_mark else 1)
            self.scenario.steps.append(Ask(source, port, target))

    def close(self, share: float) -> None:
        """Some of the connections so far."""
        closed = {step.ask for step in self.scenario.steps if isinstance(step, Close)}
        open_ones = [ask for ask in self.scenario.asks if ask not in closed]
        chosen = self.luck.sample(open_ones, int(share * len(open_ones)))
        self.scenario.steps += map(Close, chosen)

    def change(self, weights: tuple[int, ...]) -> None:
        """One change of the rules."""
        weight = self.luck.choice(weights)
        what = self.luck.choice(["edit", "edit", "delete", "add", "again"])
        if what == "again" and self.gone:
            number = self.gone.pop(self.luck.randrange(len(self.gone)))
            self.present.append(number)
            self.scenario.steps.append(Put(number, weight, True))
        elif what == "delete" and len(self.present) > 1:
            number = self.present.pop(self.luck.randrange(len(self.present)))
            self.gone.append(number)
            self.scenario.steps.append(Take(number))
        elif what == "edit" and self.present:
            number = self.luck.choice(self.present)
            upper, lower = self.luck.choice([(0, 0), (0, 0), (4, 0), (6, 2)])
            self.scenario.steps.append(Put(number, weight, False, upper, lower))
        else:
            self.add(weight)


def _spread(author: _Author) -> None:
    """Many clients, servers of several weights, one of them quiet from the middle on."""
    for weight in (3, 1, 5, 2, 4):
        author.add(weight)
    author.ask(70)
    author.scenario.steps.append(Put(3, 0, False))
    author.ask(40)


def _life(author: _Author) -> None:
    """Everything changes: weights, servers, thresholds; connections end."""
    for weight in (2, 1, 0, 3):
        author.add(weight)
    author.add(2, upper=5, lower=2)
    author.ask(12)
    for _ in range(9):
        author.change((0, 1, 2, 3, 5, 6))
        author.close(0.2)
        author.ask(10)


def _crowd(author: _Author) -> None:
    """More servers than sh has buckets for their weights, and weights that mh has to shift."""
    for number in range(60):
        author.add((1, 7, 64, 300, 5000, 65535)[number % 6])
    author.ask(150)


def _sets(author: _Author) -> None:
    """Few addresses, so many connections that sets grow; then they are left alone and shrink."""
    for weight in (3, 2, 4, 1):
        author.add(weight)
    for _ in range(3):
        author.ask(40)
        author.scenario.steps.append(Wait())
        author.ask(12)
        author.close(0.7)
        author.ask(12)


def _kinds() -> Iterator[tuple[str, str, int, int, str]]:
    """What there is to write: story, scheduler, family, protocol, flags."""
    for scheduler in SCHEDULERS:
        for family in (4, 6):
            yield "spread", scheduler, family, UDP, ""
            yield "life", scheduler, family, TCP, ""
    for scheduler in FLAGGED:
        for family in (4, 6):
            for flags in ("fallback", "port", "fallback,port"):
                named = ",".join(f"{scheduler}-{flag}" for flag in flags.split(","))
                yield "spread", scheduler, family, UDP, named
                yield "life", scheduler, family, TCP, named
    for scheduler in ("sh", "mh", "wrr", "sed"):
        yield "crowd", scheduler, 4, UDP, ""
    for scheduler in ("lblc", "lblcr"):
        yield "sets", scheduler, 4, TCP, ""


_STORIES = {"spread": _spread, "life": _life, "crowd": _crowd, "sets": _sets}


@cache
def scenarios() -> dict[str, Scenario]:
    """All of them by name."""
    written = {}
    for number, (story, scheduler, family, protocol, flags) in enumerate(_kinds(), 1):
        name = f"{scheduler}{family} {flags + ' ' if flags else ''}{story}"
        scenario = Scenario(name, number, scheduler, family, protocol, flags)
        _STORIES[story](_Author(scenario))
        written[name] = scenario
    return written
