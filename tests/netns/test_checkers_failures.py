"""Real servers that hang, say 500, refuse: out after their tries, back afterwards, nobody's request lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from tests.netns.keepalived import Daemon, daemon, until
from xlvs.lab import build, webserver
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.NAT, 3, rules=False) as built:
        yield built


@pytest.fixture
def scene(made: build.Lab, tmp_path: Path) -> Iterator[Daemon]:
    note = tmp_path / "note"
    note.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/notes\n')
    note.chmod(0o755)
    with daemon(made, "director", tmp_path) as one:
        yield one


def workers(made: build.Lab, number: int) -> list[int]:
    """nginx's processes on a real server."""
    master = int((Path(made.site(number)) / "nginx.pid").read_text())
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def answer(made: build.Lab, number: int, what: str, instead: str) -> None:
    """Exchange a line of a real server's nginx, and let it be read."""
    file = Path(made.site(number)) / "nginx.conf"
    assert what in file.read_text()
    file.write_text(file.read_text().replace(what, instead))
    made.run(f"rs{number}", [*webserver.start_command(made.site(number)), "-s", "reload"])


def pages(made: build.Lab) -> set[str]:
    """Who answers a dozen requests, none of which may fail."""
    found = labs.answers(made, 12)
    assert all(page.startswith("<h1>RS") for page in found), found
    return {page.removeprefix("<h1>").removesuffix("</h1>") for page in found}


def configure(made: build.Lab, scene: Daemon) -> None:
    """Two real servers asked by HTTP each second, the third one in reserve."""
    head = [f"virtual_server {made.topology.vips[0]} 80 {{", "delay_loop 1", "lb_algo rr", "lb_kind NAT"]
    head += ["protocol TCP", f"sorry_server {made.topology.rip(3)} 80"]
    head += [f'quorum_{way} "{scene.folder}/note {way}"' for way in ("up", "down")]
    check = "HTTP_GET {\nconnect_timeout 5\nretry 1\ndelay_before_retry 1\nfast_recovery\nurl {\npath /\n}\n}"
    servers = [f"real_server {made.topology.rip(each)} 80 {{\nweight 1\n{check}\n}}" for each in (1, 2)]
    scene.configure("global_defs {", "script_user root", "}", *head, *servers, "}")


def test_whoever_fails_is_out_and_comes_back_and_no_request_is_lost(made: build.Lab, scene: Daemon) -> None:
    first, second, third = (made.topology.rip(number) for number in (1, 2, 3))
    both = {first: 1, second: 1}

    def stands(wanted: dict[str, int]) -> None:
        until(lambda: scene.weights() == wanted, lambda: scene.text)

    def notes() -> list[str]:
        path = scene.folder / "notes"
        return path.read_text().split() if path.exists() else []

    configure(made, scene)
    scene.start()
    stands(both)
    assert pages(made) == {"RS1", "RS2"}
    # Hung: the kernel takes connections, nobody answers.
    hung = workers(made, 1)
    for process in hung:
        os.kill(process, signal.SIGSTOP)
    try:
        stands({second: 1})
        assert pages(made) == {"RS2"}
    finally:
        for process in hung:
            os.kill(process, signal.SIGCONT)
    stands(both)
    # Answering, but 500.
    answer(made, 1, "root html;", "return 500;")
    stands({second: 1})
    assert pages(made) == {"RS2"}
    # The other one refuses: the third serves, and the script is told once.
    stopping = workers(made, 2)[0]
    os.kill(stopping, signal.SIGTERM)
    stands({third: 1})
    assert pages(made) == {"RS3"}
    until(lambda: len(notes()) >= 2)
    answer(made, 1, "return 500;", "root html;")
    stands({first: 1})
    assert pages(made) == {"RS1"}
    until(lambda: not os.path.exists(f"/proc/{stopping}"))
    made.run("rs2", webserver.start_command(made.site(2)))
    stands(both)
    assert pages(made) == {"RS1", "RS2"}
    until(lambda: len(notes()) >= 3)
    assert notes() == ["up", "down", "up"]
