"""SYNPROXY between real stacks: curl and nginx, banners, dead servers, and floods beside them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.flood import SOURCES, flooded
from tests.netns import labs
from tests.netns.topology import assert_unbroken, site
from xlvs.lab import build, namespaces, webserver
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
HONEST = 40  # requests during each flood
FLOODS = {"SYN": "cookie_sent", "ACK": "drop_cookie", "RST": "drop_stray_tcp"}
CURL = ["curl", "-sS", "--max-time", "120", "-H", "Connection: close"]


def outcomes(lab: build.Lab) -> Counter[str]:
    found = json.loads(labs.xlvs(lab, "director", "status", "--json"))
    return Counter({name: each["count"] for name, each in found["packets"].items()})


def guard(lab: build.Lab, how: str = "enable") -> None:
    """Who answers clients' SYNs, in every service."""
    for ipv6 in (False, True) if lab.topology.ipv6 else (False,):
        labs.xlvs(lab, "director", "ipvsadm", "-E", "-t", lab.topology.service(ipv6), "-s", "rr", "-j", how)


def half_open(lab: build.Lab) -> int:
    code = "from xlvs.dataplane.tables import Tables; t = Tables(); "
    code += "print(sum(t.load_row(n).half_open for n in range(t.settings.dests_high)))"
    return int(lab.run("director", [build.xlvs()[0], "-c", code]))


def honest(lab: build.Lab, count: int = HONEST, ipv6: bool = False) -> None:
    """Requests one after the other, a connection each; every one must be answered."""
    url = f"{lab.topology.url(ipv6)}/?[1-{count}]"
    answers = lab.run("client", [*CURL, "-o", "/dev/null", "-w", "%{http_code}\n", url])
    assert answers.split() == ["200"] * count


