"""Which interfaces are asked for their carrier, and what counts then."""

from __future__ import annotations

import asyncio

import pytest

from xlvs.daemon.vrrp import carriers
from xlvs.daemon.vrrp.carriers import Carriers, polled
from xlvs.keepalived.config import Config, Global, Instance, LinkDelay
from xlvs.network.links import Link

ENABLED, RUNNING = 0x1, 0x40
NEEDED = {"eth0", "eth1", "vrrp.51"}
OURS = {"vrrp.51"}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (Config(), {}),
        (Config(linkbeat=(("eth1", "MII"), ("eth9", ""))), {"eth1": "MII"}),
        (Config(linkbeat=(("vrrp.51", ""),)), {}),
        (Config(instances=(Instance("V1", "eth0", 51, linkbeat_use_polling=True),)), {"eth0": ""}),
        (
            Config(
                globals=Global(others={"linkbeat_use_polling": ()}),
                instances=(Instance("V1", "eth0", 51),),
                linkbeat=(("eth0", "ETHTOOL"),),
            ),
            {"eth0": "ETHTOOL"},
        ),
    ],
)
def test_who_is_asked(config: Config, wanted: dict[str, str]) -> None:
    assert polled(config, NEEDED, OURS) == wanted


class Links:
    """Interfaces by name, with what the kernel tells of them."""

    def __init__(self, **flags: int) -> None:
        self.flags = flags

    def get(self, name: str) -> Link | None:
        return Link(1, name, self.flags[name], b"") if name in self.flags else None


class Beats:
    """Stands in for interfaces that answer."""

    def __init__(self) -> None:
        self.up: set[str] = set()

    def beats(self, name: str, _wanted: str = "") -> bool:
        return name in self.up

    def close(self) -> None: ...


def test_an_interface_that_is_asked_is_what_it_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel may take it for running or not; but one that is switched off, or away, is down."""
    caplog.set_level("INFO")
    beats = Beats()
    monkeypatch.setattr(carriers, "Linkbeat", lambda: beats)
    monkeypatch.setattr(carriers, "_PERIOD", 0.0)
    links = Links(eth0=ENABLED | RUNNING, eth1=ENABLED)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        found = Carriers(links, heard.set)
        config = Config(linkbeat=(("eth0", ""),), link_delays=(LinkDelay("eth1", 0.0, 5.0),))
        found.load(config, {"eth0", "eth1"}, set())
        assert not found.up("eth0", 0.0)
        assert not found.up("eth1", 0.0)
        beats.up = {"eth0"}
        await asyncio.wait_for(heard.wait(), 60.0)
        assert found.up("eth0", 1.0)
        links.flags["eth0"] = ENABLED
        assert found.up("eth0", 2.0)
        links.flags["eth0"] = RUNNING
        assert not found.up("eth0", 3.0)
        del links.flags["eth0"]
        assert not found.up("eth0", 4.0)
        # What is not asked is what the kernel tells, after its delay.
        links.flags["eth1"] |= RUNNING
        assert not found.up("eth1", 5.0)
        assert found.deadline() == 10.0
        assert found.up("eth1", 10.0)
        found.tell({"eth1", "eth0"})
        # Nobody is asked any more.
        links.flags["eth0"] = ENABLED | RUNNING
        beats.up = set()
        found.load(Config(), {"eth0", "eth1"}, set())
        assert found.up("eth0", 11.0)
        await found.close()
        assert loop.is_running()

    asyncio.run(story())
    told = [record.getMessage() for record in caplog.records]
    assert told == ["Linkbeat reports eth0 up", "Linkbeat reports eth0 down", "Netlink reports eth1 up"]
