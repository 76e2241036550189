"""The checkers child over a data plane in memory: checks that speak by hand, real scripts and fifos."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from xlvs.daemon.checks.runner import Status
from xlvs.daemon.keepalived import checkers
from xlvs.daemon.keepalived.checkers import CheckersChild
from xlvs.daemon.keepalived.child import Child, Context, Options
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.errors import XlvsError
from xlvs.health.checks import AnyCheck, FileCheck, Script, TcpCheck
from xlvs.health.verdict import Verdict, Weighting
from xlvs.keepalived.config import Config, Fifo, Global, RealServer, TrackFile, Vip, VirtualServer
from xlvs.model import AF_INET, Destination, DestinationKey, Forward, Service, ServiceKey

VIP = Vip(AF_INET, ip_address("10.9.0.1"), 80)
KEY = ServiceKey(AF_INET, 6, VIP.address.packed if VIP.address else b"", 80)


class FakeRunner:
    """Checks that say what the test says."""

    def __init__(
        self, report: Callable[[Hashable, Verdict], None], *, label: Callable[[Hashable], str]
    ) -> None:
        self.report, self.label = report, label
        self.checks: dict[Hashable, AnyCheck] = {}
        self.verdicts: dict[Hashable, Verdict] = {}
        self.paused: set[Hashable] = set()
        self.stopped = False

    def set(self, checks: Mapping[Hashable, AnyCheck], files: Mapping[str, str] | None = None) -> None:
        del files
        for key, check in checks.items():
            self.verdicts.setdefault(key, Verdict(up=not check.alpha))
        self.verdicts = {key: self.verdicts[key] for key in checks}
        self.checks = dict(checks)

    def pause(self, keys: Collection[Hashable]) -> None:
        self.paused = set(keys)

    def bfd(self, name: str, up: bool) -> None:
        raise AssertionError((name, up))

    def status(self, key: Hashable) -> Status:
        return Status(self.verdicts[key], True, 1, 0, 0, 0.0, 1.0, key in self.paused, "")

    def stop(self) -> None:
        self.stopped = True

    def say(self, address: str, up: bool, weighting: Weighting | None = None) -> None:
        for key in self.verdicts:
            if isinstance(key, tuple) and key[1][0] == ip_address(address):
                self.verdicts[key] = Verdict(up, weighting or Weighting())
                self.report(key, self.verdicts[key])


class Scene:
    """A child at work."""

    def __init__(self, folder: Path, plane: MemoryDataPlane, **options: Any) -> None:
        self.folder = folder
        self.plane = plane
        context = Context(
            Options(**options),
            open_data_plane=lambda: plane,
            state_path=lambda name, instance: str(folder / f"state.{name}{instance or ''}"),
        )
        self.child = CheckersChild(context)

    @property
    def runner(self) -> FakeRunner:
        found: Any = self.child._runner
        assert isinstance(found, FakeRunner)
        return found

    def inside(self, key: ServiceKey = KEY) -> dict[int, int] | None:
        entry = self.plane.service(key)
        if entry is None:
            return None
        return {one.destination.key.address[3]: one.destination.weight for one in entry.destinations}


@pytest.fixture(autouse=True)
def fake_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkers, "Runner", FakeRunner)


def real(last: int, weight: int = 1, **more: Any) -> RealServer:
    address = ip_address(f"10.9.0.{last}")
    alpha = bool(more.get("alpha"))
    return RealServer(address, 80, weight, checks=(TcpCheck(address=address, port=80, alpha=alpha),), **more)


def config(*servers: VirtualServer, **settings: Any) -> Config:
    return Config(globals=Global(**settings), virtual_servers=servers)


def server(*servers: RealServer, **more: Any) -> VirtualServer:
    return VirtualServer("10.9.0.1 80", (VIP,), servers=servers, **more)


SORRY = RealServer(ip_address("10.9.0.99"), 80)


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


async def settled(scene: Scene) -> None:
    """Wait until what was said has become rules."""
    await until(lambda: scene.child._flushing is None)


async def until(what: Callable[[], object]) -> None:
    for _ in range(3000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def test_a_child_is_one() -> None:
    child: Child = CheckersChild(Context())  # mypy checks the rest
    assert child


def test_servers_are_taken_out_and_put_back(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(config(server(real(11), real(12, 3), sorry=SORRY)))
        assert scene.inside() == {11: 1, 12: 3}
        scene.runner.say("10.9.0.11", False)
        await settled(scene)
        assert scene.inside() == {12: 3}
        scene.runner.say("10.9.0.12", False)
        await settled(scene)
        assert scene.inside() == {99: 1}
        scene.runner.say("10.9.0.11", True)
        scene.runner.say("10.9.0.12", True, Weighting(share=2.0))
        await settled(scene)
        assert scene.inside() == {11: 1, 12: 6}
        await scene.child.stop()
        assert scene.plane.services() == []
        assert scene.runner.stopped
        assert list(tmp_path.iterdir()) == []

    play(story())


def test_scripts_and_fifo_hear_of_it(tmp_path: Path) -> None:
    note, fifo, heard = tmp_path / "note", tmp_path / "fifo", tmp_path / "heard"
    note.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/notes\n')
    reader = tmp_path / "reader"
    reader.write_text(f'#!/bin/sh\nwhile read line; do echo "$line" >> {heard}; done < "$1"\n')
    for each in (note, reader):
        each.chmod(0o755)

    def script(*words: str) -> Script:
        return Script((str(note), *words), user="root")

    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        eleven = real(11, notify_up=script("up"), notify_down=script("down"))
        configured = config(
            server(eleven, quorum_up=script("qup"), quorum_down=script("qdown")),
            lvs_fifo=Fifo(str(fifo), Script((str(reader),), user="root")),
        )
        await scene.child.start(configured)
        scene.runner.say("10.9.0.11", False)
        await until(
            lambda: (tmp_path / "notes").exists() and len((tmp_path / "notes").read_text().split()) == 3
        )
        await scene.child.reload(configured)
        scene.runner.say("10.9.0.11", False)
        await settled(scene)
        await until(lambda: heard.exists() and len(heard.read_text().splitlines()) == 3)
        await scene.child.stop()

    play(story())
    assert sorted((tmp_path / "notes").read_text().split()) == ["down", "qdown", "qup"]
    assert heard.read_text().splitlines() == [
        "VS [10.9.0.1]:tcp:80 UP",
        "RS [10.9.0.11]:tcp:80 [10.9.0.1]:tcp:80 DOWN",
        "VS [10.9.0.1]:tcp:80 DOWN",
    ]
    assert not fifo.exists()


def test_a_reload_changes_only_what_changed(tmp_path: Path) -> None:
    other = VirtualServer("10.9.0.2 80", (Vip(AF_INET, ip_address("10.9.0.2"), 80),), servers=(real(21),))
    gone = VirtualServer("10.9.0.3 80", (Vip(AF_INET, ip_address("10.9.0.3"), 80),), servers=(real(31),))

    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(config(server(real(11), real(12)), other, gone))
        scene.runner.say("10.9.0.11", False)
        await settled(scene)
        with scene.plane.transaction() as transaction:
            foreign = ServiceKey(AF_INET, 6, bytes((10, 9, 9, 9)), 9)
            transaction.add_service(Service(foreign, "rr"))
        changes = watched(scene.plane)
        await scene.child.reload(config(server(real(11), real(12)), other, gone))
        assert changes == []
        await scene.child.reload(config(server(real(11), real(13), scheduler="rr"), other))
        assert [name for name, _ in changes] == [
            "delete_service",
            "edit_service",
            "add_destination",
            "delete_destination",
        ]
        assert scene.inside() == {13: 1}
        assert {each.service.key.address[3] for each in scene.plane.services()} == {1, 2, 9}
        await scene.child.stop()
        assert [each.service.key for each in scene.plane.services()] == [foreign]

    play(story())


def watched(plane: MemoryDataPlane) -> list[tuple[str, Any]]:
    """What is done to a plane from now on."""
    changes: list[tuple[str, Any]] = []
    begin = plane.transaction

    class Watched:
        def __enter__(self) -> Any:
            self.inner = begin()
            transaction = self.inner.__enter__()

            class Notes:
                def __getattr__(self, name: str) -> Any:
                    def call(*arguments: Any) -> Any:
                        changes.append((name, arguments))
                        return getattr(transaction, name)(*arguments)

                    return call

            return Notes()

        def __exit__(self, *trouble: Any) -> Any:
            return self.inner.__exit__(*trouble)

    plane.transaction = Watched  # type: ignore[assignment, method-assign]
    return changes


def test_after_a_kill_services_are_taken_over_and_the_dead_stay_out(tmp_path: Path) -> None:
    async def first() -> None:
        scene = Scene(tmp_path, plane)
        await scene.child.start(configured)
        scene.runner.say("10.9.0.11", False)
        await settled(scene)
        await scene.child.ask({"command": "drain", "server": "10.9.0.12"})
        await scene.child.abandoned()

    async def second() -> None:
        with plane.transaction() as transaction:
            transaction.add_destination(KEY, Destination(DestinationKey(AF_INET, bytes((10, 9, 0, 88)), 80)))
        changes = watched(plane)
        scene = Scene(tmp_path, plane)
        await scene.child.start(configured)
        assert changes == []
        assert scene.inside() == {12: 0, 13: 1, 88: 1}
        scene.runner.say("10.9.0.11", True)
        await settled(scene)
        assert scene.inside() == {11: 1, 12: 0, 13: 1, 88: 1}
        await scene.child.reload(config(server(real(11))))
        assert scene.inside() == {11: 1, 88: 1}
        await scene.child.stop()
        assert plane.services() == []

    plane = MemoryDataPlane()
    configured = config(server(real(11), real(12), real(13)))
    play(first())
    assert json.loads((tmp_path / "state.checkers").read_text())["services"]
    play(second())


def test_what_failed_last_is_on_record_before_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a change: the next one does not begin with servers that are dead."""

    async def first() -> None:
        scene = Scene(tmp_path, plane)
        await scene.child.start(configured)
        monkeypatch.setattr(scene.child._rules, "carry_out", killed)
        scene.runner.say("10.9.0.11", False)
        await until(lambda: deaths)

    async def second() -> None:
        scene = Scene(tmp_path, plane)
        assert scene.inside() == {11: 1, 12: 1}
        await scene.child.start(configured)
        assert scene.inside() == {12: 1}
        doubtful = [check for check in scene.runner.checks.values() if check.alpha]
        assert [check.warmup for check in doubtful] == [2.0]  # and asked soon
        await scene.child.stop()

    def killed(*_: object, **__: object) -> None:
        deaths.append(True)
        raise SystemError("killed here")

    deaths: list[bool] = []
    plane = MemoryDataPlane()
    configured = config(server(real(11), real(12)))
    play(first())
    play(second())