@pytest.fixture(scope="module", params=[Method.NAT, Method.FULLNAT], ids=str)
def lab(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.lab(request.param, ipv6=True) as made:
        yield made


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Default settings after a test."""
    yield
    if "lab" in request.fixturenames:
        made = request.getfixturevalue("lab")
        labs.xlvs(made, "director", "sysctl", "synproxy_defer=0", "synproxy_retries=3", "tcp_drop_entry=0")


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("defer", [0, 1])
def test_requests_and_files(lab: build.Lab, ipv6: bool, defer: int, tmp_path: Path) -> None:
    labs.xlvs(lab, "director", "sysctl", f"synproxy_defer={defer}")
    guard(lab)
    before, content = outcomes(lab), os.urandom(8 * MEBIBYTE)
    for number in range(1, len(lab.topology.real_servers) + 1):
        Path(lab.site(number), "html/file").write_bytes(content)
    honest(lab, 20, ipv6)
    for _ in lab.topology.real_servers:
        file = tmp_path / "file"
        lab.run("client", [*CURL, "-o", str(file), f"{lab.topology.url(ipv6)}/file"])
        assert file.read_bytes() == content
    seen = outcomes(lab) - before
    # More where a busy machine had something sent again.
    asked = 20 + len(lab.topology.real_servers)
    assert min(seen["cookie_sent"], seen["handed_answer"]) >= asked, seen
    assert half_open(lab) == 0


def test_the_client_is_named(lab: build.Lab) -> None:
    """FULLNAT's real servers are told by the ACK that the director gives in the client's name."""
    guard(lab)
    ends = [
        lab.run("client", [*CURL, "-o", "/dev/null", "-w", "%{local_ip} %{local_port}", lab.topology.url()])
        for _ in range(6)
    ]
    expected = {(address, int(port)) for address, port in map(str.split, ends)}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        sites = range(1, len(lab.topology.real_servers) + 1)
        if expected <= {peer for number in sites for peer in webserver.peers_seen(lab.site(number))}:
            return
        time.sleep(0.1)
    raise AssertionError(f"not logged: {expected}")


def test_servers_with_neither_scaling_nor_sack(lab: build.Lab, tmp_path: Path) -> None:
    guard(lab)
    content = os.urandom(2 * MEBIBYTE)
    for number, node in enumerate(lab.topology.real_servers, 1):
        Path(lab.site(number), "html/file").write_bytes(content)
        lab.run(node.name, ["sysctl", "-qw", "net.ipv4.tcp_window_scaling=0", "net.ipv4.tcp_sack=0"])
    try:
        for _ in range(4):
            file = tmp_path / "file"
            lab.run("client", [*CURL, "-o", str(file), f"{lab.topology.url()}/file"])
            assert file.read_bytes() == content
    finally:
        for node in lab.topology.real_servers:
            lab.run(node.name, ["sysctl", "-qw", "net.ipv4.tcp_window_scaling=1", "net.ipv4.tcp_sack=1"])


@pytest.mark.parametrize("answer", ["reset", "silence"])
def test_a_dead_server_is_a_reset(lab: build.Lab, answer: str) -> None:
    labs.xlvs(lab, "director", "sysctl", "synproxy_retries=1")
    guard(lab)
    before = outcomes(lab)
    verdict = "reject with tcp reset" if answer == "reset" else "drop"
    rules = (
        f"table inet dead {{ chain entry {{ type filter hook input priority 0; tcp dport 80 {verdict}; }}; }}"
    )
    for node in lab.topology.real_servers:
        lab.run(node.name, ["nft", "-f", "-"], rules)
    try:
        asked = labs.typed(lab, "client", [*CURL, "-o", "/dev/null", lab.topology.url()])
        # Reset by peer: before curl saw itself connected (7), or after.
        assert asked.returncode in (7, 56), asked
        assert (outcomes(lab) - before)["server_refused"] == 1
    finally:
        for node in lab.topology.real_servers:
            lab.run(node.name, ["nft", "delete", "table", "inet", "dead"])
    assert half_open(lab) == 0
    honest(lab, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOODS)
def test_floods_reach_no_server_and_leave_nothing(lab: build.Lab, kind: str) -> None:
    dropped = FLOODS[kind]
    labs.xlvs(lab, "director", "sysctl", "tcp_drop_entry=1")
    guard(lab)
    honest(lab, 4)
    before = outcomes(lab)
    known = len(labs.xlvs(lab, "director", "ipvsadm", "-Lnc").splitlines())
    watching = [
        subprocess.Popen(
            namespaces.inside(
                lab.namespace(node.name),
                ["tcpdump", "-nlp", "-i", "eth0", "-c", "1", f"src net {SOURCES} and tcp[13] & 2 != 0"],
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for node in lab.topology.real_servers
    ]
    try:
        with flooded(lab, kind):
            honest(lab)
        # A guess among four million is a good cookie, and may ask a server (COOKIE_HASH_SHIFT).
        if kind != "ACK":
            assert [each.poll() for each in watching] == [None] * len(watching)
    finally:
        for each in watching:
            each.kill()
            each.communicate()
    seen = outcomes(lab) - before
    assert seen[dropped] > 1_000, seen
    spare = seen[dropped] // 500_000 + 3 if kind == "ACK" else 0
    assert len(labs.xlvs(lab, "director", "ipvsadm", "-Lnc").splitlines()) <= known + HONEST + spare


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_servers_that_speak_first(mode: str) -> None:
    """Conversations begin with the server's name here; nothing lost, repeated or out of order."""
    with site(Method.NAT, ipv6=True) as where:
        where.up("--mode", mode)
        for ipv6 in (False, True):
            name = where.service("t", ipv6=ipv6)
            where.director("ipvsadm", "-E", "-t", name, "-s", "rr", "-j", "enable")
        vips = where.made.topology.vips
        with (
            where.talking("--udp", "0", address=vips[0]) as four,
            where.talking("--udp", "0", address=vips[1]) as six,
        ):
            where.director("ipvsadm", "-L", "-n", "-t", host_port(vips[0], 7000))
            time.sleep(1)
        assert_unbroken(four)
        assert_unbroken(six)
        found = where.assert_sound()
        assert min(found["outcomes"]["cookie_sent"], found["outcomes"]["handed_answer"]) >= 20
