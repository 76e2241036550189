"""A lab's machines with echo servers on the real servers, for what happens to running traffic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.netns import labs
from tests.netns.traffic import Conversation
from xlvs.lab import build, namespaces
from xlvs.lab.topology import Method, host_port

PROGRAM = str(Path(__file__).with_name("traffic.py"))
REPOSITORY = str(Path(__file__).resolve().parents[2])
PORT = 7000


@dataclass
class Site:
    """A lab whose director a test brings up itself."""

    made: build.Lab

    @property
    def interfaces(self) -> list[str]:
        return [port.name for port in self.made.topology.director.interfaces]

    @property
    def vip(self) -> str:
        return self.made.topology.vips[0]

    def director(self, *command: str, text: str | None = None) -> str:
        """Type an xlvs command on the director; it must succeed."""
        return namespaces.run(namespaces.inside(self.namespace, build.xlvs(*command)), text)

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Type an xlvs command on the director, whatever becomes of it."""
        return self.run(build.xlvs(*command))

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Any command on the director."""
        inside = namespaces.inside(self.namespace, command)
        return subprocess.run(inside, capture_output=True, text=True, check=False, cwd=REPOSITORY)

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A few lines of Python on the director."""
        return self.run([sys.executable, "-c", code, *arguments])

    @property
    def namespace(self) -> str:
        return self.made.namespace("director")

    def up(self, *options: str) -> str:
        return self.director("up", *self.interfaces, *options)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.attempt("status", "--json").stdout)
        return found

    def service(
        self, protocol: str = "t", port: int = PORT, scheduler: str = "rr", ipv6: bool = False
    ) -> str:
        """Add a service of all real servers' echo; returns its name for ipvsadm."""
        topology = self.made.topology
        name = host_port(topology.vips[ipv6], port)
        lines = [f"-A -{protocol} {name} -s {scheduler}"]
        if topology.local_addresses:
            lines.append(f"-P -{protocol} {name} -z {topology.pool(ipv6)}")
        for number in range(1, len(topology.real_servers) + 1):
            rip = host_port(topology.rip(number, ipv6), PORT)
            lines.append(f"-a -{protocol} {name} -r {rip} {topology.method.option}")
        self.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
        return name

    def audit(self) -> dict[str, Any]:
        """See audit.py."""
        done = self.run([sys.executable, "-m", "tests.netns.audit"])
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def assert_sound(self) -> dict[str, Any]:
        """Nothing leaked, lost or stuck, loads right; looks again where packets moved meanwhile."""
        for _ in range(10):
            found = self.audit()
            if not any(found[what] for what in ("stuck", "leaked", "missing", "loads")):
                return found
            time.sleep(0.3)
        raise AssertionError(json.dumps(found, indent=1)[:4000])

    @contextmanager
    def talking(
        self, *options: str, address: str | None = None, port: int = PORT, node: str = "client"
    ) -> Iterator[list[Conversation]]:
        """Keep conversations with the service running for a block; the list is full after it."""
        command = [sys.executable, PROGRAM, "talk", address or self.vip, str(port), *options]
        process = subprocess.Popen(
            namespaces.inside(self.made.namespace(node), command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        seen: list[Conversation] = []
        try:
            assert process.stdout.readline() == "ready\n"
            yield seen
            process.stdin.close()
            seen += [Conversation(**each) for each in json.loads(process.stdout.readline())]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@contextmanager
def site(method: Method = Method.NAT, real_servers: int = 2, *, ipv6: bool = False) -> Iterator[Site]:
    """The machines, echo servers running, no director yet."""
    with labs.machines(method, real_servers, ipv6=ipv6) as made, ExitStack() as stack:
        servers = []
        for node in made.topology.real_servers:
            command = [sys.executable, PROGRAM, "serve", node.name, str(PORT)]
            server = stack.enter_context(
                subprocess.Popen(
                    namespaces.inside(made.namespace(node.name), command), stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(server.kill)
            servers.append(server)
        for server in servers:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
        yield Site(made)


def assert_unbroken(seen: Sequence[Conversation], *, lost: int = 0) -> None:
    """Every conversation whole; of UDP records at most so many lost in all."""
    assert seen
    assert all(each.received for each in seen), seen
    broken = [each for each in seen if each.error or each.wrong]
    assert not broken, broken
    for each in seen:
        assert each.protocol == "udp" or each.received == each.sent, each
    gone = sum(each.sent - each.received for each in seen)
    assert gone <= lost, f"{gone} records lost: {[e for e in seen if e.received < e.sent]}"
