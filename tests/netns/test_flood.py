"""Floods from sources that do not exist, at full speed, and a thousand honest clients beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.flood import flooded
from tests.netns import labs
from tests.scale import scaled
from xlvs.lab import build, namespaces
from xlvs.lab.topology import VIP4, Method

pytestmark = [pytest.mark.root, pytest.mark.slow]

HONEST = scaled(1000, 50)
# The kernel itself keeps whom SYNs came from: no capture could lose one.
WATCH = """table ip watch {
    set ends { type ipv4_addr . inet_service; flags dynamic; size 65536; }
    chain arriving {
        type filter hook prerouting priority -300;
        tcp flags & (syn | ack) == syn add @ends { ip saddr . tcp sport }
    }
}"""
WEB = ("-t", f"{VIP4}:80", "-s", "rr")


@pytest.fixture(scope="module", params=[Method.NAT, Method.FULLNAT])
def made(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.lab(request.param) as built:
        yield built


def outcomes(made: build.Lab) -> Counter[str]:
    found = json.loads(labs.xlvs(made, "director", "status", "--json"))
    return Counter({name: each["count"] for name, each in found["packets"].items()})


def connections(made: build.Lab) -> int:
    return int(json.loads(labs.xlvs(made, "director", "status", "--json"))["connections"]["used"])


def honest(made: build.Lab) -> set[tuple[str, int]]:
    """A thousand requests, a connection each, twenty at a time, all answered; their own ends."""
    command = ["curl", "-sS", "-Z", "--parallel-max", "20", "--max-time", "120", "-o", "/dev/null"]
    command += ["-H", "Connection: close", "-w", "%{http_code} %{num_connects} %{local_port}\n"]
    printed = made.run("client", [*command, f"{made.topology.url()}/?n=[1-{HONEST}]"])
    rows = [line.split() for line in printed.splitlines()]
    assert [row[:2] for row in rows] == [["200", "1"]] * HONEST
    return {(made.topology.client.addresses[0], int(row[2])) for row in rows}


def assert_honest_only(made: build.Lab, seen: set[tuple[str, int]], clients: set[tuple[str, int]]) -> None:
    """Real servers got SYNs of honest clients, and of nobody else."""
    if made.method is Method.NAT:
        assert seen == clients
    else:
        assert {address for address, _ in seen} <= set(made.topology.director.addresses)
        assert len(seen) <= HONEST


@contextmanager
def watching(made: build.Lab) -> Iterator[set[tuple[str, int]]]:
    """Whom the real servers got SYNs of during the block; full after it."""
    seen: set[tuple[str, int]] = set()
    nodes = [node.name for node in made.topology.real_servers]
    for node in nodes:
        nft(made, node, WATCH)
    try:
        yield seen
        for node in nodes:
            listed = json.loads(made.run(node, ["nft", "-j", "list", "set", "ip", "watch", "ends"]))
            (ends,) = (entry["set"] for entry in listed["nftables"] if "set" in entry)
            seen |= {(address, port) for address, port in (each["concat"] for each in ends.get("elem", []))}
    finally:
        for node in nodes:
            nft(made, node, "delete table ip watch")


def nft(made: build.Lab, node: str, text: str) -> None:
    namespaces.run(namespaces.inside(made.namespace(node), ["nft", "-f", "-"]), f"{text}\n")


def test_spoofed_syns_reach_no_real_server(made: build.Lab) -> None:
    labs.xlvs(made, "director", "ipvsadm", "-E", *WEB, "-j", "enable")
    try:
        known, before = connections(made), outcomes(made)
        with watching(made) as sources, flooded(made, "SYN"):
            clients = honest(made)
        seen = outcomes(made) - before
        table = connections(made)
    finally:
        labs.xlvs(made, "director", "ipvsadm", "-E", *WEB, "-j", "disable")
    assert_honest_only(made, sources, clients)
    assert seen["cookie_sent"] > 20 * HONEST, seen
    assert table <= known + HONEST


@pytest.mark.parametrize("early", [False, True], ids=["", "tcp_drop_entry"])
@pytest.mark.parametrize("kind", ["ACK", "RST"])
def test_stray_segments_reach_no_real_server(made: build.Lab, kind: str, early: bool) -> None:
    """Without tcp_drop_entry the director's own stack gets them, and answers ACKs by resets."""
    labs.xlvs(made, "director", "sysctl", f"tcp_drop_entry={early:d}")
    known, before = connections(made), outcomes(made)
    with watching(made) as sources, flooded(made, kind):
        clients = honest(made)
    seen = outcomes(made) - before
    assert connections(made) <= known + HONEST
    assert_honest_only(made, sources, clients)
    assert seen["drop_stray_tcp" if early else "pass_no_connection"] > 1000, seen
