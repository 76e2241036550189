"""Our bfd child and Debian's keepalived are each other's neighbours, over IPv4 and IPv6."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.vrrp.record import inside, ip
from xlvs.lab import build

pytestmark = pytest.mark.root

OURS, THEIRS = "xlvs-bfd-us", "xlvs-bfd-them"
PATIENCE = 30.0
# Slow enough for a busy machine: 300 ms, and ten of them may be missed.
FOUR = "b4,192.168.98.2,192.168.98.1,{tx},0.3,10"
SIX = "b6,fd98::2,fd98::1,0.3,0.3,10"
REAL = """
global_defs {
    router_id real
}
bfd_instance b4 {
    neighbor_ip 192.168.98.1
    source_ip 192.168.98.2
    min_rx 300
    min_tx 300
    multiplier 10
}
bfd_instance b6 {
    neighbor_ip fd98::1
    source_ip fd98::2
    min_rx 300
    min_tx 300
    multiplier 10
    hoplimit 64
}
vrrp_instance v {
    interface e0
    virtual_router_id 1
    virtual_ipaddress {
        10.9.9.9
    }
    track_bfd {
        b4
        b6
    }
}
"""


@pytest.fixture
def wire() -> Iterator[None]:
    ip("netns", "add", OURS)
    ip("netns", "add", THEIRS)
    try:
        ip("-n", OURS, "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", THEIRS)
        for number, namespace in enumerate((OURS, THEIRS), 1):
            ip("-n", namespace, "addr", "add", f"192.168.98.{number}/24", "dev", "e0")
            ip("-n", namespace, "addr", "add", f"fd98::{number}/64", "dev", "e0", "nodad")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", "e0", "up")
        yield
    finally:
        ip("netns", "del", OURS)
        ip("netns", "del", THEIRS)


class Node:
    """A process whose lines are kept."""

    def __init__(self, namespace: str, output: Path, *command: str) -> None:
        self.output = output
        with output.open("wb") as file:
            words = inside(namespace, *command)
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True)

    def text(self) -> str:
        return self.output.read_text()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait(30)


def until(what: str, true: Callable[[], bool], *nodes: Node) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}\n" + "\n".join(
            n.text() for n in nodes
        )
        time.sleep(0.05)


def events(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.text().splitlines() if line.startswith("{")]


def up(node: Node) -> dict[str, bool]:
    """The sessions as last told."""
    return {event["name"]: event["up"] for event in events(node) if event["event"] == "bfd"}


def sessions(node: Node) -> dict[str, dict[str, Any]]:
    before = sum(event["event"] == "sessions" for event in events(node))
    node.tell("")
    until("an answer", lambda: sum(event["event"] == "sessions" for event in events(node)) > before, node)
    last = [event for event in events(node) if event["event"] == "sessions"][-1]
    return {session["name"]: session for session in last["sessions"]}


def test_up_reload_down_and_up_again(wire: None, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text(REAL)
    pids = [word for kind in "prcb" for word in (f"-{kind}", f"{tmp_path}/{kind}.pid")]
    command = ["keepalived", "-n", "-l", "-D", "-G", "-f", f"{tmp_path}/conf", *pids]
    program = [sys.executable, "-u", "-m", "tests.interop.bfd_node"]
    real = Node(THEIRS, tmp_path / "real", *command)
    ours = Node(OURS, tmp_path / "ours", *program, FOUR.format(tx=0.3), SIX)
    both = (real, ours)
    try:
        until("both up", lambda: up(ours) == {"b4": True, "b6": True}, *both)
        until("up there too", lambda: real.text().count("is in state Up") >= 2, *both)
        polled = sessions(ours)
        assert polled["b4"]["detection"] == pytest.approx(3.0)

        # Other times on one session are agreed on while it stays up.
        ours.tell(f"{FOUR.format(tx=0.5)} {SIX}")
        until("the new interval", lambda: sessions(ours)["b4"]["interval"] == pytest.approx(0.5), *both)
        assert [session["went_down"] for session in sessions(ours).values()] == [0, 0]

        # Killed: silence is noticed. The parent starts it anew, and both come up again.
        pid = int((tmp_path / "b.pid").read_text())
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until("down", lambda: any(s["went_down"] for s in sessions(ours).values()), *both)
        until("up again", lambda: up(ours) == {"b4": True, "b6": True}, *both)

        # A wanted end is told, not left to silence.
        downs = real.text().count("Neighbor Signaled Session Down")
        assert ours.process.stdin is not None
        ours.process.stdin.close()
        until("told of the end", lambda: real.text().count("Neighbor Signaled Session Down") > downs, *both)
        assert ours.process.wait(30) == 0
    finally:
        ours.end()
        real.end()


OURS_TEXT = """
bfd_instance b4 {
    neighbor_ip 192.168.98.2
    source_ip 192.168.98.1
    min_rx 500
    min_tx 500
    multiplier 100
}
vrrp_instance v {
    interface e0
    virtual_router_id 2
    advert_int 1
    virtual_ipaddress {
        10.9.9.8
    }
    track_bfd {
        b4
    }
}
"""


def test_our_child_killed_and_started_anew_is_no_news_to_anybody(wire: None, tmp_path: Path) -> None:
    # keepalived's own vrrp goes through FAULT then, and the neighbour is told that the session is down.
    theirs, ours_file = tmp_path / "theirs.conf", tmp_path / "ours.conf"
    theirs.write_text(REAL.replace("min_rx 300", "min_rx 500").replace("multiplier 10", "multiplier 100"))
    ours_file.write_text(OURS_TEXT)

    def pids(whose: str) -> list[str]:
        return [word for kind in "prcb" for word in (f"-{kind}", f"{tmp_path}/{whose}.{kind}")]

    xlvs = build.xlvs("keepalived")
    real = Node(THEIRS, tmp_path / "real", "keepalived", "-nlDG", "-f", str(theirs), *pids("theirs"))
    ours = Node(OURS, tmp_path / "ours", *xlvs, "-nlD", "-f", str(ours_file), *pids("ours"))

    def asked(command: str) -> Any:
        words = inside(OURS, *xlvs, command, "--json")
        return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)

    def session() -> dict[str, Any]:
        found: dict[str, Any] = asked("sessions")["sessions"][0]
        return found

    try:
        until("master", lambda: "(v) Entering MASTER STATE" in ours.text(), real, ours)
        before, said = session(), ours.text().count("STATE")
        heard = real.text()
        pid = int((tmp_path / "ours.b").read_text())
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until("going on", lambda: "Going on with the session" in ours.text(), real, ours)
        until("hearing it", lambda: session()["received"] > 3, real, ours)
        after = session()
        assert (after["state"], after["discriminator"]) == ("UP", before["discriminator"])
        assert ours.text().count("STATE") == said, ours.text()
        assert "Entering Down" not in real.text()[len(heard) :]
        assert asked("instances")["instances"][0]["state"] == "MASTER"
    finally:
        ours.end()
        real.end()
