"""TCP as it comes through FULLNAT: ten thousand connections, every byte compared at both ends."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.netns import crowd, labs
from tests.netns.crowd import PORT, SACK, TIMESTAMPS, WINDOW_SCALE, Seen
from tests.scale import scaled
from xlvs.lab import build, wire
from xlvs.lab.topology import BACK, BACK2, CLIENTS, INSIDE, Method, host_port
from xlvs.lab.wire import Quality

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
# Of each family.
COUNT = scaled(6000, 1000)
# Keep-alive with pipelining, long ones among them, ends of every kind.
MIXED = {
    "requests": 4,
    "pipeline": 3,
    "up": 6000,
    "down": 9000,
    "big": 50,
    "half": 4,
    "last": 4,
    "reset": 9,
}


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.FULLNAT, ipv6=True, rules=False) as built:
        add_services(built)
        yield built


def add_services(made: build.Lab) -> None:
    """The program's own port on every real server, in both families."""
    for ipv6 in (False, True) if made.ipv6 else (False,):
        service = ["-t", host_port(made.topology.vips[ipv6], PORT)]
        labs.xlvs(made, "director", "ipvsadm", "-A", *service, "-s", "rr")
        labs.xlvs(made, "director", "ipvsadm", "-P", *service, "-z", made.topology.pool(ipv6))
        for number in (1, 2):
            server = host_port(made.topology.rip(number, ipv6), PORT)
            labs.xlvs(made, "director", "ipvsadm", "-a", *service, "-r", server, "-b")


def counters(made: build.Lab, *nodes: str) -> Counter[str]:
    """The kernels' counters of TCP, summed over nodes."""
    total: Counter[str] = Counter()
    for node in nodes:
        for line in made.run(node, ["nstat", "-asz"]).splitlines()[1:]:
            name, value = line.split()[:2]
            total[name] += int(value)
    return total


def assert_whole(client: Seen, servers: list[Seen], connections: int, requests: int) -> None:
    """Every connection as it should be at both ends, and every client known to its server."""
    assert (client.connections, client.failed, client.unfinished, client.wrong) == (connections, 0, 0, 0), (
        client
    )
    assert client.requests == connections * requests
    assert client.known == connections, client
    assert sum(each.connections for each in servers) == connections, servers
    assert sum(each.requests for each in servers) == client.requests
    assert not any(each.wrong or each.unfinished for each in servers), servers
    # Clients that reset are all that a server may complain of.
    assert {name for each in servers for name in each.errors} <= {"ECONNRESET"}, servers
    # rr, but for a SYN that was sent twice.
    assert min(client.servers.values()) > connections * 0.4, client


@families
def test_ten_thousand_connections_byte_for_byte(made: build.Lab, ipv6: bool) -> None:
    with crowd.servers(made) as servers:
        client = crowd.talk(made, COUNT, ipv6=ipv6, seconds=240, at_once=100, **MIXED)
        seen = [server.stop() for server in servers]
    assert_whole(client, seen, COUNT, MIXED["requests"])
    # Window scaling and SACK are negotiated through the director; its filter takes timestamps away.
    assert client.options_all & (SACK | WINDOW_SCALE) == SACK | WINDOW_SCALE
    assert not client.options_any & TIMESTAMPS


@families
def test_loss_and_reordering_on_both_sides_of_the_director(made: build.Lab, ipv6: bool) -> None:
    count, nodes = 200, ("client", "rs1", "rs2")
    with crowd.servers(made) as servers:
        before = counters(made, *nodes)
        for segment in (CLIENTS, INSIDE):
            wire.spoil(made, segment, Quality(lost=0.5, late=5))
        try:
            options = MIXED | {"up": 40_000, "down": 60_000, "reset": 0}
            client = crowd.talk(made, count, ipv6=ipv6, seconds=120, at_once=100, **options)
        finally:
            for segment in (CLIENTS, INSIDE):
                wire.spoil(made, segment, Quality())
        added = counters(made, *nodes) - before
        seen = [server.stop() for server in servers]
    assert_whole(client, seen, count, MIXED["requests"])
    # It was rough, and selective acknowledgements with translated edges were what mended it.
    for name in ("TcpRetransSegs", "TcpExtTCPOFOQueue", "TcpExtTCPSackRecovery"):
        assert added[name] > 20, added


