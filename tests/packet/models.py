"""Small models of the schedulers, from their definitions: what a test compares the programs with.

A model has the servers of a service in IPVS's list order (the newest first), is told of
every change as the kernel's scheduler is told of it, and chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from ipaddress import ip_address
from math import gcd

from xlvs.dataplane.buckets import MH_TABLE, siphash_word


@dataclass(eq=False)
class Server:
    """A destination; ``busy`` says that it has reached its upper threshold."""

    address: str
    port: int
    weight: int
    active: int = 0
    inactive: int = 0
    busy: bool = False
    present: bool = True  # in the service now
    last_weight: int = 0

    def __post_init__(self) -> None:
        self.last_weight = self.weight

    @property
    def able(self) -> bool:
        """May get a connection."""
        return self.weight > 0 and not self.busy

    @property
    def load(self) -> int:
        """What lc and its kin go by."""
        return 256 * self.active + self.inactive


@dataclass(frozen=True)
class Ask:
    """What a scheduler sees of a packet."""

    source: str
    sport: int
    target: str


@dataclass
class Model:
    """A scheduler that only looks: at loads, weights, and who may be chosen."""

    servers: list[Server]
    flags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.changed()

    def choose(self, ask: Ask) -> Server | None:  # noqa: ARG002 - most do not look at the packet
        """Who gets the connection."""
        return self.pick()

    def pick(self) -> Server | None:
        """Who gets any connection."""
        raise NotImplementedError

    def changed(self) -> None:
        """A server came or went, or has another weight."""

    def removed(self, server: Server, position: int) -> None:
        """A server that stood there went: told before :meth:`changed`."""

    def able(self) -> list[Server]:
        """Those who may be chosen, in list order."""
        return [server for server in self.servers if server.able]


def first_least(servers: Iterable[Server], cost: Callable[[Server], Fraction | int]) -> Server | None:
    """The first of those that cost least."""
    return min(servers, key=cost, default=None)


class RoundRobin(Model):
    """The next one after the last."""

    last: Server | None = None

    def pick(self) -> Server | None:
        after = self.servers.index(self.last) + 1 if self.last else 0
        around = self.servers[after:] + self.servers[:after]
        found = next((server for server in around if server.able), None)
        self.last = found or self.last
        return found

    def removed(self, server: Server, position: int) -> None:
        if server is self.last:
            self.last = self.servers[position - 1] if position else None


class WeightedRoundRobin(Model):
    """Rounds through the list that ask for less and less weight, each for one step less.

    ``asked`` is what this round asks for, ``last`` the last choice, where the walk goes on.
    It ends without a choice when all were asked for as little as there is.
    """

    last: Server | None = None
    asked = 0

    def changed(self) -> None:
        weights = [server.weight for server in self.servers]
        self.step = reduce(gcd, weights, 0) or 1
        self.most = max(weights, default=0) - self.step + 1
        self.last = None
        if not 0 < self.asked <= self.most:
            self.asked = self.most
        elif self.step > 1:
            self.asked = self.asked // self.step * self.step + 1

    def pick(self) -> Server | None:
        if not self.most:
            return None
        begin = self.servers.index(self.last) + 1 if self.last else 0
        rest, before = self.servers[begin:], self.servers[:begin]
        if self.found_in(rest):
            return self.last
        all_asked_for_least = wrapped = False
        while True:
            self.asked -= self.step
            if self.asked <= 0:
                self.asked = self.most
                if all_asked_for_least or not before:
                    self.last = None
                    return None
                wrapped = True
            least = self.asked <= self.step
            if least and wrapped and before:
                return self.last if self.found_in(before) else None
            if self.found_in(self.servers):
                return self.last
            all_asked_for_least = least

    def found_in(self, servers: list[Server]) -> bool:
        """Whether one of them will do: the next choice."""
        found = next((each for each in servers if each.able and each.weight >= self.asked), None)
        self.last = found or self.last
        return found is not None


class LeastConnections(Model):
    """The least load."""

    def pick(self) -> Server | None:
        return first_least(self.able(), lambda server: server.load)


class WeightedLeastConnections(Model):
    """The least load for its weight."""

    def pick(self) -> Server | None:
        return first_least(self.able(), lambda server: Fraction(server.load, server.weight))


class ShortestExpectedDelay(Model):
    """The least (active + 1) / weight."""

    def pick(self) -> Server | None:
        return first_least(self.able(), lambda server: Fraction(server.active + 1, server.weight))


class NeverQueue(ShortestExpectedDelay):
    """The first idle one; else as sed."""

    def pick(self) -> Server | None:
        idle = next((server for server in self.able() if not server.active), None)
        return idle or super().pick()


class FailOver(Model):
    """The greatest weight."""

    def pick(self) -> Server | None:
        return first_least(self.able(), lambda server: -server.weight)


class Overflow(Model):
    """The greatest weight among those with no more active connections than weight."""

    def pick(self) -> Server | None:
        fit = [server for server in self.able() if server.active <= server.weight]
        return first_least(fit, lambda server: -server.weight)


def folded(address: str) -> int:
    """An address as 32 bits: IPv6's four words by exclusive or."""
    packed = ip_address(address).packed
    words = [int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4)]
    return reduce(lambda one, other: one ^ other, words)


