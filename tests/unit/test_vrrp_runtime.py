"""The vrrp child that ran late: what came meanwhile is heard before time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from unittest.mock import MagicMock

import pytest

from tests.unit.test_keepalived_vrrp_keywords import config
from xlvs.daemon.vrrp import runtime
from xlvs.daemon.vrrp.runtime import Runtime
from xlvs.vrrp.commands import State
from xlvs.vrrp.packet import GROUP4, Advert, Received, datagram, parse4

OURS, OTHER = IPv4Address("192.168.99.2"), IPv4Address("192.168.99.9")
FILE = """
vrrp_instance one {
    version 3
    interface eth0
    virtual_router_id 1
    priority 100
    advert_int 0.01
    virtual_ipaddress {
        10.0.0.1/32
    }
}
"""
PATIENCE = 0.01 * (3 + 156 / 256)


class Wire:
    """Pools whose socket holds what came."""

    def __init__(self, take: Callable[[str, Received], None], _: object) -> None:
        self._take = take
        self.waiting: list[Received] = []

    def read(self) -> None:
        while self.waiting:
            self._take("one", self.waiting.pop(0))

    def send(self, *_: object) -> None:
        """Nobody hears it."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only a test moves; and a node on which nothing can be changed."""
    for name in (
        *("Rtnetlink", "VirtualAddresses", "Links", "Commands", "Devices", "Announcing", "Notifier"),
        *("Watching", "Statics", "RouteLosses", "Carriers"),
    ):
        monkeypatch.setattr(runtime, name, MagicMock())
    monkeypatch.setattr(runtime, "Pools", Wire)
    now = [100.0]
    monkeypatch.setattr(Runtime, "now", property(lambda _: now[0]))
    return now


@pytest.mark.parametrize("heard", [True, False])
def test_a_late_backup_reads_before_it_takes_over(heard: bool, clock: list[float]) -> None:
    async def play() -> State:
        child = Runtime(config(FILE), lambda _: None)
        child.router.set_addresses("one", OURS, frozenset((OURS,)))
        child.run(child.router.start(clock[0]))
        clock[0] += 1.5 * PATIENCE  # the process got no processor, and both are due now
        if heard:
            wire = child._pools
            assert isinstance(wire, Wire)
            advert = Advert(3, 1, 150, 0.01, (IPv4Address("10.0.0.1"),))
            wire.waiting.append(parse4(datagram(advert, OTHER, GROUP4)))
        child._tick()
        return child.router.machines["one"].state

    assert asyncio.run(play()) is (State.BACKUP if heard else State.MASTER)
