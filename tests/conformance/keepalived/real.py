"""The real keepalived's opinion of a configuration, and ours, in the same terms."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xlvs.keepalived.files import Memory
from xlvs.keepalived.host import Link
from xlvs.keepalived.parse import parse

KEEPALIVED = "/usr/sbin/keepalived"
NAMESPACE = f"xlvs-conf-{os.getpid()}"  # other trees test at the same time
FILE = "/k/keepalived.conf"
CONFIG_ID = "one"
LINKS = ("eth0", "eth1")
USERS = ("root", "nobody")
GROUPS = ("root", "nogroup")
PROGRAMS = ("/bin/true", "/bin/false", "true", "yes")
_PLACE = re.compile(r"^\((?:[^()]*: )?Line (\d+)\) ")


@dataclass(frozen=True)
class Answer:
    """The exit status of -t, and each message with its line (0: none), in order of lines."""

    status: int
    messages: tuple[tuple[int, str], ...]


class Bench:
    """The machine on which recordings were made, for our parser."""

    def link(self, name: str) -> Link | None:
        return Link(name, loopback=name == "lo") if name in (*LINKS, "lo") else None

    def user(self, name: str) -> bool:
        return name in USERS

    def group(self, name: str) -> bool:
        return name in GROUPS

    def program(self, path: str) -> bool:
        return path in PROGRAMS


@contextmanager
def namespace() -> Iterator[None]:
    """A network namespace with LINKS and nothing else."""
    run = ["ip", "-n", NAMESPACE]
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run([*run, "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1]], check=True)
        for link in LINKS:
            subprocess.run([*run, "link", "set", link, "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def real(text: str, patience: float = 60) -> Answer:
    """What keepalived -t says, within so many seconds; within :func:`namespace`."""
    with tempfile.TemporaryDirectory(prefix="xlvs-conf-") as folder:
        path = Path(folder) / "keepalived.conf"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        done = subprocess.run(
            ["ip", "netns", "exec", NAMESPACE, KEEPALIVED, "-t", "-i", CONFIG_ID, "-f", str(path)],
            capture_output=True,
            timeout=patience,
            check=False,
        )
    output = done.stderr.decode("utf-8", "surrogateescape").replace(str(path.parent), "/k")
    return Answer(done.returncode, _sorted(output.splitlines()))


def ours(text: str) -> Answer:
    """What xlvs keepalived -t says of the same."""
    outcome = parse(FILE, Memory({FILE: text}), CONFIG_ID, Bench())
    return Answer(outcome.status, _sorted(str(message) for message in outcome.messages))


def _sorted(lines: Iterator[str] | list[str]) -> tuple[tuple[int, str], ...]:
    """Each different message once: keepalived's processes all read the file and say the same."""
    found = set()
    for line in lines:
        match = _PLACE.match(line)
        found.add((int(match[1]), line[match.end() :]) if match else (0, line))
    return tuple(sorted(found))