class Hashing(Model):
    """A table of servers, and a hash that says where to look."""

    def changed(self) -> None:
        self.table = self.filled()

    def filled(self) -> list[Server]:
        """The table, or nothing."""
        raise NotImplementedError

    def place(self, key: int, offset: int) -> int:
        """Where the offset-th try for a key looks."""
        raise NotImplementedError

    def choose(self, ask: Ask) -> Server | None:
        if not self.table:
            return None
        key = folded(ask.source) + (ask.sport if "port" in self.flags else 0)
        start = self.place(key, 0)
        server = self.table[start]
        if server.able or "fallback" not in self.flags:
            return server if server.able else None
        size = len(self.table)
        tries = (self.table[self.place(key, (start + offset) % size)] for offset in range(size))
        return next((each for each in tries if each.able), None)


class SourceHashing(Hashing):
    """256 places, in turn as many as the weight; the hash is a multiplication."""

    def filled(self) -> list[Server]:
        table: list[Server] = []
        while self.servers and len(table) < 256:
            for server in self.servers:
                table += [server] * max(server.weight, 1)
        return table[:256]

    def place(self, key: int, offset: int) -> int:
        return (offset + (key * 0x61C88647 % 2**32 >> 24)) % 256


class DestinationHashing(SourceHashing):
    """256 places, one each in turn."""

    def filled(self) -> list[Server]:
        return [self.servers[number % len(self.servers)] for number in range(256)] if self.servers else []

    def choose(self, ask: Ask) -> Server | None:
        found = self.table[self.place(folded(ask.target), 0)] if self.table else None
        return found if found and found.able else None


class Maglev(Hashing):
    """Everyone has an order of all places, and takes the next free one of it when it is its turn."""

    def filled(self) -> list[Server]:
        weights = [server.last_weight for server in self.servers]
        step = reduce(gcd, weights, 0)
        if not step:
            return []
        bits = (max(weights) // step).bit_length()
        turns = [max(weight // step >> max(bits - 6, 0), weight > 0) for weight in weights]
        orders = [self.order(server) for server in self.servers]
        table: dict[int, Server] = {}
        while True:
            for server, turn, order in zip(self.servers, turns, orders, strict=True):
                for _ in range(turn):
                    table[next(place for place in order if place not in table)] = server
                    if len(table) == MH_TABLE:
                        return [table[place] for place in range(MH_TABLE)]

    def order(self, server: Server) -> Iterable[int]:
        """All places, as this server likes them."""
        word = (folded(server.address) + server.port) % 2**32
        first, stride = siphash_word(word, 2654435761), siphash_word(word, 2654446892)
        return iter(
            [(first + number * (stride % (MH_TABLE - 1) + 1)) % MH_TABLE for number in range(MH_TABLE)]
        )

    def place(self, key: int, offset: int) -> int:
        return siphash_word((key + offset) % 2**32, 2654435761) % MH_TABLE


@dataclass
class Locality(Model):
    """Where each address was sent before. ``now`` and ``expiration`` are seconds."""

    now: float = 0
    expiration: float = 86400
    sets: dict[str, list[Server]] = field(default_factory=dict)  # the newest first
    modified: dict[str, float] = field(default_factory=dict)

    def too_busy(self, server: Server) -> bool:
        """More active connections than weight, while another has fewer than half of its own."""
        relief = any(other.active * 2 < other.weight for other in self.servers)
        return server.active > server.weight and relief

    def least(self) -> Server | None:
        """As wlc."""
        return first_least(self.able(), lambda server: Fraction(server.load, server.weight))


class LocalityBased(Locality):
    """The server that had the address before."""

    def choose(self, ask: Ask) -> Server | None:
        known = self.sets.get(ask.target, [None])[0]
        if known and known.present and known.weight > 0 and not self.too_busy(known):
            return known
        found = self.least()
        if found:
            self.sets[ask.target] = [found]
        return found


class LocalityBasedReplicated(Locality):
    """The least loaded of the set that had the address before; the set grows and shrinks."""

    def choose(self, ask: Ask) -> Server | None:
        known = self.sets.get(ask.target, [])
        fit = [server for server in known if server.present and server.able]
        found = first_least(fit, lambda server: Fraction(server.load, server.weight))
        if len(known) > 1 and self.now - self.modified[ask.target] > self.expiration:
            weighty = [server for server in known if server.weight > 0]
            most = max(weighty, key=lambda server: Fraction(server.load, server.weight), default=None)
            if most:
                self.sets[ask.target] = known = [server for server in known if server is not most]
                self.modified[ask.target] = self.now
        if found and not self.too_busy(found):
            return found
        found = self.least()
        if found and found not in known:
            self.sets[ask.target] = [found, *known]
            self.modified[ask.target] = self.now
        return found


MODELS: dict[str, type[Model]] = {
    "rr": RoundRobin,
    "wrr": WeightedRoundRobin,
    "lc": LeastConnections,
    "wlc": WeightedLeastConnections,
    "sed": ShortestExpectedDelay,
    "nq": NeverQueue,
    "fo": FailOver,
    "ovf": Overflow,
    "sh": SourceHashing,
    "dh": DestinationHashing,
    "mh": Maglev,
    "lblc": LocalityBased,
    "lblcr": LocalityBasedReplicated,
}
