"""GRE and GUE to real nginx servers behind our own tunnel ends, every checksum option, both families.

Offloads are at their defaults: what the client leaves to hardware, the director puts right,
or hands on where the option says so.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import GUE_PORT, Encapsulation, Method, host_port

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
SUMS = {
    Encapsulation.GRE: ("--tun-nocsum", "--tun-csum"),
    Encapsulation.GUE: ("--tun-nocsum", "--tun-csum", "--tun-remcsum"),
}


@pytest.fixture(scope="module", params=list(SUMS))
def made(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.lab(Method.TUN, ipv6=True, tunnel=request.param) as built:
        yield built


def options(made: build.Lab, sums: str) -> list[str]:
    port = ["--tun-port", str(GUE_PORT)] if made.tunnel is Encapsulation.GUE else []
    return ["-i", "--tun-type", made.tunnel.value, *port, sums]


def direct(made: build.Lab, sums: str, *, crosswise: bool = False) -> None:
    """Have both services use these options, towards addresses of the other family if crosswise."""
    for ipv6 in (False, True):
        service = ["-t", made.topology.service(ipv6)]
        labs.attempt(made, "director", "ipvsadm", "-D", *service)
        labs.xlvs(made, "director", "ipvsadm", "-A", *service, "-s", "rr")
        for number in (1, 2):
            server = host_port(made.topology.rip(number, ipv6 != crosswise))
            labs.xlvs(made, "director", "ipvsadm", "-a", *service, "-r", server, *options(made, sums))


def counters(made: build.Lab) -> Counter[str]:
    total: Counter[str] = Counter()
    for number in (1, 2):
        status = json.loads(labs.xlvs(made, f"rs{number}", "realserver", "status", "--json"))
        total.update(status["counters"]["eth0"])
    return total


def upload(made: build.Lab, ipv6: bool, folder: Path, size: int) -> None:
    """PUT some bytes, and find them whole on one of the real servers."""
    content = os.urandom(size)
    (folder / "body").write_bytes(content)
    name = f"{content[:8].hex()}"
    url = f"{made.topology.url(ipv6)}/upload/{name}"
    curl = ["curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}", "-T"]
    assert made.run("client", [*curl, str(folder / "body"), url]) == "201"
    arrived = [Path(made.site(number), "html/upload", name) for number in (1, 2)]
    assert [path.read_bytes() == content for path in arrived if path.exists()] == [True]


def serve(made: build.Lab, sums: str, folder: Path) -> Counter[str]:
    """Some requests and an upload over both families; what the tunnel ends counted meanwhile."""
    before = counters(made)
    for ipv6 in (False, True):
        assert Counter(labs.answers(made, 6, ipv6=ipv6)) == {"<h1>RS1</h1>": 3, "<h1>RS2</h1>": 3}, sums
        upload(made, ipv6, folder, 3 * MEBIBYTE)
    counted = counters(made)
    counted.subtract(before)
    return +counted


@pytest.mark.parametrize("crosswise", [False, True], ids=["own family", "other family"])
@pytest.mark.parametrize("sums", ["--tun-nocsum", "--tun-csum", "--tun-remcsum"])
def test_nginx_behind_every_kind(made: build.Lab, sums: str, crosswise: bool, tmp_path: Path) -> None:
    if sums not in SUMS[made.tunnel]:
        refused = labs.attempt(
            made, "director", "ipvsadm", "-a", "-t", "10.9.9.9:80", "-r", "10.9.9.8:80", *options(made, sums)
        )
        assert refused.returncode == 2
        return
    direct(made, sums, crosswise=crosswise)
    counted = serve(made, sums, tmp_path)
    assert set(counted) == {"decapsulated", "decapsulated_bytes"}
    assert counted["decapsulated_bytes"] > 6 * MEBIBYTE


@pytest.mark.parametrize("sums", ["--tun-nocsum", "--tun-csum"])
def test_uncut_segments_through_the_companion(made: build.Lab, sums: str, tmp_path: Path) -> None:
    """In generic mode XDP sees what the client's kernel has not cut yet."""
    interfaces = [port.name for port in made.topology.director.interfaces]
    direct(made, sums)
    labs.xlvs(made, "director", "up", *interfaces, "--mode", "generic")
    try:
        counted = serve(made, sums, tmp_path)
    finally:
        labs.xlvs(made, "director", "up", *interfaces, "--mode", "auto")
    assert set(counted) == {"decapsulated", "decapsulated_bytes"}
    assert counted["decapsulated_bytes"] > 6 * MEBIBYTE


def test_the_companion_wraps_while_a_neighbour_is_unknown(made: build.Lab) -> None:
    for sums in SUMS[made.tunnel]:
        direct(made, sums)
        for ipv6 in (False, True):
            before = handed(made)
            for _ in range(4):
                made.run("director", ["ip", "neighbour", "flush", "dev", "eth0"])
                assert labs.answers(made, 1, ipv6=ipv6)[0] in ("<h1>RS1</h1>", "<h1>RS2</h1>"), sums
            assert handed(made) > before
    assert not counters(made)["checksum_wrong"]


def handed(made: build.Lab) -> int:
    found = re.search(r"(?m)^ +(\d+) .*neighbour not resolved", labs.xlvs(made, "director", "status"))
    return int(found[1]) if found else 0
