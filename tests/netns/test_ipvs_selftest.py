"""The scenario of the Linux tree's own IPVS selftest (tools/testing/selftests/net/netfilter/ipvs.sh).

Three machines: a client on a bridge, the director, and a real server that stands on the
client's bridge as well as behind the director. A file goes from the client to the VIP and
must arrive at the server as it was: by DR, by NAT, and by TUN (there with ip_forward off on
the director, as the selftest has it), each also with persistence.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, namespaces

pytestmark = pytest.mark.root

PORT = 8080
VIP, CIP, GIP = "207.175.44.110", "10.0.0.2", "10.0.0.1"
DIP, RIP, SIP = "172.16.0.1", "172.16.0.2", "10.0.0.3"
OPTIONS = {"DR": "-g", "NAT": "-m", "TUN": "-i"}
# As few bytes as the selftest sends, and more than a window's.
SIZES = (32, 1 << 20)

RECEIVE = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    connection, (client, _) = server.accept()
    content = b""
    while data := connection.recv(65536):
        content += data
    connection.close()
    import hashlib
    print(client, len(content), hashlib.sha256(content).hexdigest(), flush=True)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    connection.sendall(open(sys.argv[3], "rb").read())
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
"""


class Machines:
    """The selftest's three machines: client, director, server."""

    def __init__(self) -> None:
        name = labs.fresh_name()
        self.client, self.director, self.server = (f"{name}_{role}" for role in ("c", "d", "s"))
        self.names = (self.client, self.director, self.server)

    def build(self) -> None:
        client, director, server = self.names
        namespaces.batch(f"netns add {name}" for name in self.names)
        namespaces.batch(
            [
                f"link add veth01 netns {client} type veth peer name veth10 netns {director}",
                f"link add veth02 netns {client} type veth peer name veth20 netns {server}",
                f"link add veth12 netns {director} type veth peer name veth21 netns {server}",
            ]
        )
        links = ("veth01", "veth02")
        namespaces.batch(
            [
                "link add br0 type bridge",
                *(f"link set {link} master br0 up" for link in links),
                "link set br0 up",
                f"address add {CIP}/24 dev br0",
                f"route add {VIP} via {GIP}",
            ],
            client,
        )
        here = [f"address add {GIP}/24 dev veth10", f"address add {DIP}/24 dev veth12"]
        there = [f"address add {RIP}/24 dev veth21", f"address add {SIP}/24 dev veth20"]
        for name, addresses, ports in (
            (director, here, ("veth10", "veth12")),
            (server, there, ("veth21", "veth20")),
        ):
            ups = [f"link set {link} up" for link in ("lo", *ports)]
            namespaces.batch([*ups, *addresses], name)
        namespaces.batch([f"address add {VIP}/32 dev lo"], director)
        # What XDP redirects into a veth needs a NAPI at the other end (a NIC has one).
        for name, port in ((client, "veth01"), (server, "veth21")):
            namespaces.run(namespaces.inside(name, ["ethtool", "-K", port, "gro", "on"]))
        namespaces.set_sysctls(director, {"net.ipv4.ip_forward": "1"})

    def take_down(self) -> None:
        namespaces.kill_processes(name for name in self.names if namespaces.exists(name))
        for name in self.names:
            namespaces.delete(name)

    def run(self, namespace: str, *command: str) -> str:
        return namespaces.run(namespaces.typed_inside(namespace, command))

    def prepare_server(self, method: str) -> None:
        """What the selftest does to the server for a method."""
        if method == "NAT":
            namespaces.batch(["link del veth20", f"route add default via {DIP}"], self.server)
        elif method == "DR":
            quiet = {"arp_ignore": "1", "arp_announce": "2", "rp_filter": "0"}
            values = {f"net.ipv4.conf.all.{name}": value for name, value in quiet.items()}
            namespaces.set_sysctls(self.server, {**values, "net.ipv4.conf.veth21.rp_filter": "0"})
            namespaces.batch([f"address add {VIP}/32 dev lo"], self.server)
        else:
            prepare = ["realserver", "prepare", "--method", "tun", "--vip", VIP, "--interface", "veth21"]
            self.run(self.server, *build.xlvs(*prepare))

    def send(self, files: list[Path]) -> list[str]:
        """Send files to the VIP, one after the other; what the server says of each."""
        receiving = [sys.executable, "-c", RECEIVE, str(PORT), str(len(files))]
        command = namespaces.inside(self.server, receiving)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout
            try:
                assert receiver.stdout.readline() == "ready\n"
                for file in files:
                    self.run(self.client, sys.executable, "-c", SEND, VIP, str(PORT), str(file))
                return receiver.stdout.read().splitlines()
            finally:
                receiver.kill()


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        made.build()
        yield made
        made.run(made.director, *build.xlvs("down"))
    finally:
        made.take_down()


@pytest.mark.parametrize("persistence", [[], ["-p", "300"]], ids=["each", "persistent"])
@pytest.mark.parametrize("method", OPTIONS)
def test_a_file_arrives_through_the_director(
    machines: Machines, method: str, persistence: list[str], tmp_path: Path
) -> None:
    if method == "TUN":
        off = {"ip_forward": "0", "conf.all.send_redirects": "0", "conf.default.send_redirects": "0"}
        namespaces.set_sysctls(machines.director, {f"net.ipv4.{name}": off[name] for name in off})
    machines.prepare_server(method)
    machines.run(machines.director, *build.xlvs("up", "veth10", "veth12"))
    rules = (
        ["-A", "-t", f"{VIP}:{PORT}", "-s", "rr", *persistence],
        ["-a", "-t", f"{VIP}:{PORT}", "-r", f"{RIP}:{PORT}", OPTIONS[method]],
    )
    for rule in rules:
        machines.run(machines.director, *build.xlvs("ipvsadm", *rule))
    files = [tmp_path / f"{size}" for size in SIZES]
    for file, size in zip(files, SIZES, strict=True):
        file.write_bytes(os.urandom(size))
    expected = [
        f"{CIP} {size} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file, size in zip(files, SIZES, strict=True)
    ]
    assert machines.send(files) == expected
    listed = machines.run(machines.director, *build.xlvs("ipvsadm", "-Lnc")).splitlines()[2:]
    templates = [line for line in listed if f"{CIP}:0 " in line]
    assert len(listed) - len(templates) == len(files)
    assert len(templates) == bool(persistence)