def test_after_a_kill_the_sorry_server_goes_on_serving(tmp_path: Path) -> None:
    async def life(*, first: bool) -> None:
        scene = Scene(tmp_path, plane)
        changes = watched(plane)
        await scene.child.start(configured)
        if first:
            scene.runner.say("10.9.0.11", False)
            await settled(scene)
        else:
            assert changes == []
        assert scene.inside() == {99: 1}
        await scene.child.abandoned()

    plane = MemoryDataPlane()
    configured = config(server(real(11), sorry=SORRY))
    play(life(first=True))
    play(life(first=False))


def test_services_left_by_a_kill_that_the_file_names_no_more_go(tmp_path: Path) -> None:
    async def life(configured: Config) -> None:
        scene = Scene(tmp_path, plane)
        await scene.child.start(configured)
        await scene.child.abandoned()

    plane = MemoryDataPlane()
    two = VirtualServer("10.9.0.2 80", (Vip(AF_INET, ip_address("10.9.0.2"), 80),), servers=(real(21),))
    play(life(config(server(real(11)), two)))
    play(life(config(two)))
    assert [each.service.key.address[3] for each in plane.services()] == [2]


def test_what_the_engine_refuses_keeps_nobody_else_out_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkers, "_RETRY", 0.05)
    bad = VirtualServer("10.9.0.2 80", (Vip(AF_INET, ip_address("10.9.0.2"), 80),), scheduler="no-such")
    good = replace(bad, scheduler="rr", servers=(real(21),))

    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(config(server(real(11)), bad))
        assert scene.inside() == {11: 1}
        await asyncio.sleep(0.3)
        assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1
        await scene.child.reload(config(server(real(11)), good))
        assert len(scene.plane.services()) == 2
        await scene.child.stop()

    play(story())


