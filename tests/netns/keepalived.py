"""`xlvs keepalived` in a namespace, for a block: started, looked at, stopped whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from xlvs.lab import build

PATIENCE = 60.0  # seconds: a loaded machine may take some


def until(what: Callable[[], object], trouble: Callable[[], str] = str) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, trouble() or "it never came"
        time.sleep(0.05)


class Nodes(Protocol):
    """Where daemons run: a lab, or less."""

    def typed(self, node: str, command: Sequence[str]) -> list[str]:
        """The command line that an operator's command on a node is."""

    def run(self, node: str, command: Sequence[str]) -> str:
        """Run a command on a node, and return its output."""


class Daemon:
    """One daemon on one node of a lab; its files are in a folder of its own."""

    def __init__(self, made: Nodes, node: str, folder: Path) -> None:
        self.made, self.node, self.folder = made, node, folder
        self.file, self.log = folder / "keepalived.conf", folder / "log"
        self.process: subprocess.Popen[str] | None = None

    def configure(self, *lines: str) -> None:
        """Write its configuration."""
        self.file.write_text("".join(f"{line}\n" for line in lines))

    def start(self, *options: str, under: tuple[str, ...] = ()) -> None:
        """Start it in the foreground, and wait until it works; ``under`` is a command that runs it."""
        files = [f"--{name}={self.pid_file(name)}" for name in ("pid", "vrrp_pid", "checkers_pid", "bfd_pid")]
        words = ["keepalived", "-n", "-l", f"--use-file={self.file}", *files, *options]
        before = self.text.count("Running\n")
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.made.typed(self.node, [*under, *build.xlvs(*words)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        until(lambda: self.text.count("Running\n") > before, lambda: self.text)

    @property
    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text() if self.log.exists() else ""

    def pid_file(self, name: str = "pid") -> Path:
        """Where the number of a process is."""
        return self.folder / f"{name}.file"

    def pid(self, name: str = "pid") -> int:
        """The number of a process."""
        return int(self.pid_file(name).read_text())

    def ask(self, *words: str) -> Any:
        """An answer to one of its commands, from JSON."""
        return json.loads(self.made.run(self.node, build.xlvs("keepalived", *words, "--json")))

    def signal(self, number: signal.Signals, name: str = "pid") -> None:
        """Send a signal to one of its processes."""
        os.kill(self.pid(name), number)

    def reload(self) -> None:
        """SIGHUP, and wait until that is over."""
        done = "Running with the new configuration\n"
        before = self.text.count(done)
        self.signal(signal.SIGHUP)
        until(lambda: self.text.count(done) > before, lambda: self.text)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self.process
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def stop(self) -> int:
        """SIGTERM, and wait for its end."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """SIGKILL for the parent; its children end by themselves."""
        children = [self.pid(name) for name in ("checkers_pid", "vrrp_pid") if self.pid_file(name).exists()]
        self.signal(signal.SIGKILL)
        self.ended()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))

    def weights(self) -> dict[str, int]:
        """Real servers of all services as the data plane has them, by address."""
        listed = json.loads(self.made.run(self.node, build.xlvs("ipvsadm", "-L", "-n", "--json")))
        return {
            destination["address"]: destination["weight"]
            for service in listed["services"]
            for destination in service["destinations"]
        }


@contextmanager
def daemon(made: Nodes, node: str, folder: Path) -> Iterator[Daemon]:
    """A daemon for a block, not started yet."""
    one = Daemon(made, node, folder)
    try:
        yield one
    finally:
        if one.process:
            with suppress(OSError, ValueError):
                one.stop()
        if one.process:
            one.process.kill()
            one.process.wait()
