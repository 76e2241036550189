"""FULLNAT with real stacks at both ends: both families, each XDP mode, and what time puts an end to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.topology import PORT, Site, assert_unbroken, site
from xlvs.lab import namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root
PORT_OF_ENDS = 7100
# Either end: exchange one line, then wait for what becomes of the connection.
SERVER = """if True:
    import socket, sys
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
    print("ready", flush=True)
    connection = listener.accept()[0]
    connection.sendall(connection.recv(100).upper())
    connection.settimeout(60)
    try:
        print("got", connection.recv(100))
    except Exception as error:
        print(type(error).__name__)
"""
CLIENT = """if True:
    import socket, sys
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"HELLO"
    try:
        print("got", connection.recv(100))
    except Exception as error:
        print(type(error).__name__)
"""


def serve(where: Site, protocol: str, port: int = PORT, ipv6: bool = False, tell: str = "none") -> None:
    """A service of all real servers."""
    topology = where.made.topology
    name = host_port(topology.vips[ipv6], port)
    lines = [f"-A -{protocol} {name} -s rr --client-address {tell}"]
    lines.append(f"-P -{protocol} {name} -z {topology.pool(ipv6)}")
    for number in range(1, len(topology.real_servers) + 1):
        lines.append(f"-a -{protocol} {name} -r {host_port(topology.rip(number, ipv6), port)} -b")
    where.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))


@contextmanager
def program(where: Site, node: str, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A few lines of Python on a node."""
    command = namespaces.inside(where.made.namespace(node), [sys.executable, "-c", code, *arguments])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("tell", ["none", "toa"])
def test_conversations(mode: str, tell: str) -> None:
    """TCP and UDP, IPv4 and IPv6: nothing lost, repeated or from somebody else."""
    with site(Method.FULLNAT, ipv6=True) as where:
        where.up("--mode", mode)
        for protocol in "tu":
            for ipv6 in (False, True):
                serve(where, protocol, ipv6=ipv6, tell=tell)
        vips = where.made.topology.vips
        with where.talking(address=vips[0]) as four, where.talking(address=vips[1]) as six:
            where.director("ipvsadm", "-L", "-n")
        assert_unbroken(four)
        assert_unbroken(six)
        where.assert_sound()


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
def test_both_ends_are_reset_when_time_ends_their_connection(ipv6: bool) -> None:
    """An idle connection is forgotten: its ends hear so at once, by numbers that they believe."""
    with site(Method.FULLNAT, real_servers=1, ipv6=ipv6) as where:
        where.up()
        serve(where, "t", PORT_OF_ENDS, ipv6)
        where.director("ipvsadm", "--set", "2", "0", "0")
        rip, vip = where.made.topology.rip(1, ipv6), where.made.topology.vips[ipv6]
        with program(where, "rs1", SERVER, rip, str(PORT_OF_ENDS)) as server:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            with program(where, "client", CLIENT, vip, str(PORT_OF_ENDS)) as client:
                told = client.communicate(timeout=90)[0], server.communicate(timeout=90)[0]
        assert told == ("ConnectionResetError\n", "ConnectionResetError\n")
        assert where.status()["not_reset"] == 0
