"""The director as a client of its own VIPs, and as a real server: wherever the VIP stands."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.netns import topology
from tests.netns.topology import PORT, PROGRAM, Site, assert_unbroken
from tests.netns.traffic import Conversation
from xlvs.lab import namespaces
from xlvs.lab.topology import host_port

pytestmark = pytest.mark.root
ports = itertools.count(8100)

VIPS = {"NIC": ("10.1.252.161", "2001:db8:a::161"), "lo": ("10.99.0.1", "fd99::1")}
families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
places = pytest.mark.parametrize("place", list(VIPS))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """VIPs on the network card and on lo; an echo server on the director, too."""
    with topology.site(ipv6=True) as made:
        ip = [f"address add {VIPS['lo'][0]}/32 dev lo", f"address add {VIPS['lo'][1]}/128 dev lo nodad"]
        namespaces.batch(ip, made.namespace)
        routes = [f"route add {VIPS['lo'][0]}/32 via 10.1.252.160"]
        routes.append(f"route add {VIPS['lo'][1]}/128 via 2001:db8:a::160")
        namespaces.batch(routes, made.made.namespace("router"))
        made.up()
        # Not on any address: answers to the director itself would come from the VIP then.
        own = ",".join(made.made.topology.director.addresses[:2])
        command = [sys.executable, PROGRAM, "serve", "director", str(PORT), "--hosts", own]
        with subprocess.Popen(namespaces.inside(made.namespace, command), stdout=subprocess.PIPE) as server:
            assert server.stdout
            assert server.stdout.readline() == b"ready\n"
            yield made
            server.kill()


def converse(site: Site, node: str, vip: str, port: int) -> list[Conversation]:
    with site.talking(
        "--tcp", "3", "--udp", "3", "--pause", "0.005", address=vip, port=port, node=node
    ) as seen:
        pass
    assert_unbroken(seen)
    return seen


def serve(site: Site, vip: str, servers: list[str]) -> int:
    """Services of both protocols on a new port of a VIP, NAT to these."""
    port = next(ports)
    for protocol in "tu":
        name = host_port(vip, port)
        site.director("ipvsadm", "-A", f"-{protocol}", name, "-s", "rr")
        for server in servers:
            site.director("ipvsadm", "-a", f"-{protocol}", name, "-r", host_port(server, PORT), "-m")
    return port


@families
@places
@pytest.mark.parametrize("node", ["client", "director"])
def test_real_servers_elsewhere(site: Site, node: str, place: str, ipv6: bool) -> None:
    vip = VIPS[place][ipv6]
    port = serve(site, vip, [site.made.topology.rip(number, ipv6) for number in (1, 2)])
    assert {each.server for each in converse(site, node, vip, port)} == {"rs1", "rs2"}


@families
@places
@pytest.mark.parametrize("node", ["client", "director"])
def test_the_director_is_the_real_server(site: Site, node: str, place: str, ipv6: bool) -> None:
    """Its own address, another port."""
    vip = VIPS[place][ipv6]
    own = site.made.topology.director.addresses[1 if ipv6 else 0]
    port = serve(site, vip, [own])
    assert {each.server for each in converse(site, node, vip, port)} == {"director"}


@families
def test_the_director_beside_others(site: Site, ipv6: bool) -> None:
    vip = VIPS["NIC"][ipv6]
    own = site.made.topology.director.addresses[1 if ipv6 else 0]
    port = serve(site, vip, [site.made.topology.rip(1, ipv6), own])
    for node in ("client", "director"):
        assert {each.server for each in converse(site, node, vip, port)} == {"rs1", "director"}
    site.assert_sound()


def test_addresses_that_anybody_may_bind_are_not_local(site: Site) -> None:
    """ip_nonlocal_bind, which directors often have, makes no real server the director itself."""
    site.run(["sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1"])
    try:
        vip = VIPS["NIC"][0]
        port = serve(site, vip, [site.made.topology.rip(1)])
        assert {each.server for each in converse(site, "client", vip, port)} == {"rs1"}
    finally:
        site.run(["sysctl", "-w", "net.ipv4.ip_nonlocal_bind=0"])
