"""The parent with toy children: started, asked, told of each other, started again, reloaded, stopped."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from xlvs.daemon.keepalived import control, main, pidfile
from xlvs.daemon.keepalived.main import Parent, Startup
from xlvs.errors import XlvsError
from xlvs.health.checks import Script
from xlvs.keepalived.config import (
    Config,
    Fifo,
    Global,
    Instance,
    Message,
    Outcome,
    RealServer,
    Vip,
    VirtualServer,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = VirtualServer(
    "10.9.0.1 80",
    (Vip(2, ip_address("10.9.0.1"), 80),),
    servers=(RealServer(ip_address("10.9.0.11"), 80),),
)
BOTH = Config(Global(router_id="one"), virtual_servers=(SERVER,), instances=(Instance("V1", "eth0", 51),))
CHECKERS = replace(BOTH, instances=())


def called(config: Config, name: str) -> Config:
    return replace(config, globals=replace(config.globals, router_id=name))


class Scene:
    """A parent with its toys; ``next`` is what it reads on a reload."""

    def __init__(self, folder: Path, config: Config, **more: Any) -> None:
        self.folder = folder
        self.next = Outcome(config)
        names = {"": "parent", "vrrp": "vrrp", "checkers": "checkers", "bfd": "bfd"}
        startup = Startup(
            lambda: self.next,
            lambda name, descriptor: [sys.executable, "-m", "tests.unit.toy_child", name, str(descriptor)],
            {name: str(folder / f"{text}.pid") for name, text in names.items()},
            str(folder / "control"),
            **more,
        )
        self.parent = Parent(startup, config)

    def notes(self) -> list[str]:
        path = self.folder / "toys"
        return path.read_text().splitlines() if path.exists() else []

    async def ask(self, command: str, **more: object) -> dict[str, Any]:
        request = {"command": command, **more}
        return await asyncio.to_thread(control.ask, str(self.folder / "control"), request)

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("TOY_NOTES", str(tmp_path / "toys"))
    for name in ("DATA_FILES", "STATS_FILES"):
        paths = {key: str(tmp_path / f"{name}.{key or 'parent'}") for key in getattr(main, name)}
        monkeypatch.setattr(main, name, paths)


async def until(what: Callable[[], object]) -> None:
    for _ in range(1200):
        if what():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came")


def play(scene: Scene, story: Callable[[Scene], Awaitable[None]]) -> int:
    """Run the parent, tell the story as soon as it can be asked, and stop it."""

    async def run() -> int:
        running = asyncio.create_task(scene.parent.run())
        try:
            await until(lambda: (scene.folder / "control").exists() or running.done())
            await story(scene)
        finally:
            scene.parent.stop()
        return await asyncio.wait_for(running, 60)

    status = asyncio.run(run())
    assert not list(scene.folder.glob("*.pid"))
    assert not (scene.folder / "control").exists()
    return status


def test_children_start_answer_and_stop(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        assert sorted(scene.notes()) == ["checkers start one", "vrrp start one"]
        told = await scene.ask("status")
        assert told["children"]["vrrp"] == {"pid": scene.pid("vrrp"), "fine": True}
        assert (await scene.ask("instances"))["router_id"] == "one"
        for command, trouble in (
            ("sessions", "the configuration has nothing for"),
            ("no-such", "no command"),
            ("drain", "RuntimeError: a fault of its own"),
            ("enable", "never heard of it"),
        ):
            with pytest.raises(XlvsError, match=trouble):
                await scene.ask(command)
        assert await scene.ask("servers")
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: "vrrp stop" in scene.notes())

    scene = Scene(tmp_path, BOTH)
    assert play(scene, story) == 0
    assert sorted(scene.notes())[-2:] == ["vrrp start one", "vrrp stop"]


def test_a_child_that_dies_is_started_again_and_hears_what_was_told(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.ask("force", instance="b1")
        told = {"event": "toy", "name": "b1", "up": True}
        while (await scene.ask("servers"))["heard"] != [told]:
            await asyncio.sleep(0.05)
        assert (await scene.ask("instances"))["heard"] == []
        vrrp = scene.pid("vrrp")
        os.kill(scene.pid("checkers"), signal.SIGKILL)
        await until(lambda: scene.notes().count("checkers start one") == 2)
        assert (await scene.ask("servers"))["heard"] == [told]
        assert scene.pid("vrrp") == vrrp

    assert play(Scene(tmp_path, BOTH), story) == 0


def test_neither_a_full_disk_nor_a_want_of_processes_keeps_a_child_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        first = (await scene.ask("status"))["children"]["checkers"]["pid"]
        with monkeypatch.context() as poor:
            poor.setattr(subprocess, "Popen", none)
            os.kill(first, signal.SIGKILL)
            await until(lambda: "Cannot start the Healthcheck child process" in caplog.text)
        await until(lambda: scene.notes().count("checkers start one") == 2)
        (tmp_path / "checkers.pid").rmdir()

    def none(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    (tmp_path / "checkers.pid").mkdir()  # nothing can be written there
    assert play(Scene(tmp_path, CHECKERS), story) == 0
    assert "does not say which process runs" in caplog.text


def test_without_respawn_a_death_is_the_end(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        os.kill(scene.pid("vrrp"), signal.SIGKILL)
        await until(lambda: "checkers stop" in scene.notes())

    scene = Scene(tmp_path, BOTH, respawn=False)
    assert play(scene, story) == 2


def test_what_cannot_begin_is_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(scene: Scene) -> None:
        await until(lambda: "died: Exiting" in caplog.text)

    assert play(Scene(tmp_path, called(CHECKERS, "bad")), story) == 2


def test_a_reload_starts_and_stops_children_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.next = Outcome(None, (Message(None, "x", "that is wrong", fatal=True),))
        with pytest.raises(XlvsError, match="that is wrong"):
            await scene.ask("reload")
        assert sorted(scene.notes()) == ["checkers start one", "vrrp start one"]
        scene.next = Outcome(called(CHECKERS, "two"))
        assert await scene.ask("reload") == {"reloaded": True}
        assert sorted(scene.notes())[1:] == ["checkers start one", "vrrp start one", "vrrp stop"]
        assert scene.notes().count("checkers reload two") == 1
        assert not (scene.folder / "vrrp.pid").exists()
        scene.next = Outcome(called(BOTH, "three"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "vrrp start three" in scene.notes())
        await until(lambda: "checkers reload three" in scene.notes())

    assert play(Scene(tmp_path, BOTH), story) == 0


def test_dumps_are_left_where_nothing_can_be_in_the_way(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")

    async def story(scene: Scene) -> None:
        os.symlink(victim, main.DATA_FILES["vrrp"])
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: Path(main.STATS_FILES["checkers"]).exists())
        await until(lambda: Path(main.DATA_FILES["checkers"]).exists())

    assert play(Scene(tmp_path, BOTH), story) == 0
    assert victim.read_text() == "precious"
    assert Path(main.DATA_FILES["vrrp"]).read_text() == "data\n"
    assert Path(main.STATS_FILES["vrrp"]).read_text() == "stats\n"
    assert "router_id='one'" in Path(main.DATA_FILES[""]).read_text()
    assert Path(main.DATA_FILES["vrrp"]).stat().st_mode & 0o777 == 0o600


def test_children_of_a_killed_parent_end_and_know_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from tests.unit import test_keepalived_parent as t;"
        "asyncio.run(t.Scene(Path(sys.argv[1]), t.BOTH).parent.run())"
    )

    async def story() -> None:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path))
        scene = Scene(tmp_path, BOTH)
        await until(lambda: len(scene.notes()) == 2)
        parent.kill()
        await parent.wait()
        await until(lambda: len(scene.notes()) == 4)
        assert sorted(scene.notes())[::2] == ["checkers abandoned", "vrrp abandoned"]
        assert not pidfile.running(str(tmp_path / "parent.pid"))

    asyncio.run(story())


def test_startup_and_shutdown_scripts_fifo_and_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, heard = tmp_path / "told", tmp_path / "heard"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\necho "$1" >> {told}\n')
    reader = tmp_path / "reader"
    reader.write_text(f'#!/bin/sh\nwhile read line; do echo "$line" >> {heard}; done < "$1"\n')
    for each in (script, reader):
        each.chmod(0o755)
    settings = Global(
        startup_script=Script((str(script), "startup"), user="root"),
        shutdown_script=Script((str(script), "shutdown"), user="root"),
        fifo=Fifo(str(tmp_path / "fifo"), Script((str(reader),), user="root")),
    )

    async def story(scene: Scene) -> None:
        with open(scene.folder / "fifo", "w") as fifo:
            fifo.write("a line\n")
        await until(lambda: heard.exists() and heard.read_text() == "a line\n")
        scene.next = Outcome(replace(CHECKERS, globals=settings))
        await scene.ask("reload")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert play(Scene(tmp_path, replace(CHECKERS, globals=settings)), story) == 0
        states = [systemd.recv(1000).decode().split("\n")[0] for _ in range(4)]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert told.read_text() == "startup\nshutdown\n"
    assert not (tmp_path / "fifo").exists()


def test_the_control_socket_bears_nonsense(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        for nonsense in (b"\n", b"[1]\n", b'{"command": 7}\n', b"\xff\n", b"[" * 60_000 + b"\n"):
            reader, writer = await asyncio.open_unix_connection(str(scene.folder / "control"))
            writer.write(nonsense)
            assert "error" in json.loads(await reader.readline())
            writer.close()
        reader, writer = await asyncio.open_unix_connection(str(scene.folder / "control"))
        writer.write(b"x" * 1_000_000)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert (await scene.ask("status"))["children"]

    assert play(Scene(tmp_path, CHECKERS), story) == 0


def test_a_file_of_the_dead_or_of_others_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert not pidfile.running(str(path))
    for text in ("", "no number", "4194305", f"{os.getppid()}"):
        path.write_text(text)
        assert not pidfile.running(str(path))
    held = pidfile.claim(str(path))
    assert pidfile.running(str(path))
    os.close(held)
    assert not pidfile.running(str(path))