def test_without_room_for_its_record_it_serves_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        scene = Scene(tmp_path / "not-there", MemoryDataPlane())
        await scene.child.start(config(server(real(11), real(12))))
        scene.runner.say("10.9.0.12", up=False)
        await settled(scene)
        assert scene.inside() == {11: 1}
        await scene.child.ask({"command": "drain", "server": "10.9.0.11"})
        assert scene.inside() == {11: 0}
        assert len([each for each in caplog.records if "nobody knows what was ours" in each.message]) == 1
        await scene.child.stop()

    play(story())


def test_daemons_of_two_names_leave_each_other_s_services_alone(tmp_path: Path) -> None:
    async def story() -> None:
        plane = MemoryDataPlane()
        one, two = Scene(tmp_path, plane), Scene(tmp_path, plane)
        other = VirtualServer("10.9.0.2 80", (Vip(AF_INET, ip_address("10.9.0.2"), 80),), servers=(real(21),))
        await one.child.start(config(server(real(11)), instance="one"))
        await two.child.start(config(other, instance="two"))
        assert len(plane.services()) == 2
        await two.child.stop()
        assert scene_keys(plane) == [1]
        await one.child.stop()
        assert scene_keys(plane) == []

    def scene_keys(plane: MemoryDataPlane) -> list[int]:
        return [each.service.key.address[3] for each in plane.services()]

    play(story())


