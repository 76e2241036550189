"""However often and whatever is reloaded: at the end the rules are those of a fresh start."""

from __future__ import annotations

import asyncio
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_checkers import FakeRunner, Scene, real, settled
from xlvs.daemon.keepalived import checkers
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.keepalived.config import Config, Global, RealServer, Vip, VirtualServer
from xlvs.model import AF_INET, Forward

SORRY = RealServer(ip_address("10.9.0.99"), 80)
SERVERS = st.lists(
    st.builds(
        lambda last, weight, inhibit: real(last, weight, inhibit_on_failure=inhibit, forward=Forward.FULLNAT),
        st.integers(11, 15),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda each: each.address,
)
LOCALS = st.lists(
    st.integers(1, 3).map(lambda last: ip_address(f"10.8.0.{last}")), max_size=3, unique=True
).map(tuple)


def virtual(last: int, servers: list[RealServer], **more: Any) -> VirtualServer:
    vips = tuple(Vip(AF_INET, ip_address(f"10.9.1.{last}"), port) for port in more.pop("ports"))
    return VirtualServer(f"10.9.1.{last}", vips, group=f"G{last}", servers=tuple(servers), **more)


CONFIGS = st.lists(
    st.builds(
        virtual,
        st.integers(1, 3),
        SERVERS,
        ports=st.lists(st.sampled_from((80, 81, 443)), min_size=1, max_size=3, unique=True),
        scheduler=st.sampled_from(("rr", "wlc", "sh")),
        persistence=st.sampled_from((None, 60, 90)),
        quorum=st.integers(1, 3),
        sorry=st.sampled_from((None, SORRY)),
        local_addresses=LOCALS,
    ),
    max_size=3,
    unique_by=lambda each: each.group,
).map(lambda servers: Config(Global(router_id="d"), virtual_servers=tuple(servers)))
# A reload, or what a check says: a real server's last number, and whether it is up.
EVENTS = st.lists(CONFIGS | st.tuples(st.integers(11, 15), st.booleans()), max_size=8)


def content(plane: MemoryDataPlane) -> dict[Any, Any]:
    return {
        entry.service.key: (
            entry.service,
            frozenset(each.destination for each in entry.destinations),
            frozenset(entry.local_addresses),
        )
        for entry in plane.services()
    }


@settings(max_examples=60, deadline=None)
@given(CONFIGS, EVENTS, CONFIGS)
def test_reloads_end_where_a_fresh_start_does(first: Config, events: list[Any], last: Config) -> None:
    async def story(folder: Path) -> None:
        scene = Scene(folder, MemoryDataPlane())
        await scene.child.start(first)
        for event in events:
            if isinstance(event, Config):
                await scene.child.reload(event)
            else:
                scene.runner.say(f"10.9.0.{event[0]}", event[1])
                await settled(scene)
        await scene.child.reload(last)
        for number in range(11, 16):
            scene.runner.say(f"10.9.0.{number}", True)
        await settled(scene)
        fresh = Scene(folder / "fresh", MemoryDataPlane())
        fresh.folder.mkdir()
        await fresh.child.start(last)
        assert content(scene.plane) == content(fresh.plane)
        for each in (scene, fresh):
            await each.child.stop()
            assert content(each.plane) == {}

    with patch.object(checkers, "Runner", FakeRunner), tempfile.TemporaryDirectory() as name:
        asyncio.run(story(Path(name)))
