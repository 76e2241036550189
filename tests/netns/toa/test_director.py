"""Through a director: real servers in other networks, none of which knows a way to a client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, cgroups, namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = [pytest.mark.root, pytest.mark.slow]

families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
HERE = Path(__file__).parent
STREAMS = 5300
SERVERS = {5301: "udp", 5302: "udp-message", 5303: "udp-connected", 5304: "udp-batch"}


@pytest.fixture(scope="module")
def site() -> Iterator[build.Lab]:
    """Two real servers, each with a server of every kind, and a service for each."""
    with labs.lab(Method.FULLNAT, ipv6=True, rules=False) as made, ExitStack() as stack:
        lines = []
        for port, kind in (SERVERS | {STREAMS: "tcp"}).items():
            for number in (1, 2):
                stack.enter_context(server(made, number, kind, port))
            for ipv6 in (False, True):
                service = f"{'-t' if kind == 'tcp' else '-u'} {host_port(made.topology.vips[ipv6], port)}"
                lines += [f"-A {service} -s rr", f"-P {service} -z {made.topology.pool(ipv6)}"]
                rips = [host_port(made.topology.rip(number, ipv6), port) for number in (1, 2)]
                lines += [f"-a {service} -r {rip} -b" for rip in rips]
        made.run("director", build.xlvs("ipvsadm", "-R"), "".join(f"{line}\n" for line in lines))
        yield made


@contextmanager
def server(made: build.Lab, number: int, kind: str, port: int) -> Iterator[None]:
    command = [sys.executable, str(HERE / "serve.py"), kind, "::", str(port)]
    inside = namespaces.inside(made.namespace(f"rs{number}"), command)
    with subprocess.Popen(
        cgroups.inside(made.cgroup(number), inside), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def ask(made: build.Lab, ipv6: bool, port: int, *words: str) -> list[str]:
    command = [sys.executable, str(HERE / "ask.py"), made.topology.vips[ipv6], str(port), *words]
    troubles: list[str] = json.loads(made.run("client", command))
    return troubles


@families
def test_accept_and_getpeername_give_the_client(site: build.Lab, ipv6: bool) -> None:
    assert ask(site, ipv6, STREAMS, "200", "1", "tcp") == []


@families
@pytest.mark.parametrize("port", SERVERS, ids=SERVERS.values())
def test_a_thousand_clients_are_seen_and_answered(site: build.Lab, ipv6: bool, port: int) -> None:
    assert ask(site, ipv6, port, "1000", "3") == []


def test_no_client_is_taken_for_another_by_saying_so(site: build.Lab) -> None:
    assert ask(site, False, 5301, "10", "3", "forge") == []