def test_what_a_file_says_is_known_from_the_beginning(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "track").write_text("1\n")
        note = Script(("/bin/sh", "-c", f"echo x >> {tmp_path}/notes"), user="root")
        check = FileCheck(track_file="load", weight=0)
        filed = replace(real(11), checks=(check,), notify_down=note)
        configured = replace(
            config(server(filed, real(12))), files=(TrackFile("load", str(tmp_path / "track")),)
        )
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(configured)
        assert scene.inside() == {12: 1}
        scene.runner.say("10.9.0.11", False)
        await settled(scene)
        scene.runner.say("10.9.0.11", True)
        await settled(scene)
        assert scene.inside() == {11: 1, 12: 1}
        await scene.child.stop()
        assert not (tmp_path / "notes").exists()

    play(story())


def test_keeping_services_on_a_stop(tmp_path: Path) -> None:
    async def story(**options: Any) -> None:
        scene = Scene(tmp_path, plane, **options)
        await scene.child.start(config(server(real(11))))
        await scene.child.stop()

    plane = MemoryDataPlane()
    play(story(keep_services=True))
    assert len(plane.services()) == 1
    play(story())
    assert plane.services() == []


def test_operators_ask_and_order(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(config(server(real(11), real(12, forward=Forward.MASQ), sorry=SORRY)))
        ask = scene.child.ask
        answer = await ask({"command": "disable", "server": "10.9.0.11:80", "virtual": "10.9.0.1:80"})
        assert answer == {
            "changed": [
                {"virtual": "[10.9.0.1]:tcp:80", "server": "[10.9.0.11]:tcp:80", "order": "disable"},
            ]
        }
        assert scene.inside() == {12: 1}
        told: Any = json.loads(json.dumps(await ask({"command": "servers"})))
        states = {each["name"]: each["state"] for each in told["virtual_servers"][0]["servers"]}
        assert states == {"[10.9.0.11]:tcp:80": "disabled", "[10.9.0.12]:tcp:80": "up"}
        await ask({"command": "enable", "server": "10.9.0.11"})
        assert scene.inside() == {11: 1, 12: 1}
        summary = await ask({"command": "status"})
        assert (summary["virtual_servers"], summary["alive"]) == (1, 2)
        text: Any = (await ask({"command": "data"}))["text"]
        assert "   RIP = 10.9.0.11, RPORT = 80, WEIGHT = 1 EFF WEIGHT = 1\n" in text
        assert "VS VIP = 10.9.0.1, VPORT = 80" in text
        assert "Connections: 0" in str((await ask({"command": "stats"}))["text"])
        for wrong in ({"command": "drain", "server": "10.9.0.77"}, {"command": "drain", "server": "x"}):
            with pytest.raises(XlvsError):
                await ask(wrong)
        with pytest.raises(XlvsError):
            await ask({"command": "no-such"})
        await scene.child.stop()

    play(story())


def test_a_drained_server_leaves_when_its_time_is_up(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path, MemoryDataPlane())
        await scene.child.start(config(server(real(11), real(12), drain_limit=0.2)))
        await scene.child.ask({"command": "drain", "server": "10.9.0.11"})
        assert scene.inside() == {11: 0, 12: 1}
        await until(lambda: scene.inside() == {12: 1})
        await scene.child.stop()

    play(story())
