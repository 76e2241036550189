"""A real server in a namespace and a cgroup of its own, on the other end of a Wire."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.netns.toa.wire import MAC_TEXT, SERVER_MAC_TEXT, Wire
from xlvs.lab import namespaces
from xlvs.realserver import cgroups

SERVE = str(Path(__file__).with_name("serve.py"))
# The server's addresses, the director's local ones, strangers', and clients', whom no route leads to.
SERVER = {4: "10.9.0.2", 6: "fd09::2"}
LOCAL = {4: "10.9.0.1", 6: "fd09::1"}
STRANGER = {4: "10.9.0.99", 6: "fd09::99"}
CLIENT = {4: "203.0.113.77", 6: "2001:db8:77::7"}
ANY = {4: "0.0.0.0", 6: "::"}
BELIEVED = ("10.9.0.0/28", "fd09::/124")  # the strangers are outside


class Site:
    """``wire`` is the director; ``run`` starts servers that see what it sends."""

    def __init__(self, name: str, cgroup: str, wire: Wire, stack: ExitStack) -> None:
        self.namespace, self.cgroup, self.wire = name, cgroup, wire
        self._stack = stack

    def toa(self, *words: str, expect: int = 0) -> str:
        """Run ``xlvs toa``; its output, the error's included."""
        command = [sys.executable, "-m", "xlvs.cli.main", "toa", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def attach(self, *words: str) -> None:
        self.toa("attach", "--from", *BELIEVED, "--cgroup", self.cgroup, *words)

    def detach(self) -> None:
        self.toa("detach", "--cgroup", self.cgroup)

    def status(self) -> dict[str, Any]:
        """This cgroup's part of the status, empty where nothing is attached."""
        command = [sys.executable, "-m", "xlvs.cli.main", "toa", "status", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["attached"]
        return next((each for each in found if each["cgroup"] == self.cgroup), {})

    def counters(self) -> dict[str, int]:
        """The counters that are not 0."""
        return {name: value for name, value in self.status()["counters"].items() if value}

    def serve(self, kind: str, address: str, port: int, *options: str) -> None:
        """Start one of serve.py's servers, and wait until it listens."""
        process = self.start([sys.executable, SERVE, kind, address, str(port), *options])
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program on the real server, in its cgroup; it ends with the site."""
        enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', self.cgroup]
        process = subprocess.Popen(
            [*enter, *namespaces.inside(self.namespace, command)], stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_end, process)
        return process


@contextmanager
def site() -> Iterator[Site]:
    """Machines and cgroup, and nothing of them left."""
    name = f"xlvs-toa-{os.getpid()}"
    server, director = f"{name}-rs", f"{name}-dir"
    cgroup = f"{cgroups.root()}/{name}"
    with ExitStack() as stack:
        os.mkdir(cgroup)
        stack.callback(os.rmdir, cgroup)
        for each in (server, director):
            namespaces.run(["ip", "netns", "add", each])
            stack.callback(namespaces.delete, each)
        pair = f"eth0 address {SERVER_MAC_TEXT} type veth peer name wire address {MAC_TEXT} netns {director}"
        neighbours = [*LOCAL.values(), *STRANGER.values()]
        namespaces.batch(
            [
                f"link add {pair}",
                "link set lo up",
                f"address add {SERVER[4]}/24 dev eth0",
                f"address add {SERVER[6]}/64 dev eth0 nodad",
                "link set eth0 up",
                *(f"neighbour add {each} lladdr {MAC_TEXT} dev eth0 nud permanent" for each in neighbours),
            ],
            server,
        )
        namespaces.batch(["link set wire up"], director)
        wire = Wire(director, "wire")
        stack.callback(wire.close)
        made = Site(server, cgroup, wire, stack)
        stack.callback(made.detach)
        stack.callback(kill_all, cgroup)
        yield made


def kill_all(cgroup: str) -> None:
    """Children that outlive what was started, too."""
    Path(f"{cgroup}/cgroup.kill").write_text("1")
    while "populated 1" in Path(f"{cgroup}/cgroup.events").read_text():
        time.sleep(0.01)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()
