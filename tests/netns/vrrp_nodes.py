"""Nodes on one segment, each with xlvs's vrrp child or the real keepalived, in namespaces of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from xlvs.lab import namespaces

PATIENCE = 60.0  # seconds for whatever has to come about on a busy machine
INTERFACE = "e0"
_STARTED = "started"  # a line of tests.interop.vrrp.node


def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience:g} seconds"
        time.sleep(0.05)


class Node:
    """A namespace with one interface, and the daemon in it."""

    def __init__(self, namespace: str, number: int, folder: Path) -> None:
        self.namespace, self.number = namespace, number
        self.folder = folder / f"node{number}"
        self.folder.mkdir(mode=0o755)
        self.file = self.folder / "keepalived.conf"
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> str:
        """Run a command in the node."""
        return namespaces.run(namespaces.inside(self.namespace, command))

    def start(self, program: str, text: str) -> None:
        """Begin with a configuration; ``program`` is xlvs or keepalived."""
        self.file.write_text(text)
        self.log.unlink(missing_ok=True)
        if program == "xlvs":
            command = [sys.executable, "-m", "tests.interop.vrrp.node", str(self.file)]
        else:
            pids = [word for kind in "prc" for word in (f"-{kind}", str(self.folder / f"{kind}.pid"))]
            command = ["keepalived", "-n", "-l", "-D", "-P", "-f", str(self.file), *pids]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                namespaces.inside(self.namespace, command), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        if program == "xlvs":
            # Before that a signal would end it.
            until(lambda: _STARTED in self._alive().splitlines(), "it has begun")

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        self._alive()
        assert self._process is not None
        os.kill(self._process.pid, number)

    def reload(self, text: str) -> None:
        """Have the daemon read another configuration, which is never there in part."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)
        self.signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the daemon as an operator does, and wait for it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
            self._process = None

    def addresses(self) -> set[str]:
        """All addresses of the node."""
        links = json.loads(self.run("ip", "-j", "addr"))
        return {one["local"] for link in links for one in link["addr_info"] if "local" in one}

    def state(self) -> dict[str, dict[str, object]]:
        """What an xlvs node says of its instances, by name."""
        answer = Path(f"{self.file}.state")
        answer.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        until(lambda: self._alive() and answer.exists(), "the answer of the node")
        return {str(one["name"]): one for one in json.loads(answer.read_text())["instances"]}

    def _alive(self) -> str:
        """What it said so far; one that has died is nobody to wait for."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.said()}"
        return self.said()

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")


@contextmanager
def nodes(name: str, folder: Path, count: int = 2) -> Iterator[list[Node]]:
    """``count`` nodes behind a switch: 10.9.0.N and fd09::N; their namespaces begin with ``name``.

    The names are this run's own: another run's beginning would end its nodes.
    """
    name = f"{name}-{os.getpid()}"
    switch = f"{name}-s"
    made = [Node(f"{name}-{number}", number, folder) for number in range(1, count + 1)]
    everything = [switch, *(node.namespace for node in made)]
    with ExitStack() as stack:
        stack.callback(_delete, everything)
        for node in made:
            stack.callback(node.stop)
        _delete(everything)
        for one in everything:
            namespaces.run(["ip", "netns", "add", one])
        namespaces.batch(["link add br0 type bridge mcast_snooping 0", "link set br0 up"], switch)
        for node in made:
            port = f"p{node.number}"
            namespaces.batch(
                [
                    "link set lo up",
                    f"link add {INTERFACE} type veth peer name {port} netns {switch}",
                    f"addr add 10.9.0.{node.number}/24 dev {INTERFACE}",
                    f"addr add fd09::{node.number}/64 dev {INTERFACE} nodad",
                    # No waiting for duplicates of the link-local address either.
                    f"link set {INTERFACE} addrgenmode none",
                    f"addr add fe80::{node.number}/64 dev {INTERFACE} nodad",
                    f"link set {INTERFACE} up",
                ],
                node.namespace,
            )
            namespaces.batch([f"link set {port} master br0 up"], switch)
        yield made


def _delete(names: list[str]) -> None:
    namespaces.kill_processes([name for name in names if namespaces.exists(name)])
    for name in names:
        namespaces.delete(name)
