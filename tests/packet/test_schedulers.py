"""Schedulers against models written from their definitions, connection by connection.

IPVS keeps the destinations of a service in a list with the newest first; that is the
order of every model here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from ipaddress import ip_address
from math import gcd

import pytest

from tests.packet.director import XDP_REDIRECT, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from xlvs.dataplane import layout
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
seeds = pytest.mark.parametrize("seed", range(12))
families = pytest.mark.parametrize("family", [4, 6])


def server_address(number: int) -> str:
    return f"10.19.{number >> 8}.{number & 255}"


def serve(director: Director, scheduler: str, weights: Sequence[int], family: int = 4) -> list[str]:
    """A service with a server for each weight; gives their addresses in list order, as the weights."""
    addresses = [server_address(number + 1) for number in range(len(weights))]
    pairs = list(zip(addresses, weights, strict=True))
    servers = [Server(address, 80, Forward.TUNNEL, weight) for address, weight in reversed(pairs)]
    director.service(VIP[family], UDP, servers, scheduler)
    director.service(VIP[family], TCP, servers, scheduler)
    return addresses


def client(family: int, number: int) -> str:
    return str(ip_address((0xC6120000 if family == 4 else 0xFD18 << 112) + number))


class Chooser:
    """Opens one connection after the other, and sees who gets it."""

    def __init__(self, director: Director, family: int = 4, protocol: int = UDP) -> None:
        self._director, self._family, self._protocol = director, family, protocol
        self._number = 0

    def choose(self, source: str | None = None) -> str:
        self._number += 1
        self._director.forget_connections()
        asked = Datagram(
            source or client(self._family, self._number), VIP[self._family], protocol=self._protocol
        )
        verdict, after = self._director.run(asked.frame())
        assert verdict == XDP_REDIRECT, self._director.counted()
        return str(ip_address(after[30:34]))  # the tunnel's end


def some_weights(chance: random.Random) -> list[int]:
    weights = [chance.choice([0, 1, 1, 2, 3, 5, 10, 100]) for _ in range(chance.randint(1, 9))]
    if not any(weights):
        weights[chance.randrange(len(weights))] = 1
    return weights


def round_robin(addresses: Sequence[str], weights: Sequence[int]) -> Iterator[str]:
    able = [address for address, weight in zip(addresses, weights, strict=True) if weight]
    return itertools.cycle(able)


def first_asked(weights: Sequence[int]) -> int:
    """What wrr asks for first, after servers of these weights were added one by one.

    The kernel keeps what it asks for when a server comes, unless that is now too much,
    and rounds it to the new divisor.
    """
    asked = 0
    for number in range(1, len(weights) + 1):
        step = reduce(gcd, weights[:number]) or 1
        most = max(weights[:number]) - step + 1
        if asked > most or not asked:
            asked = most
        elif step > 1:
            asked = asked // step * step + 1
    return asked


def weighted_round_robin(addresses: Sequence[str], weights: Sequence[int]) -> Iterator[str]:
    """Rounds that ask for the greatest weight, then less by the divisor each, down to it."""
    step, asked = reduce(gcd, weights), first_asked(weights[::-1])
    while True:
        for address, weight in zip(addresses, weights, strict=True):
            if weight >= asked:
                yield address
        asked -= step
        if asked <= 0:
            asked = max(weights) - step + 1


MODELS = {"rr": round_robin, "wrr": weighted_round_robin}


@seeds
@pytest.mark.parametrize("name", MODELS)
def test_the_round_ones(director: Director, seed: int, name: str) -> None:
    weights = some_weights(random.Random(seed))
    addresses = serve(director, name, weights)
    chooser = Chooser(director)
    wanted = MODELS[name](addresses, weights)
    for number in range(150):
        assert chooser.choose() == next(wanted), f"choice {number} of {weights}"


@seeds
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_weighted_least_connections(director: Director, seed: int, protocol: int) -> None:
    """The least (active * 256 + inactive) / weight; the first of equals."""
    chance = random.Random(seed)
    weights = some_weights(chance)
    addresses = serve(director, "wlc", weights)
    chooser = Chooser(director, protocol=protocol)
    first = 0 if protocol == UDP else len(weights)  # rows of each service's destinations
    for _ in range(60):
        loads = {}
        for number, address in enumerate(addresses):
            active, inactive = chance.randint(0, 3), chance.choice([0, 1, 255, 256, 257, 100_000])
            # Rows were given in the order of adding: the last in the list was the first.
            row = director.tables.load_row(first + len(addresses) - 1 - number)
            row.active, row.inactive = active, inactive
            loads[address] = active * 256 + inactive
        able = [
            (Fraction(loads[address], weight), position, address)
            for position, (address, weight) in enumerate(zip(addresses, weights, strict=True))
            if weight
        ]
        assert chooser.choose() == min(able)[2], (weights, loads)


def test_weighted_least_connections_spreads_as_it_goes(director: Director) -> None:
    """What it chose counts in the next choice: 2:1 by weight."""
    addresses = serve(director, "wlc", [2, 1])
    for number in range(30):
        asked = Datagram(client(4, number), VIP[4], protocol=TCP)
        director.exchange(asked.frame())
    rows = dict.fromkeys(addresses, 0)
    for conn in director.connections():
        rows[str(ip_address(bytes(conn.daddr)[:4]))] += 1
    assert rows == {addresses[0]: 20, addresses[1]: 10}


@seeds
@families
def test_source_hashing(director: Director, seed: int, family: int) -> None:
    """256 buckets filled round and round by weight; the bucket is a multiplicative hash of the client."""
    chance = random.Random(seed)
    weights = [weight or 1 for weight in some_weights(chance)]
    addresses = serve(director, "sh", weights, family)
    filling = itertools.chain.from_iterable(
        itertools.repeat(address, weight)
        for address, weight in itertools.cycle(list(zip(addresses, weights, strict=True)))
    )
    buckets = list(itertools.islice(filling, 256))
    chooser = Chooser(director, family)
    for _ in range(60):
        source = ip_address(chance.getrandbits(32 if family == 4 else 128))
        words = [int.from_bytes(source.packed[at : at + 4], "big") for at in range(0, len(source.packed), 4)]
        folded = reduce(lambda one, other: one ^ other, words)
        bucket = folded * 0x61C88647 % 2**32 >> 24
        assert chooser.choose(str(source)) == buckets[bucket], source
        assert chooser.choose(str(source)) == buckets[bucket], source


def test_source_hashing_does_not_look_for_another_server(director: Director) -> None:
    """Without sh-fallback a client whose server has weight 0 is refused."""
    addresses = serve(director, "sh", [1, 0])
    served = refused = 0
    for number in range(64):
        verdict, after = director.run(Datagram(client(4, number * 7919), VIP[4]).frame())
        outcome = director.counted()
        if "forwarded" in outcome:
            served += 1
            assert str(ip_address(after[30:34])) == addresses[0]
        else:
            refused += outcome["drop_no_destination"]
        assert verdict == XDP_REDIRECT
    assert served > 16
    assert refused > 16


@pytest.mark.parametrize("scheduler", layout.SCHEDULERS)
@pytest.mark.parametrize("weights", [[], [0], [0, 0, 0]])
def test_nobody_to_choose(director: Director, scheduler: str, weights: list[int]) -> None:
    serve(director, scheduler, weights)
    director.run(Datagram(client(4, 1), VIP[4]).frame())
    assert director.counted() == {"drop_no_destination": 1}


@pytest.mark.parametrize("scheduler", sorted({*layout.SCHEDULERS} - {"sh", "dh", "none"}))
def test_many_servers(director: Director, scheduler: str) -> None:
    """The only one of 700 that has a weight is found, and found again."""
    weights = [0] * 700
    weights[432] = 7
    addresses = serve(director, scheduler, weights)
    chooser = Chooser(director)
    assert {chooser.choose() for _ in range(5)} == {addresses[432]}
