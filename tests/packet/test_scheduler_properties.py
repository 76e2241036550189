"""What schedulers promise, whatever their formula: fairness by weight, and that few clients move."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from functools import reduce
from ipaddress import ip_address
from math import gcd

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import Director
from tests.packet.histories import History
from tests.packet.models import Ask, Server

pytestmark = pytest.mark.root

some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
small_weights = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def client(number: int) -> Ask:
    """One of many, at addresses that have no pattern."""
    chance = random.Random(number)
    return Ask(str(ip_address(0x0B000000 + chance.getrandbits(24))), chance.randint(1024, 65535), "10.80.0.1")


def asked(history: History, count: int) -> list[Server | None]:
    return [history.ask(client(number)) for number in range(count)]


@some_examples
@given(weights=small_weights)
def test_wrr_gives_each_its_weight_in_every_period(director: Director, weights: list[int]) -> None:
    history = History(director, "wrr", weights)
    period = sum(weights) // reduce(gcd, weights)
    for _ in range(max(2 * reduce(gcd, weights), 8)):  # rounds until its place is that of a whole period
        history.ask(client(history.asked))
    for _ in range(2):
        got = Counter(history.ask(client(history.asked)) for _ in range(period))
        assert {server: Fraction(got[server], period) for server in history.known} == {
            server: Fraction(server.weight, sum(weights)) for server in history.known
        }


@some_examples
@given(weights=small_weights)
def test_rr_gives_each_the_same(director: Director, weights: list[int]) -> None:
    history = History(director, "rr", weights)
    assert set(Counter(asked(history, 3 * len(weights))).values()) == {3}


@pytest.mark.parametrize("name", ["sh", "mh"])
def test_hashes_share_clients_by_weight(director: Director, name: str) -> None:
    weights = [1, 2, 3, 4]
    history = History(director, name, weights)
    got = Counter(asked(history, 3000))
    for server in history.known:
        assert got[server] / 3000 == pytest.approx(server.weight / sum(weights), abs=0.05)


@pytest.mark.parametrize(("name", "most"), [("mh", 0.25), ("sh", 1.0)])
def test_few_clients_move_when_one_of_ten_leaves(director: Director, name: str, most: float) -> None:
    """Maglev's promise; sh makes none, unless the server is only quiet (below)."""
    history = History(director, name, [1] * 10)
    leaving = history.known[4]
    before = asked(history, 400)
    history.remove(leaving)
    director.forget_connections()
    after = asked(history, 400)
    assert leaving not in after
    stayed = [pair for pair in zip(before, after, strict=True) if pair[0] is not leaving]
    assert sum(old is not new for old, new in stayed) <= most * len(stayed)


@pytest.mark.parametrize("name", ["sh", "mh"])
@pytest.mark.parametrize("quiet", ["weight", "threshold"])
def test_nobody_else_moves_when_one_falls_back(director: Director, name: str, quiet: str) -> None:
    """With fallback, a server that is quiet loses its clients; with weight 1, all others keep theirs."""
    history = History(director, name, [1] * 10, flags=frozenset(["fallback"]))
    leaving = history.known[4]
    before = asked(history, 400)
    if quiet == "weight":
        history.weigh(leaving, 0)
    leaving.busy = quiet == "threshold"
    director.forget_connections()
    after = asked(history, 400)
    for old, new in zip(before, after, strict=True):
        assert new is old if old is not leaving else new not in (leaving, None)


def test_loads_mean_nothing_to_mh(director: Director) -> None:
    history = History(director, "mh", [5, 3, 8, 1])
    before = asked(history, 200)
    for server in history.known:
        server.active = 1000 * server.port
    director.forget_connections()
    assert asked(history, 200) == before


class TestTwos:
    """Two draws by weight, and of them the less loaded for its weight."""

    def shares(self, director: Director, weights: list[int], loads: list[int], count: int) -> list[float]:
        """Which part of the connections each got; loads do not change."""
        history = History(director, "twos", weights)
        for server, load in zip(history.known, loads, strict=True):
            server.active = load
        got = Counter(asked(history, count))
        assert None not in got
        return [got[server] / count for server in history.known]

    def test_a_loaded_one_is_chosen_only_if_drawn_twice(self, director: Director) -> None:
        busy, idle = self.shares(director, [50, 50], [1000, 0], 2000)
        assert busy == pytest.approx(0.25, abs=0.07)
        assert idle == pytest.approx(0.75, abs=0.07)

    def test_draws_are_by_weight(self, director: Director) -> None:
        """The same load for each weight: the first draw decides."""
        shares = self.shares(director, [100, 300, 600], [100, 300, 600], 3000)
        assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.06)

    def test_order_of_loads_is_order_of_shares(self, director: Director) -> None:
        """Of n equal ones the k-th least loaded gets (2(n-k)+1)/n^2."""
        shares = self.shares(director, [100] * 4, [10, 20, 30, 40], 3000)
        assert shares == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16], abs=0.06)

    @some_examples
    @given(weights=st.lists(st.integers(0, 5), max_size=6), busy=st.sets(st.integers(0, 5)))
    def test_only_those_who_may(self, director: Director, weights: list[int], busy: set[int]) -> None:
        history = History(director, "twos", weights)
        for number, server in enumerate(history.known):
            server.busy = number in busy
        able = history.model.able()
        got = set(asked(history, 20))
        assert got <= set(able) if able else got == {None}
