"""lvs_sync_daemon: from its words to the daemons that run."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from typing import Any

import pytest

from xlvs.daemon.keepalived.child import Context, Options
from xlvs.daemon.keepalived.synchronisation import Synchronisation, daemons
from xlvs.dataplane.host import BareHost
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.keepalived.config import Config, Outcome, SyncDaemons
from xlvs.keepalived.files import Memory
from xlvs.keepalived.parse import parse
from xlvs.model import SyncDaemon

INSTANCE = """
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        10.0.0.9
    }
    %s
}
"""


def read(words: str, inside: str = "") -> Outcome:
    text = (f"global_defs {{\nlvs_sync_daemon {words}\n}}\n" if words else "") + INSTANCE % inside
    return parse("/k", Memory({"/k": text}), "one")


def config(words: str, inside: str = "") -> Config:
    found = read(words, inside).config
    assert found is not None
    return found


def given(words: str, inside: str) -> SyncDaemons | None:
    return config(words, inside).globals.lvs_sync_daemon


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("eth1", {}),
        ("eth1 VI_1", {"instance": "VI_1"}),
        ("eth1 inst VI_1", {"instance": "VI_1"}),
        ("eth1 id 4 inst VI_1", {"instance": "VI_1", "id": 4}),
        ("eth1 7", {"instance": "7"}),
        (
            "eth1 VI_1 id 3 maxlen 1000 port 9000 ttl 5 group 224.0.0.99",
            {
                "instance": "VI_1",
                "id": 3,
                "maxlen": 1000,
                "port": 9000,
                "ttl": 5,
                "group": ip_address("224.0.0.99"),
            },
        ),
    ],
)
def test_its_words(words: str, fields: dict[str, Any]) -> None:
    outcome = read(words)
    assert not outcome.messages
    assert outcome.config is not None
    assert outcome.config.globals.lvs_sync_daemon == SyncDaemons("eth1", **fields)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "requires interface"),
        ("eth1 VI_1 4", 'use keyword "id"'),
        ("eth1 id 4 VI_1", "Unknown option VI_1"),
        ("eth1 id 256", "defaulting to vrid"),
        ("eth1 VI_1 inst VI_2", "already been specified as VI_1"),
        ("eth1 group 10.0.0.1", "not multicast"),
        ("eth1 port", "No value"),
        ("eth1\nlvs_sync_daemon eth2", "already been specified as eth1"),
    ],
)
def test_words_that_are_wrong(words: str, text: str) -> None:
    messages = read(words or " ").messages
    assert text in messages[-1].text
    assert messages[-1].status == 5


def test_the_word_of_an_instance_counts_where_nothing_else_is_said() -> None:
    assert given("", "lvs_sync_daemon_interface eth7") == SyncDaemons("eth7", "VI_1", id=0)
    assert given("eth1", "lvs_sync_daemon_interface eth7") == SyncDaemons("eth1")


def test_the_state_of_the_instance_is_the_role() -> None:
    found = config("eth1 VI_1")
    assert daemons(found, master=True) == (SyncDaemon("master", "eth1", 51),)
    assert daemons(found, master=False) == (SyncDaemon("backup", "eth1", 51),)
    assert daemons(config("eth1 VI_2"), master=True) == ()


def test_without_an_instance_both_run() -> None:
    wanted = daemons(config("eth1 id 3"), master=False)
    assert wanted == (SyncDaemon("master", "eth1", 3), SyncDaemon("backup", "eth1", 3))


class WiredHost(BareHost):
    """A machine whose devices are all there."""

    def interface_mtu(self, name: str) -> int | None:
        del name
        return 1500


class Scene:
    def __init__(self, name: str = "vrrp", **options: Any) -> None:
        self.plane = MemoryDataPlane(host=WiredHost())
        self.opened = 0
        self.it = Synchronisation(
            name, Context(Options(**{"engine": "kernel", **options}), open_data_plane=self._open)
        )

    def _open(self) -> MemoryDataPlane:
        self.opened += 1
        return self.plane

    def run(self, *steps: tuple[Config, bool]) -> list[SyncDaemon]:
        """What runs after these steps, before the end; after it nothing of ours does."""

        async def play() -> list[SyncDaemon]:
            for found, master in steps:
                self.it.follow(found, master=master)
            await asyncio.wrap_future(self.it._worker.submit(lambda: None))
            running = self.plane.daemons()
            await self.it.close()
            return running

        return asyncio.run(play())

    def has(self, daemon: SyncDaemon) -> None:
        with self.plane.transaction() as transaction:
            transaction.start_daemon(daemon)


def told(running: list[SyncDaemon]) -> list[tuple[str, int]]:
    return [(one.role, one.syncid) for one in running]


def test_daemons_follow_the_state_and_end() -> None:
    scene = Scene()
    found = config("eth1 VI_1")
    assert told(scene.run((found, False), (found, True), (found, True))) == [("master", 51)]
    assert scene.plane.daemons() == []


def test_without_the_word_nothing_is_touched_nor_opened() -> None:
    scene = Scene()
    scene.has(SyncDaemon("master", "eth9", 9))
    assert told(scene.run((config(""), False))) == [("master", 9)]
    assert told(scene.plane.daemons()) == [("master", 9)]
    assert scene.opened == 0


def test_a_reload_takes_them_away() -> None:
    assert Scene().run((config("eth1"), False), (config(""), False)) == []


def test_what_a_killed_daemon_left_stays_where_it_is_as_wanted() -> None:
    scene = Scene()
    left = SyncDaemon("master", "eth1", 51, 1472, bytes((224, 0, 0, 81)), 8848, 1)
    scene.has(left)
    assert scene.run((config("eth1 VI_1"), True)) == [left]
    scene = Scene()
    scene.has(left)
    assert told(scene.run((config("eth1 VI_1 id 3"), True))) == [("master", 3)]


def test_what_a_reload_changes_begins_anew() -> None:
    # The kernel fills in what is not said: that it is 0 again shows only in what was asked for.
    (running,) = Scene().run((config("eth1 VI_1 maxlen 1000"), True), (config("eth1 VI_1"), True))
    assert running.maxlen != 1000


def test_they_are_the_checkers_only_where_no_vrrp_runs() -> None:
    both, named = config("eth1"), config("eth1 VI_1")
    assert Scene("checkers").run((both, False)) == []
    only = {"children": frozenset({"checkers"})}
    assert told(Scene("checkers", **only).run((both, False))) == [("master", 0), ("backup", 0)]
    assert Scene("checkers", **only).run((named, False)) == []  # nobody knows its state


def test_another_engine_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(engine="xdp")
    with caplog.at_level(logging.WARNING):
        scene.run((config("eth1 VI_1"), False), (config("eth1 VI_1"), True))
    assert [record.getMessage() for record in caplog.records] == [
        "lvs_sync_daemon: xlvs's own engine does not synchronise connections yet"
    ]
    assert scene.opened == 0


def test_an_instance_that_is_not_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Scene().run((config("eth1 VI_2"), True)) == []
    assert "Unable to find vrrp instance VI_2" in caplog.text
