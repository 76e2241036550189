"""`xlvs keepalived` with real nginx behind NAT: who fails goes, who recovers comes, nobody else notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns import labs
from tests.netns.keepalived import Daemon, daemon, until
from xlvs.daemon.keepalived.capabilities import needed
from xlvs.keepalived.config import Config
from xlvs.lab import build, webserver
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root

# One connection and a request every so many seconds over it, until told to stop: each answer must come.
# (nginx ends a connection after a thousand.)
_STEADY = """
import http.client, signal, sys, time
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
count = 0
connection.connect()
first = connection.sock.getsockname()
while going:
    connection.request("GET", "/")
    body = connection.getresponse().read()
    assert body and connection.sock.getsockname() == first, "another connection"
    count += 1
    print(count, flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.NAT, 3, rules=False) as built:
        yield built


@pytest.fixture
def scene(made: build.Lab) -> Iterator[Daemon]:
    """A daemon not started yet; any user's script may work in its folder (pytest's own are root's alone)."""
    with tempfile.TemporaryDirectory(prefix="xlvs-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        note = folder / "note"
        note.write_text(f'#!/bin/sh\necho "$*" >> {folder}/notes\n')
        note.chmod(0o755)
        for number in (1, 2, 3):
            serve(made, number)
        with daemon(made, "director", folder) as one:
            yield one


def stopped(made: build.Lab, number: int) -> None:
    """Stop a real server's nginx; whoever connects is refused."""
    path = Path(made.site(number)) / "nginx.pid"
    if path.exists():
        pid = int(path.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{pid}"))


def serve(made: build.Lab, number: int) -> None:
    """Start it, if it does not run."""
    if not (Path(made.site(number)) / "nginx.pid").exists():
        made.run(f"rs{number}", webserver.start_command(made.site(number)))


def block(
    made: build.Lab, numbers: tuple[int, ...] = (1, 2), *more: str, port: int = 80, each: str = ""
) -> list[str]:
    """A virtual server with a TCP check a second for each of these real servers."""
    vip = made.topology.vips[0]
    servers = [
        line
        for number in numbers
        for line in (
            f"  real_server {made.topology.rip(number)} 80 {{",
            f"    weight 1\n    {each.replace('NUMBER', str(number))}",
            "    TCP_CHECK {\n      connect_timeout 20\n      retry 1\n      delay_before_retry 1\n    }",
            "  }",
        )
    ]
    head = [
        f"virtual_server {vip} {port} {{",
        "  delay_loop 1",
        "  lb_algo rr",
        "  lb_kind NAT",
        "  protocol TCP",
    ]
    return [*head, *more, *servers, "}"]


GLOBAL = ["global_defs {", "  script_user root", "}"]


@contextmanager
def steady(made: build.Lab, pause: float = 0.05) -> Iterator[subprocess.Popen[str]]:
    """A client with one connection in use for a block, whose requests must all be answered."""
    client = made.start("client", [sys.executable, "-c", _STEADY, made.topology.vips[0], str(pause)])
    try:
        assert client.stdout
        assert client.stdout.readline() == "1\n"
        yield client
        client.send_signal(signal.SIGTERM)
        output, trouble = client.communicate(timeout=60)
        assert client.returncode == 0, trouble
        assert len(output.splitlines()) > 3
    finally:
        client.kill()
        client.wait()


def pages(made: build.Lab, count: int) -> set[str]:
    """Which real servers answer so many requests, a connection each."""
    return {page.removeprefix("<h1>").removesuffix("</h1>") for page in labs.answers(made, count)}


def notes(scene: Daemon) -> list[str]:
    path = scene.folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_a_server_that_fails_goes_and_comes_back_and_scripts_run_once(made: build.Lab, scene: Daemon) -> None:
    first, second, third = (made.topology.rip(number) for number in (1, 2, 3))
    script = f"{scene.folder}/note"
    scene.configure(
        *GLOBAL,
        *block(
            made,
            (1, 2),
            f'  quorum_up "{script} quorum up"',
            f'  quorum_down "{script} quorum down"',
            f"  sorry_server {third} 80",
            each=f'notify_up "{script} up NUMBER"\n    notify_down "{script} down NUMBER"',
        ),
    )
    scene.start()
    assert scene.weights() == {first: 1, second: 1}
    assert pages(made, 4) == {"RS1", "RS2"}
    stopped(made, 1)
    until(lambda: scene.weights() == {second: 1}, lambda: scene.text)
    assert pages(made, 4) == {"RS2"}
    stopped(made, 2)
    until(lambda: scene.weights() == {third: 1}, lambda: scene.text)
    assert pages(made, 2) == {"RS3"}
    serve(made, 1)
    serve(made, 2)
    until(lambda: scene.weights() == {first: 1, second: 1}, lambda: scene.text)
    assert pages(made, 4) == {"RS1", "RS2"}
    until(lambda: len(notes(scene)) >= 7)
    assert sorted(notes(scene)) == sorted(
        ["quorum up", "down 1", "down 2", "quorum down", "quorum up", "up 1", "up 2"]
    )
    assert scene.stop() == 0
    assert scene.weights() == {}
    assert [path.name for path in scene.folder.iterdir() if path.name.endswith(".file")] == []


def test_inhibited_drained_and_disabled_servers(made: build.Lab, scene: Daemon) -> None:
    first, second = made.topology.rip(1), made.topology.rip(2)
    scene.configure(*GLOBAL, *block(made, each="inhibit_on_failure"))
    scene.start()
    stopped(made, 1)
    until(lambda: scene.weights() == {first: 0, second: 1}, lambda: scene.text)
    serve(made, 1)
    until(lambda: scene.weights() == {first: 1, second: 1}, lambda: scene.text)
    scene.ask("drain", first)
    assert scene.weights() == {first: 0, second: 1}
    assert pages(made, 3) == {"RS2"}
    scene.ask("disable", f"{first}:80")
    assert scene.weights() == {second: 1}
    told = scene.ask("servers")["virtual_servers"][0]["servers"]
    assert [each["state"] for each in told] == ["disabled", "up"]
    scene.ask("enable", first)
    assert scene.weights() == {first: 1, second: 1}
    status = scene.ask("status")
    assert status["pid"] == scene.pid()
    assert status["children"]["checkers"]["pid"] == scene.pid("checkers_pid")


def test_kills_are_survived_by_traffic_and_what_was_out_stays_out(made: build.Lab, scene: Daemon) -> None:
    first, second, third = (made.topology.rip(number) for number in (1, 2, 3))
    scene.configure(*GLOBAL, *block(made, (1, 2, 3)))
    stopped(made, 3)
    scene.start()
    until(lambda: scene.weights() == {first: 1, second: 1}, lambda: scene.text)
    with steady(made):
        before = scene.pid("checkers_pid")
        until(lambda: "down" in str(remembered(scene)), lambda: str(remembered(scene)))
        scene.signal(signal.SIGKILL, "checkers_pid")
        until(lambda: scene.text.count("Activating healthchecker") == 6, lambda: scene.text)
        assert scene.pid("checkers_pid") != before
        assert scene.weights() == {first: 1, second: 1}
        assert pages(made, 4) == {"RS1", "RS2"}
        scene.kill()
        assert scene.weights() == {first: 1, second: 1}
        assert pages(made, 4) == {"RS1", "RS2"}
        scene.start()
        assert scene.weights() == {first: 1, second: 1}
        assert pages(made, 4) == {"RS1", "RS2"}
        serve(made, 3)
        until(lambda: scene.weights() == {first: 1, second: 1, third: 1}, lambda: scene.text)


def remembered(scene: Daemon) -> object:
    """The states of real servers that the daemon told last."""
    servers = scene.ask("servers")["virtual_servers"][0]["servers"]
    return [each["state"] for each in servers]


def test_reloads_leave_alone_what_did_not_change(made: build.Lab, scene: Daemon) -> None:
    first, second = made.topology.rip(1), made.topology.rip(2)
    untouched = block(made, (1,))
    scene.configure(*GLOBAL, *untouched)
    scene.start()
    with steady(made):
        for number, other in enumerate(((2,), (2, 3), (3,))):
            scene.configure(*GLOBAL, *untouched, *block(made, other, port=81 + number % 2))
            scene.reload()
            assert set(scene.weights()) == {first, *(made.topology.rip(each) for each in other)}
        attempts = checked(scene)
        scene.configure(*GLOBAL, *untouched, "virtual_server {")
        answer = labs.attempt(made, "director", "keepalived", "reload")
        assert answer.returncode == 1
        assert "xlvs: " in answer.stderr
        assert first in scene.weights()
        scene.configure(*GLOBAL, *untouched)
        scene.reload()
        assert scene.weights() == {first: 1}
        assert checked(scene) >= attempts
    assert "Removing service" not in scene.text.replace(f"Removing service [{second}]", "").replace(
        f"Removing service [{made.topology.rip(3)}]", ""
    )


def checked(scene: Daemon) -> int:
    """How often the first real server has been asked: a reload does not forget it."""
    servers = scene.ask("servers")["virtual_servers"][0]["servers"]
    return int(servers[0]["checks"][0]["attempts"])


def test_one_daemon_is_enough_and_services_may_stay(made: build.Lab, scene: Daemon) -> None:
    scene.configure(*GLOBAL, *block(made, (1,)))
    scene.start("-I")
    words = build.xlvs("keepalived", "-n", "-l", f"--use-file={scene.file}", f"--pid={scene.pid_file()}")
    second = labs.typed(made, "director", words)
    assert (second.returncode, "daemon is already running" in second.stderr) == (0, True)
    assert scene.stop() == 0
    assert scene.weights() == {made.topology.rip(1): 1}
    scene.start()
    assert scene.stop() == 0
    assert scene.weights() == {}


def test_the_capabilities_that_it_keeps_are_enough(made: build.Lab, scene: Daemon) -> None:
    scene.configure(
        *GLOBAL,
        *block(
            made, (1, 2), each=f'notify_down "{scene.folder}/note down NUMBER" nobody\n    inhibit_on_failure'
        ),
        "vrrp_instance V1 {",
        "  interface eth1\n  virtual_router_id 51\n  state MASTER",
        "  virtual_ipaddress {\n    10.99.0.1/32\n  }",
        "}",
    )
    # An operator may leave it no more than its processes keep of themselves.
    kept = {one for name in ("", "vrrp", "checkers") for one in needed(name, Config())}
    names = ",".join(f"+{one.name.lower()}" for one in kept)
    scene.start(under=("setpriv", f"--bounding-set=-all,{names}"))
    for name in ("pid", "checkers_pid", "vrrp_pid"):
        status = Path(f"/proc/{scene.pid(name)}/status").read_text()
        bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
        assert bounding.split()[1] != "000001ffffffffff"
    until(lambda: "10.99.0.1" in made.run("director", ["ip", "addr"]), lambda: scene.text)
    stopped(made, 2)
    until(lambda: scene.weights()[made.topology.rip(2)] == 0, lambda: scene.text)
    until(lambda: notes(scene) == ["down 2"], lambda: scene.text)
    assert (scene.folder / "notes").stat().st_uid != 0
    assert scene.stop() == 0
    assert "10.99.0.1" not in made.run("director", ["ip", "addr"])


def test_in_the_background_it_is_a_daemon(made: build.Lab, scene: Daemon) -> None:
    scene.configure(*GLOBAL, *block(made, (1,)))
    files = [f"--{name}={scene.pid_file(name)}" for name in ("pid", "checkers_pid")]
    log = f"--log-file={scene.folder}/own.log"
    made.run("director", build.xlvs("keepalived", f"--use-file={scene.file}", "-G", log, *files))
    until(lambda: scene.pid_file("checkers_pid").exists() and scene.weights())
    pid = scene.pid()
    assert os.getsid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert scene.weights() == {}
    assert "Running" in (scene.folder / "own.log").read_text()
    assert "Activating healthchecker" in (scene.folder / "own_healthcheckers.log").read_text()
