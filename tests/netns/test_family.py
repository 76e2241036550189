"""FULLNAT from one family to the other, with the kernel's own TCP and UDP at both ends."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.netns import topology
from tests.netns.topology import PORT, Site
from xlvs.lab import namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4 clients", "IPv6 clients"])
MEBIBYTE = 1 << 20
# Sends and receives at once, so that long segments go both ways; prints a digest of what came back.
ECHO = """
import hashlib, socket, sys, threading
sender = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
content = sys.stdin.buffer.read()
def send():
    sender.sendall(content)
    sender.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
parts = []
while part := sender.recv(65536):
    parts.append(part)
back = b"".join(parts)[int(sys.argv[3]):]
print(len(back), hashlib.sha256(back).hexdigest())
"""
NAME = 16  # bytes of the greeting of traffic.py


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with topology.site(Method.FULLNAT, 2, ipv6=True) as made:
        made.up()
        for ipv6 in (False, True):
            for protocol in "tu":
                name = host_port(made.made.topology.vips[ipv6], PORT)
                lines = [
                    f"-A -{protocol} {name} -s rr",
                    f"-P -{protocol} {name} -z {made.made.topology.pool(not ipv6)}",
                ]
                for number in (1, 2):
                    rip = host_port(made.made.topology.rip(number, not ipv6), PORT)
                    lines.append(f"-a -{protocol} {name} -r {rip} -b")
                made.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
        yield made


@families
def test_conversations(site: Site, ipv6: bool) -> None:
    address = site.made.topology.vips[ipv6]
    with site.talking("--tcp", "12", "--udp", "12", address=address) as seen:
        time.sleep(1)
    topology.assert_unbroken(seen)
    assert {each.server for each in seen} == {"rs1", "rs2"}


@families
def test_much_both_ways(site: Site, ipv6: bool) -> None:
    echoed(site, ipv6, 16 * MEBIBYTE)


@pytest.fixture
def cookies(site: Site, ipv6: bool) -> Iterator[None]:
    """Behind SYNPROXY for the duration; every conversation must have begun so."""
    name = host_port(site.made.topology.vips[ipv6], PORT)
    before = site.status()["packets"]
    site.director("ipvsadm", "-E", "-t", name, "-s", "rr", "-j", "enable")
    yield
    site.director("ipvsadm", "-E", "-t", name, "-s", "rr", "-j", "disable")
    after = site.status()["packets"]
    for outcome in ("cookie_sent", "handed_answer"):
        assert after[outcome]["count"] - before[outcome]["count"] >= 14


@families
@pytest.mark.usefixtures("cookies")
def test_behind_cookies(site: Site, ipv6: bool) -> None:
    with site.talking("--tcp", "12", "--udp", "0", address=site.made.topology.vips[ipv6]) as seen:
        time.sleep(1)
    topology.assert_unbroken(seen)
    assert {each.server for each in seen} == {"rs1", "rs2"}
    for _ in range(2):
        echoed(site, ipv6, 4 * MEBIBYTE)


@families
def test_a_server_that_refuses_behind_cookies(site: Site, ipv6: bool) -> None:
    topo = site.made.topology
    name, rip = host_port(topo.vips[ipv6], 8), host_port(topo.rip(1, not ipv6), 8)
    lines = [f"-A -t {name} -j enable", f"-P -t {name} -z {topo.pool(not ipv6)}", f"-a -t {name} -r {rip} -b"]
    site.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
    code = "import socket, sys\n"
    code += "try: socket.create_connection((sys.argv[1], 8), 20).recv(1)\n"
    code += "except (ConnectionResetError, ConnectionRefusedError): print('reset')"
    assert site.made.run("client", [sys.executable, "-c", code, topo.vips[ipv6]]) == "reset\n"


@families
def test_narrow_ways(site: Site, ipv6: bool) -> None:
    """What routers on either side say of too long packets reaches their senders in their own family."""
    ways = {"inside": [("eth1", not ipv6), ("eth2", not ipv6)], "router": [("eth0", ipv6)]}
    for node, ports in ways.items():
        for port, six in ports:
            narrow(site, node, port, six, 1300)
    try:
        echoed(site, ipv6, 2 * MEBIBYTE)
    finally:
        for node, ports in ways.items():
            for port, six in ports:
                narrow(site, node, port, six, 1500)


def narrow(site: Site, node: str, port: str, ipv6: bool, mtu: int) -> None:
    """Let a router take packets to that interface's network for too long above ``mtu``."""
    family = "-6" if ipv6 else "-4"
    listed = site.made.run(node, ["ip", family, "route", "show", "dev", port, "proto", "kernel"])
    network = next(line.split()[0] for line in listed.splitlines() if not line.startswith("fe80"))
    metric = ["metric", "256"] if ipv6 else []
    route = [network, "dev", port, "proto", "kernel", *metric, "mtu", str(mtu)]
    site.made.run(node, ["ip", family, "route", "replace", *route])


def echoed(site: Site, ipv6: bool, size: int) -> None:
    """So many bytes go to a real server and come back as they were."""
    content = os.urandom(size)
    command = [sys.executable, "-c", ECHO, site.made.topology.vips[ipv6], str(PORT), str(NAME)]
    inside = namespaces.inside(site.made.namespace("client"), command)
    done = subprocess.run(inside, input=content, capture_output=True, check=False, timeout=60)
    assert not done.returncode, done.stderr.decode()
    assert done.stdout.decode().split() == [str(size), hashlib.sha256(content).hexdigest()]


@families
def test_a_closed_port_is_refused(site: Site, ipv6: bool) -> None:
    """The real server's reset, and for UDP its ICMP error, are the client's."""
    topo = site.made.topology
    name, rip = host_port(topo.vips[ipv6], 9), host_port(topo.rip(1, not ipv6), 9)
    for protocol in "tu":
        lines = [f"-A -{protocol} {name}", f"-P -{protocol} {name} -z {topo.pool(not ipv6)}"]
        lines.append(f"-a -{protocol} {name} -r {rip} -b")
        site.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
    code = "import socket, sys\n"
    code += (
        "try: socket.create_connection((sys.argv[1], 9), 5)\nexcept ConnectionRefusedError: print('tcp')\n"
    )
    code += (
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
    )
    code += "s.settimeout(5); s.connect((sys.argv[1], 9)); s.send(b'x')\n"
    code += "try: s.recv(9)\nexcept ConnectionRefusedError: print('udp')"
    said = site.made.run("client", [sys.executable, "-c", code, topo.vips[ipv6]])
    assert said.split() == ["tcp", "udp"]


def test_a_listing_shows_both_families(site: Site) -> None:
    listed = site.director("ipvsadm", "-Ln")
    for ipv6 in (False, True):
        assert host_port(site.made.topology.rip(1, ipv6), PORT) in listed
    assert listed.count("FullNat") >= 8
