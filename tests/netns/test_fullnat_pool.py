"""Local addresses under load: one for twenty thousand connections at once; ten that come and go."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from tests.netns import crowd, labs
from tests.netns.crowd import PORT
from tests.scale import scaled
from xlvs.lab import build, namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

CLIENTS = [f"172.16.0.{number}" for number in range(100, 108)]


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    """A lab without rules, its client with several addresses and every port of theirs."""
    with labs.lab(Method.FULLNAT, rules=False) as built:
        client = built.namespace("client")
        namespaces.batch((f"address add {address}/24 dev eth0" for address in CLIENTS), client)
        namespaces.set_sysctls(client, {"net.ipv4.ip_local_port_range": "1024 65535"})
        yield built


@contextmanager
def pooled(made: build.Lab, addresses: Sequence[str]) -> Iterator[Counter[str]]:
    """The program's own service for a block, with these local addresses; what was dropped, after it."""
    name = f"-t {host_port(made.topology.vips[0], PORT)}"
    lines = [f"-A {name} -s rr", f"-P {name} -z {','.join(addresses)}"]
    lines += [f"-a {name} -r {host_port(made.topology.rip(number), PORT)} -b" for number in (1, 2)]
    command = namespaces.inside(made.namespace("director"), build.xlvs("ipvsadm", "-R"))
    namespaces.run(command, "".join(f"{line}\n" for line in lines))
    before, lost = dropped(made), Counter[str]()
    try:
        yield lost
        lost += dropped(made) - before
    finally:
        labs.xlvs(made, "director", "ipvsadm", "-D", *service(made))


def service(made: build.Lab) -> list[str]:
    return ["-t", host_port(made.topology.vips[0], PORT)]


def dropped(made: build.Lab) -> Counter[str]:
    """Packets that the director has dropped, by reason."""
    packets = json.loads(labs.xlvs(made, "director", "status", "--json"))["packets"]
    return Counter({name: each["count"] for name, each in packets.items() if name.startswith("drop")})


def test_one_address_and_twenty_thousand_connections_at_once(made: build.Lab) -> None:
    count, processes = scaled(20_000, 1000), 4
    share, each = count // processes, count // 2
    # Ports for all connections of one server, but not for those of both: each port serves two.
    low, high = 20_001, 20_000 + each * 13 // 10
    with pooled(made, ["10.2.1.1"]) as lost, crowd.servers(made) as servers, ExitStack() as stack:
        labs.xlvs(made, "director", "sysctl", f"local_port_low={low}", f"local_port_high={high}")
        clients = [
            stack.enter_context(
                crowd.holding(
                    made, share, requests=3, up=300, down=300, seconds=240, source=CLIENTS, base=number
                )
            )
            for number in range(processes)
        ]
        listing = labs.xlvs(made, "director", "ipvsadm", "-Ln", *service(made))
        rows = [line.split() for line in listing.splitlines() if "FullNat" in line]
        assert [row[4] for row in rows] == [str(each), str(each)], listing
        used = local_ends(made)
        for client in clients:
            client.go_on()
        results = [client.result() for client in clients]
        seen = [server.stop() for server in servers]
    assert not lost
    for result in results:
        assert (result.connections, result.known, result.requests) == (share, share, 3 * share), result
        assert result.trouble == 0, result
        assert set(result.servers.values()) == {share // 2}, result
    assert [(server.connections, server.requests) for server in seen] == [(each, 3 * each)] * 2, seen
    assert not any(server.wrong or server.failed for server in seen), seen
    # Every connection has an end of its own, of a local port that another server's may have as well.
    assert len(used) == count
    assert {address for address, _, _ in used} == {"10.2.1.1"}
    ports = Counter(port for _, port, _ in used)
    assert set(ports.values()) == {1, 2}
    assert min(ports) >= low
    assert max(ports) <= high


def local_ends(made: build.Lab) -> set[tuple[str, int, str]]:
    """Local address and port of every connection, and the server that it leads to."""
    listed = json.loads(labs.xlvs(made, "director", "ipvsadm", "-Lnc", "--json"))
    return {
        (entry["local"], entry["local_port"], entry["destination"])
        for entry in listed["connections"]
        if entry["state"] == "ESTABLISHED"
    }


def test_addresses_come_and_go_under_two_hundred_thousand_connections(made: build.Lab) -> None:
    """None crossed, none lost: connections of an address that is taken away live on."""
    count = scaled(200_000, 3000)
    at_once = scaled(200, 20)  # that no answer takes as long as a SYN's patience
    pool = [f"10.2.1.{number}" for number in range(1, 11)]
    with pooled(made, pool) as lost, crowd.servers(made) as servers:
        with crowd.holding(made, 100, requests=2, base=7) as held:
            with crowd.talking(made, count, seconds=300, at_once=at_once, source=CLIENTS, reset=2) as process:
                changes = change(made, pool, process)
                output, trouble = process.communicate()
            held.go_on()
            kept = held.result()
        seen = [server.stop() for server in servers]
        left = labs.xlvs(made, "director", "ipvsadm", "-Sn")
    result = crowd.Seen(**json.loads(output))
    assert not trouble
    assert changes >= scaled(3, 1)
    assert (result.connections, result.known) == (count, count), result
    assert result.trouble == 0, result
    # Begun before the first change, ended after the last: not one of them noticed.
    assert (kept.connections, kept.failed, kept.wrong, kept.requests) == (100, 0, 0, 200), kept
    assert sum(each.requests for each in seen) == count + 200
    assert not any(each.wrong for each in seen), seen
    assert "-z 10.2.1.1-10.2.1.10" in left
    assert "drop_no_local" not in lost


def change(made: build.Lab, pool: list[str], process: subprocess.Popen[str]) -> int:
    """Take half of the addresses away and put them back, in turn, until the client is done."""
    halves, changes = (pool[:5], pool[5:]), 0
    while process.poll() is None:
        addresses = ",".join(halves[changes % 2])
        labs.xlvs(made, "director", "ipvsadm", "-Q", *service(made), "-z", addresses)
        time.sleep(0.2)
        labs.xlvs(made, "director", "ipvsadm", "-P", *service(made), "-z", addresses)
        time.sleep(0.2)
        changes += 1
    # In the order in which they began.
    labs.xlvs(made, "director", "ipvsadm", "-Q", *service(made), "-z", ",".join(pool[5:]))
    labs.xlvs(made, "director", "ipvsadm", "-P", *service(made), "-z", ",".join(pool[5:]))
    return changes
