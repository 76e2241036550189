"""FULLNAT from end to end: unmodified nginx in other networks, behind a router that knows no client."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, webserver
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.FULLNAT, ipv6=True) as built:
        yield built


def logged(made: build.Lab, number: int, count: int) -> list[tuple[str, int]]:
    """The last requests in a real server's log, as soon as there are so many in all."""
    deadline = time.monotonic() + 10
    while len(peers := webserver.peers_seen(made.site(number))) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return peers


def ask(made: build.Lab, ipv6: bool, count: int) -> list[tuple[str, int]]:
    """So many requests; the client's own addresses and ports."""
    command = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{local_ip} %{local_port}",
    ]
    ends = [made.run("client", [*command, made.topology.url(ipv6)]).split() for _ in range(count)]
    return [(address, int(port)) for address, port in ends]


def pool(made: build.Lab, ipv6: bool) -> set[str]:
    """The service's local addresses, as the director lists them."""
    listed = json.loads(labs.xlvs(made, "director", "ipvsadm", "-G", "--json"))
    text = json.dumps(listed)
    return set(re.findall(r'"(2001:db8:2::1:[0-9a-f]+|10\.2\.\d+\.\d+)"', text)) & {
        address for address in made.topology.director.addresses if (":" in address) is ipv6
    }


@families
def test_nginx_logs_the_clients_own_address_and_port(made: build.Lab, ipv6: bool) -> None:
    before = [len(webserver.peers_seen(made.site(number))) for number in (1, 2)]
    ends = ask(made, ipv6, 6)
    assert {address for address, _ in ends} == {made.topology.client.addresses[ipv6]}
    seen = [logged(made, number, before[number - 1] + 3)[before[number - 1] :] for number in (1, 2)]
    # rr, the last server added first: each request is in the log of whose turn it was.
    assert seen == [ends[1::2], ends[0::2]]


@families
def test_without_toa_nginx_logs_local_addresses(ipv6: bool) -> None:
    with labs.lab(Method.FULLNAT, ipv6=ipv6, toa=False) as made:
        ask(made, ipv6, 4)
        seen = [peer for number in (1, 2) for peer in logged(made, number, 2)]
        locals_ = pool(made, ipv6)
        assert len(locals_) == 28
        assert len(seen) == 4
        assert {address for address, _ in seen} <= locals_
        # Addresses go in turn, each processor by itself.
        assert len({address for address, _ in seen}) >= 4 // (os.cpu_count() or 1)
        assert all(5000 <= port <= 65535 for _, port in seen)

        # Attached to an nginx that has been running all the time.
        for number in (1, 2):
            labs.xlvs(made, f"rs{number}", *made.toa_command(number))
        ends = ask(made, ipv6, 2)
        assert [logged(made, number, 3)[-1] for number in (2, 1)] == ends
        for number in (1, 2):
            labs.xlvs(made, f"rs{number}", "toa", "detach", "--cgroup", made.cgroup(number))
        ask(made, ipv6, 2)
        assert {logged(made, number, 4)[-1][0] for number in (1, 2)} <= locals_


def test_no_gateway_knows_the_clients(made: build.Lab) -> None:
    """What makes answers come back is the local address, nothing else."""
    client, vip = made.topology.client.addresses[0], made.topology.vips[0]
    for node in ("rs1", "rs2"):
        default = json.loads(made.run(node, ["ip", "-json", "route", "show", "default"]))
        assert made.topology.inside is not None
        assert default[0]["gateway"] in made.topology.inside.addresses
        assert vip not in made.run(node, ["ip", "address"])
    assert labs.typed(made, "inside", ["ip", "route", "get", client]).returncode != 0


@families
def test_a_hundred_megabytes_down_and_up_are_whole(made: build.Lab, ipv6: bool, tmp_path: Path) -> None:
    content = os.urandom(100 * MEBIBYTE)
    wanted = hashlib.sha256(content).hexdigest()
    # rr: whichever real server's turn it is.
    for number in (1, 2):
        Path(made.site(number), "html/big").write_bytes(content)
    url, got = made.topology.url(ipv6), tmp_path / "got"
    curl = ["curl", "-sS", "--fail", "--max-time", "120", "-o"]
    made.run("client", [*curl, str(got), f"{url}/big"])
    assert hashlib.sha256(got.read_bytes()).hexdigest() == wanted
    got.write_bytes(content)
    made.run("client", [*curl, "/dev/null", "-T", str(got), f"{url}/upload/big{ipv6:d}"])
    arrived = [Path(made.site(number), f"html/upload/big{ipv6:d}") for number in (1, 2)]
    found = [hashlib.sha256(path.read_bytes()).hexdigest() for path in arrived if path.exists()]
    assert found == [wanted]
    for path in (*arrived, *(Path(made.site(number), "html/big") for number in (1, 2))):
        path.unlink(missing_ok=True)


def test_the_listings_tell(made: build.Lab) -> None:
    ask(made, False, 2)
    listing = labs.xlvs(made, "director", "ipvsadm", "-Ln", "-t", made.topology.service())
    rows = [line.split() for line in listing.splitlines() if "FullNat" in line]
    assert [row[1] for row in rows] == [f"{made.topology.rip(number)}:80" for number in (1, 2)]
    saved = labs.xlvs(made, "director", "ipvsadm", "-Sn")
    assert f"-P -t {made.topology.service()} -z {made.topology.pool()}\n" in saved
    listed = labs.xlvs(made, "director", "ipvsadm", "-G", "-t", made.topology.service())
    rows = [line.split() for line in listed.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"10.2.1.{number}" for number in range(1, 29)]
    assert sum(int(row[2]) for row in rows) >= 2
