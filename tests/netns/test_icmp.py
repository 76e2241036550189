"""ICMP through a whole director: closed ports, narrow ways, errors among real stacks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.netns import labs
from tests.netns.topology import REPOSITORY
from xlvs.lab import build, namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

CLOSED = 7999
NARROW = 1300  # bytes that the narrow way takes; IPv6 demands 1280
BIG = bytes(range(251)) * 2000

ASK = """if True:
    import socket, sys
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.connect((sys.argv[1], int(sys.argv[2])))
        try:
            asking.send(b"anybody?")
            print(asking.recv(100))
        except OSError as error:
            print(type(error).__name__)"""

SINK = """if True:
    import hashlib, socket, sys
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with socket.create_server((sys.argv[1], int(sys.argv[2])), family=family) as server:
        print("ready", flush=True)
        while True:
            peer, _ = server.accept()
            data = b""
            while chunk := peer.recv(65536):
                data += chunk
            peer.sendall(hashlib.sha256(data).hexdigest().encode())
            peer.close()"""

SEND = """if True:
    import hashlib, socket, sys
    data = bytes(range(251)) * 2000
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        print(peer.recv(100).decode() == hashlib.sha256(data).hexdigest())"""


@pytest.fixture(scope="module", params=list(Method))
def lab(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.lab(request.param, 1, ipv6=True) as made:
        rules(made, "u", CLOSED)
        yield made


def python(made: build.Lab, node: str, code: str, *arguments: str) -> str:
    command = namespaces.inside(made.namespace(node), [sys.executable, "-c", code, *arguments])
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return done.stdout.strip()


def rules(made: build.Lab, kind: str, port: int) -> None:
    topology = made.topology
    lines = []
    for ipv6 in (False, True):
        name = host_port(topology.vips[ipv6], port)
        lines.append(f"-A -{kind} {name} -s rr\n")
        if topology.local_addresses:
            lines.append(f"-P -{kind} {name} -z {topology.pool(ipv6)}\n")
        server = host_port(topology.rip(1, ipv6), port)
        lines.append(f"-a -{kind} {name} -r {server} {topology.method.option}\n")
    made.run("director", build.xlvs("ipvsadm", "-R"), "".join(lines))


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_closed_port_of_the_real_server(lab: build.Lab, ipv6: bool) -> None:
    assert python(lab, "client", ASK, lab.topology.vips[ipv6], str(CLOSED)) == "ConnectionRefusedError"


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_download_over_a_narrow_way_to_the_client(lab: build.Lab, ipv6: bool) -> None:
    """The router before the client tells the VIP that packets are too big: the real server must learn."""
    with open(f"{lab.site(1)}/html/big", "wb") as file:
        file.write(BIG)
    lab.run("router", ["ip", "link", "set", "eth0", "mtu", str(NARROW)])
    url = f"{lab.topology.url(ipv6)}/big"
    command = ["curl", "-sS", "--max-time", "10", url]
    done = subprocess.run(
        namespaces.inside(lab.namespace("client"), command), capture_output=True, check=True
    )
    assert done.stdout == BIG


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_an_upload_over_a_narrow_way_to_the_real_server(ipv6: bool) -> None:
    """TUN: the router between tells the director, about a tunnel packet; the client must learn."""
    port = 7998
    with labs.lab(Method.TUN, 1, ipv6=True) as made:
        rules(made, "t", port)
        vip = made.topology.vips[ipv6]
        command = [sys.executable, "-c", SINK, vip, str(port)]
        with subprocess.Popen(
            namespaces.inside(made.namespace("rs1"), command), stdout=subprocess.PIPE, text=True
        ) as sink:
            try:
                assert sink.stdout
                assert sink.stdout.readline() == "ready\n"
                # 40 bytes more than what IPv6 demands of any way.
                made.run("router", ["ip", "link", "set", "eth2", "mtu", "1320"])
                assert python(made, "client", SEND, vip, str(port)) == "True"
            finally:
                sink.kill()
        status = labs.xlvs(made, "director", "status")
        assert "the client was told" in status
