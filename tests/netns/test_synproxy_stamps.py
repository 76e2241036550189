"""SYNPROXY's timestamps between real stacks: in use at both ends, believed by both."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.netns import crowd, labs
from tests.netns.crowd import PORT, SACK, TIMESTAMPS, WINDOW_SCALE
from tests.netns.test_fullnat_streams import counters
from xlvs.lab import build, wire
from xlvs.lab.topology import BACK, CLIENTS, Method, host_port
from xlvs.lab.wire import Quality

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
COUNT = 50 if "IPVS_GUEST" in os.environ else 400
MIXED = {"requests": 4, "pipeline": 3, "up": 6000, "down": 9000, "big": 50, "half": 4, "last": 4}
# Segments refused for their timestamps: of SYN-SENT, of connections, for what they echo.
REFUSED = ("TcpExtPAWSActive", "TcpExtPAWSEstab", "TcpExtTSEcrRejected")


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.NAT, ipv6=True, rules=False) as built:
        yield built


def guarded(made: build.Lab, ipv6: bool, *more: str) -> None:
    """The program's port on every real server, behind cookies; nothing is known of the servers."""
    labs.xlvs(made, "director", "ipvsadm", "-C")
    service = ["-t", host_port(made.topology.vips[ipv6], PORT)]
    labs.xlvs(made, "director", "ipvsadm", "-A", *service, "-s", "rr", "-j", "enable", *more)
    for number in (1, 2):
        server = host_port(made.topology.rip(number, ipv6), PORT)
        labs.xlvs(made, "director", "ipvsadm", "-a", *service, "-r", server, "-m")


def talk(made: build.Lab, ipv6: bool, count: int, **options: int | list[str]) -> crowd.Seen:
    """So many conversations, none of them lost or wrong."""
    with crowd.servers(made, toa=False) as servers:
        client = crowd.talk(made, count, ipv6=ipv6, seconds=240, at_once=100, **options)
        seen = [server.stop() for server in servers]
    assert (client.connections, client.failed, client.unfinished, client.wrong) == (count, 0, 0, 0), client
    assert sum(each.requests for each in seen) == client.requests == count * MIXED["requests"]
    assert not any(each.wrong or each.unfinished for each in seen), seen
    for each in seen:
        assert (each.options_all, each.options_any) == (client.options_all, client.options_any)
    return client


@families
@pytest.mark.parametrize("more", [[], ["--client-address", "toa"]], ids=["", "TOA"])
def test_both_ends_have_them_and_believe_them(made: build.Lab, ipv6: bool, more: list[str]) -> None:
    guarded(made, ipv6, *more)
    nodes = ("client", "rs1", "rs2")
    before = counters(made, *nodes)
    client = talk(made, ipv6, COUNT, **MIXED)
    added = counters(made, *nodes) - before
    assert client.options_all == SACK | TIMESTAMPS | WINDOW_SCALE
    # Where machines are slow, what another processor overtook is late by its stamp; wrong ones would all be.
    assert sum(added[name] for name in REFUSED) < added["TcpInSegs"] / 20, added


@families
def test_on_bad_wires(made: build.Lab, ipv6: bool) -> None:
    guarded(made, ipv6)
    try:
        for segment in (CLIENTS, BACK):
            wire.spoil(made, segment, Quality(lost=0.5, late=5))
        client = talk(made, ipv6, COUNT // 4, **MIXED | {"up": 40_000, "down": 60_000})
    finally:
        for segment in (CLIENTS, BACK):
            wire.spoil(made, segment, Quality())
    assert client.options_all == SACK | TIMESTAMPS | WINDOW_SCALE


@families
def test_payload_that_waited_for_its_server(made: build.Lab, ipv6: bool) -> None:
    guarded(made, ipv6)
    labs.xlvs(made, "director", "sysctl", "synproxy_defer=1")
    try:
        client = talk(made, ipv6, COUNT // 4, **MIXED)
    finally:
        labs.xlvs(made, "director", "sysctl", "synproxy_defer=0")
    assert client.options_all & TIMESTAMPS


@families
def test_servers_without_them(made: build.Lab, ipv6: bool) -> None:
    """The first clients of such a service believe that they have them; the next are not told so."""
    guarded(made, ipv6)
    switch = "net.ipv4.tcp_timestamps={}"
    try:
        for node in made.topology.real_servers:
            made.run(node.name, ["sysctl", "-qw", switch.format(0)])
        with crowd.servers(made, toa=False) as servers:
            first = crowd.talk(made, 4, ipv6=ipv6, seconds=60, at_once=1, **MIXED)
            for server in servers:
                server.stop()
        client = talk(made, ipv6, COUNT // 4, **MIXED)
    finally:
        for node in made.topology.real_servers:
            made.run(node.name, ["sysctl", "-qw", switch.format(1)])
    assert (first.failed, first.wrong, first.unfinished) == (0, 0, 0)
    assert client.options_any == SACK | WINDOW_SCALE
