"""`xlvs keepalived` asks real servers for their load, and for certificates of a CA; traffic follows."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns import labs
from tests.netns.checks.site import certificate
from tests.netns.keepalived import Daemon, daemon, until
from xlvs.lab import build
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root
AGENT, TLS = 9999, 8443


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.NAT, 2, rules=False) as built:
        yield built


@pytest.fixture
def scene(made: build.Lab, tmp_path: Path) -> Iterator[Daemon]:
    with daemon(made, "director", tmp_path) as one:
        yield one


@contextmanager
def running(made: build.Lab, number: int, words: list[str]) -> Iterator[None]:
    """A program on a real server for a block."""
    process = subprocess.Popen(made.typed(f"rs{number}", words), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def block(made: build.Lab, check: str, numbers: tuple[int, ...] = (1, 2)) -> list[str]:
    """A virtual server whose real servers have weight 100 and this check, once a second."""
    head = [f"virtual_server {made.topology.vips[0]} 80 {{", "delay_loop 1", "lb_algo wrr", "lb_kind NAT"]
    servers = [
        f"real_server {made.topology.rip(number)} 80 {{\nweight 100\ndelay_before_retry 1\n{check}\n}}"
        for number in numbers
    ]
    return [*head, "protocol TCP", *servers, "}"]


def test_weights_and_traffic_follow_what_agents_say(made: build.Lab, scene: Daemon) -> None:
    first, second = made.topology.rip(1), made.topology.rip(2)
    check = f"AGENT_CHECK {{\nconnect_port {AGENT}\nconnect_timeout 20\nretry 3\ndamping 0.5\n}}"
    said = {number: scene.folder / f"said{number}" for number in (1, 2)}
    with ExitStack() as agents:
        for number, file in said.items():
            file.write_text("ready up 100%\n")
            words = ["realserver", "agent", "--port", str(AGENT), "--command", "cat", str(file)]
            agents.enter_context(running(made, number, build.xlvs(*words)))
        scene.configure(*block(made, check))
        scene.start()
        until(lambda: scene.text.count("AGENT_CHECK on service") >= 2, lambda: scene.text)
        until(lambda: scene.weights() == {first: 100, second: 100}, lambda: scene.text)
        said[1].write_text("20%\n")
        until(lambda: scene.weights() == {first: 20, second: 100}, lambda: scene.text)
        assert f"from 100 to 60 for active service [{first}]" in scene.text  # damped: half of the way
        pages = Counter(labs.answers(made, 60))
        assert sorted(pages.values()) == [10, 50], pages
        said[1].write_text("drain\n")
        until(lambda: scene.weights() == {first: 0, second: 100}, lambda: scene.text)
        assert len(set(labs.answers(made, 6))) == 1
        said[1].write_text("down #tired\n")
        until(lambda: scene.weights() == {second: 100}, lambda: scene.text)
        said[1].write_text("up ready 100%\n")
        until(lambda: scene.weights() == {first: 100, second: 100}, lambda: scene.text)
    # The agents are gone: so are their real servers.
    until(lambda: scene.weights() == {}, lambda: scene.text)


def test_a_ca_decides_whose_certificates_count_and_a_bad_one_changes_nothing(
    made: build.Lab, scene: Daemon
) -> None:
    first, second = made.topology.rip(1), made.topology.rip(2)
    check = f"SSL_GET {{\nconnect_port {TLS}\nconnect_timeout 20\nfast_recovery\nurl {{\npath /\n}}\n}}"
    files = {number: certificate(scene.folder, f"rs{number}") for number in (1, 2)}

    def configure(authority: str) -> None:
        ssl = ["SSL {", f"ca {authority}", "}"] if authority else []
        scene.configure(*ssl, *block(made, check))

    with ExitStack() as servers:
        for number, (public, private) in files.items():
            words = ["openssl", "s_server", "-accept", str(TLS), "-www", "-quiet"]
            servers.enter_context(running(made, number, [*words, "-cert", public, "-key", private]))
        configure("")
        scene.start()
        until(lambda: scene.text.count("succeed on service") == 2, lambda: scene.text)
        until(lambda: scene.weights() == {first: 100, second: 100}, lambda: scene.text)
        configure(files[1][0])
        scene.reload()
        until(lambda: scene.weights() == {first: 100}, lambda: scene.text)
        configure(files[2][0])
        scene.reload()
        until(lambda: scene.weights() == {second: 100}, lambda: scene.text)
        configure(f"{scene.folder}/missing")
        scene.reload()
        until(lambda: "cannot use" in scene.text, lambda: scene.text)
        assert scene.weights() == {second: 100}
