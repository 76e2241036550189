"""Both ends of many connections (many/many.c), every byte compared at both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from xlvs.lab import build, namespaces

PORT = 7777
TIMESTAMPS, SACK, WINDOW_SCALE = 1, 2, 4  # TCPI_OPT_* in linux/tcp.h
_HERE = Path(__file__).resolve()
_SOURCE = _HERE.with_name("many")
_PROGRAM = _HERE.parents[2] / "build" / "tests" / "many"


@cache
def program() -> str:
    """The compiled program; made again where its text is newer."""
    newest = max(path.stat().st_mtime for path in _SOURCE.iterdir())
    if not _PROGRAM.exists() or _PROGRAM.stat().st_mtime < newest:
        _PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        fresh = _PROGRAM.with_suffix(f".{os.getpid()}")
        words = ["clang-16", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
        namespaces.run([*words, "-o", str(fresh), str(_SOURCE / "many.c")])
        fresh.replace(_PROGRAM)
    return str(_PROGRAM)


@dataclass(frozen=True)
class Seen:
    """What one end saw. ``known`` answers had the client's own address and port, ``others`` another's."""

    connections: int = 0
    requests: int = 0
    bytes: int = 0
    wrong: int = 0
    failed: int = 0
    unfinished: int = 0
    known: int = 0
    others: int = 0
    options_all: int = 0  # of TCP, in use at both ends of every connection
    options_any: int = 0
    slowest: int = 0  # milliseconds
    servers: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def trouble(self) -> int:
        """Connections that were not as they should be; clients not known to their server among them."""
        return self.failed + self.unfinished + self.wrong + self.others


class Server:
    """The program on a real server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end_half(self) -> None:
        """End the server's half of every connection."""
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> Seen:
        """End the server; what it saw."""
        self._process.terminate()
        return _read(self._process)


class Client:
    """The program on a client, holding its connections open until it is told to go on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout
        line = process.stdout.readline()
        assert line == "held\n", line + "".join(process.communicate())

    def go_on(self) -> None:
        """Let the connections carry the rest of their requests."""
        self._tell("go\n")

    def end_half(self) -> None:
        """End the client's half of every connection."""
        self._tell("close\n")

    def result(self) -> Seen:
        """Wait for the end; what the client saw."""
        return _read(self._process)

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line)
        self._process.stdin.flush()


def _read(process: subprocess.Popen[str]) -> Seen:
    output, trouble = process.communicate()
    assert process.returncode == 0, trouble or output
    return Seen(**json.loads(output.splitlines()[-1]))


@contextmanager
def servers(made: build.Lab, toa: bool = True) -> Iterator[list[Server]]:
    """The program on every real server, in the cgroup of its nginx where it is to be shown clients."""
    with ExitStack() as stack:
        running = []
        for number, node in enumerate(made.topology.real_servers, 1):
            command = [program(), "serve", node.name, str(PORT)]
            if toa:
                procs = f"{made.cgroup(number)}/cgroup.procs"
                command = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', procs, *command]
            running.append(stack.enter_context(_started(made, node.name, command)))
        for process in running:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield [Server(process) for process in running]


def talk(made: build.Lab, connections: int, *, ipv6: bool = False, **options: int | list[str]) -> Seen:
    """Hold so many conversations with the service; see client.h for the options."""
    with talking(made, connections, ipv6=ipv6, **options) as process:
        return _read(process)


@contextmanager
def holding(
    made: build.Lab, connections: int, *, ipv6: bool = False, **options: int | list[str]
) -> Iterator[Client]:
    """The block runs while all connections are open, each with its first answer."""
    options = {"hold": 1, "at_once": 200, **options}
    with talking(made, connections, ipv6=ipv6, **options) as process:
        yield Client(process)


@contextmanager
def talking(
    made: build.Lab, connections: int, *, ipv6: bool = False, **options: int | list[str]
) -> Iterator[subprocess.Popen[str]]:
    """The client's process."""
    words = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"{name}={each}" for each in values]
    command = [program(), "talk", made.topology.vips[ipv6], str(PORT), str(connections), *words]
    with _started(made, "client", command) as process:
        yield process


@contextmanager
def _started(made: build.Lab, node: str, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        namespaces.inside(made.namespace(node), command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