@families
@pytest.mark.parametrize("quality", [Quality(), Quality(lost=0.5, late=5)], ids=["", "bad wires"])
def test_behind_cookies_no_byte_is_lost(made: build.Lab, ipv6: bool, quality: Quality) -> None:
    """SYNPROXY: both ends' numbers are shifted, those of selective acknowledgements, too."""
    count = COUNT // 4 if quality.good else COUNT // 40
    service = ["-t", host_port(made.topology.vips[ipv6], PORT), "-s", "rr"]
    labs.xlvs(made, "director", "ipvsadm", "-E", *service, "-j", "enable")
    before = cookies(made)
    try:
        with crowd.servers(made) as servers:
            for segment in (CLIENTS, INSIDE):
                wire.spoil(made, segment, quality)
            options = MIXED if quality.good else MIXED | {"up": 40_000, "down": 60_000, "reset": 0}
            client = crowd.talk(made, count, ipv6=ipv6, seconds=240, at_once=100, **options)
            seen = [server.stop() for server in servers]
    finally:
        for segment in (CLIENTS, INSIDE):
            wire.spoil(made, segment, Quality())
        labs.xlvs(made, "director", "ipvsadm", "-E", *service, "-j", "disable")
    assert_whole(client, seen, count, MIXED["requests"])
    assert cookies(made) - before >= count


def cookies(made: build.Lab) -> int:
    """SYNs that the director has answered itself."""
    found = json.loads(labs.xlvs(made, "director", "status", "--json"))
    return int(found["packets"]["cookie_sent"]["count"])


def test_both_ends_close_at_the_same_time(made: build.Lab) -> None:
    """Two FINs that cross: neither end has seen the other's when it sends its own."""
    count, segments = 50, (CLIENTS, BACK, BACK2)
    before = {node: sockets(made, node, "time-wait") for node in ("client", "rs1", "rs2")}
    with crowd.servers(made) as servers:
        with crowd.holding(made, count, requests=1, up=2000, down=2000, hold=2) as client:
            for segment in segments:
                wire.spoil(made, segment, Quality(lost=100))
            try:
                client.end_half()
                for server in servers:
                    server.end_half()
                wait_for(made, "client", "fin-wait-1", count)
                wait_for(made, "rs1", "fin-wait-1", count // 2)
                wait_for(made, "rs2", "fin-wait-1", count // 2)
            finally:
                for segment in segments:
                    wire.spoil(made, segment, Quality())
            result = client.result()
        seen = [server.stop() for server in servers]
    assert_whole(result, seen, count, 1)
    # Only where FINs crossed do both ends wait. The last acknowledgement may still be on its way.
    wanted = {"client": count, "rs1": count // 2, "rs2": count // 2}
    deadline = time.monotonic() + 10
    while (
        waiting := {node: len(sockets(made, node, "time-wait") - before[node]) for node in before}
    ) != wanted:
        assert time.monotonic() < deadline, waiting
        time.sleep(0.05)


def sockets(made: build.Lab, node: str, state: str) -> set[tuple[str, str]]:
    """Both ends of the connections that have the program's port and are in a state."""
    ours = f"( sport = :{PORT} or dport = :{PORT} )"
    lines = made.run(node, ["ss", "-Htn", "state", state, ours]).splitlines()
    return {(line.split()[2], line.split()[3]) for line in lines}


def wait_for(made: build.Lab, node: str, state: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while (found := len(sockets(made, node, state))) != count:
        assert time.monotonic() < deadline, f"{found} of {count} connections on {node} are in {state}"
        time.sleep(0.05)
