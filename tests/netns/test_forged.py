"""What clients claim to be in TCP options reaches no application, and what is malformed breaks nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, namespaces, webserver
from xlvs.lab.topology import PORT, Method

pytestmark = pytest.mark.root

FORGER = str(Path(__file__).with_name("forger.py"))
OWN = ("172.16.0.77", "2001:db8:1::77")  # the forger's; no kernel has it
CLAIMED = ("192.0.2.66", "2001:db8:66::66")
families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
Attempt = dict[str, str | int]


def claim(kind: int, ipv6: bool) -> str:
    """The option that says to come from somebody else's port 666, in hex."""
    body = (666).to_bytes(2, "big") + ip_address(CLAIMED[ipv6]).packed
    return bytes((kind, 2 + len(body), *body)).hex()


@pytest.fixture(scope="module")
def made() -> Iterator[build.Lab]:
    with labs.lab(Method.FULLNAT, 1, ipv6=True) as built:
        for address in OWN:
            answer_to(built, "router", address, mac_of(built, "client", "eth0"))
        yield built


def mac_of(made: build.Lab, node: str, interface: str) -> str:
    shown = made.run(node, ["ip", "-json", "link", "show", interface])
    return str(json.loads(shown)[0]["address"])


def answer_to(made: build.Lab, node: str, address: str, mac: str) -> None:
    """Where a node finds an address that nobody answers for."""
    made.run(node, ["ip", "neighbour", "replace", address, "lladdr", mac, "dev", "eth0"])


@contextmanager
def forging(made: build.Lab, ipv6: bool) -> Iterator[subprocess.Popen[str]]:
    """The forger on the client, through the router."""
    target = made.topology.vips[ipv6]
    with forger(made, "client", "eth0", mac_of(made, "router", "eth0"), OWN[ipv6], target) as process:
        yield process


@contextmanager
def forger(made: build.Lab, node: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The forger on a node; the words are forger.py's."""
    with subprocess.Popen(
        namespaces.inside(made.namespace(node), [sys.executable, FORGER, *words, str(PORT)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def attempt(process: subprocess.Popen[str], what: Attempt) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def logged(made: build.Lab, port: int, patience: float = 30.0) -> list[tuple[str, int]]:
    """The log's last line, as soon as there is one of that port."""
    deadline = time.monotonic() + patience
    while True:
        peers = webserver.peers_seen(made.site(1))
        if (peers and peers[-1][1] == port) or time.monotonic() > deadline:
            return peers[-1:]
        time.sleep(0.02)


def tell(made: build.Lab, ipv6: bool, how: str) -> None:
    service = ["-t", made.topology.service(ipv6), "-s", "rr"]
    labs.xlvs(made, "director", "ipvsadm", "-E", *service, "--client-address", how)


def attempts(ipv6: bool) -> list[Attempt]:
    """A forged option in each place, of each kind, and in all places at once."""
    found: list[Attempt] = []
    for kind in (254, 200):
        forged = claim(kind, ipv6)
        found += [{place: forged} for place in ("syn", "ack", "data")]
        found.append(dict.fromkeys(("syn", "ack", "data"), forged))
    both = claim(254, ipv6) + (claim(200, ipv6) if not ipv6 else "")
    found.append({"ack": "0101" + both, "data": "0101" + both})
    return [{**each, "port": 30_000 + ipv6 * 1000 + number} for number, each in enumerate(found)]


@families
def test_who_claims_to_be_another_is_known_as_himself(made: build.Lab, ipv6: bool) -> None:
    with forging(made, ipv6) as process:
        for what in attempts(ipv6):
            assert attempt(process, what) == "HTTP/1.1 200 OK", what
            assert logged(made, int(what["port"])) == [(OWN[ipv6], what["port"])], what


@families
def test_where_nobody_is_told_a_claim_is_not_believed_either(made: build.Lab, ipv6: bool) -> None:
    """The real server would believe it: it comes from a local address."""
    tell(made, ipv6, "none")
    try:
        with forging(made, ipv6) as process:
            for what in attempts(ipv6):
                what = {**what, "port": int(what["port"]) + 100}
                before = len(webserver.log_lines(made.site(1)))
                assert attempt(process, what) == "HTTP/1.1 200 OK", what
                deadline = time.monotonic() + 5
                while len(webserver.log_lines(made.site(1))) == before and time.monotonic() < deadline:
                    time.sleep(0.02)
                ((address, _),) = webserver.peers_seen(made.site(1))[before:]
                assert address in made.topology.director.addresses, what
    finally:
        tell(made, ipv6, "default")


@families
def test_without_a_director_between_the_same_claims_are_believed(made: build.Lab, ipv6: bool) -> None:
    """What the other tests would see: the forger beside the real server, not believed, then believed."""
    target = made.topology.rip(1, ipv6)
    own = str(ip_address(target) + 50)
    ends = ("eth1", mac_of(made, "rs1", "eth0"), own, target)
    answer_to(made, "rs1", own, mac_of(made, "inside", "eth1"))
    detach = ["toa", "detach", "--cgroup", made.cgroup(1)]
    attach = ["toa", "attach", "--cgroup", made.cgroup(1), "--from", f"{own}/{128 if ipv6 else 32}"]
    what: Attempt = dict.fromkeys(("ack", "data"), claim(254, ipv6))
    with forger(made, "inside", *ends) as process:
        assert attempt(process, {**what, "port": 37_000 + ipv6}) == "HTTP/1.1 200 OK"
        assert logged(made, 37_000 + ipv6) == [(own, 37_000 + ipv6)]
        labs.xlvs(made, "rs1", *detach)
        labs.xlvs(made, "rs1", *attach)
        try:
            assert attempt(process, {**what, "port": 37_002 + ipv6}) == "HTTP/1.1 200 OK"
            assert logged(made, 666) == [(CLAIMED[ipv6], 666)]
        finally:
            labs.xlvs(made, "rs1", *detach)
            labs.xlvs(made, "rs1", *made.toa_command(1))


@families
@pytest.mark.parametrize("way", ["fragments", "extension"])
def test_other_ways_in(made: build.Lab, ipv6: bool, way: str) -> None:
    """In fragments, behind extension headers: known as himself, or not served at all."""
    number = 32_000 + ipv6 * 1000 + (way == "extension") * 500
    with forging(made, ipv6) as process:
        # The forger can do it: without a claim the request is answered.
        assert attempt(process, {"port": number, "way": way}) == "HTTP/1.1 200 OK"
        before = len(webserver.log_lines(made.site(1)))
        for each, place in enumerate(("syn", "ack", "data"), 1):
            attempt(process, {place: claim(254, ipv6), "port": number + each, "way": way})
        time.sleep(0.2)
        seen = webserver.peers_seen(made.site(1))[before:]
    # TOA is told by the handshake's last segment, which is whole, so that of these nobody is unknown.
    assert {address for address, _ in seen} <= {OWN[ipv6]}, seen


MALFORMED = (
    "fe",  # the last byte of the header
    "fe00",
    "fe01",
    "fe02",
    "fe07029ac00002",
    "fe09029ac0000242",
    "fe28",  # beyond the header
    "feff029ac0000242",
    "c813029ac0000242",
    "05ff",
    "0500",
    "0200",
    "0b",
    "01" * 39 + "fe",
    "01" * 38 + "fe08",
    "00" + "fe08029ac0000242",  # behind the list's end
    "fe08029ac0000242" * 5,
)


@families
def test_malformed_options_break_nothing(made: build.Lab, ipv6: bool) -> None:
    known = len(webserver.log_lines(made.site(1)))
    with forging(made, ipv6) as process:
        for number, options in enumerate(MALFORMED):
            port = 35_000 + ipv6 * 1000 + number
            # Whether a kernel takes such a segment is its own affair.
            attempt(process, {"ack": options, "data": options, "port": port})
    time.sleep(0.2)
    seen = {address for address, _ in webserver.peers_seen(made.site(1))[known:]}
    assert CLAIMED[ipv6] not in seen
    assert seen <= {OWN[ipv6], *made.topology.director.addresses}
    assert labs.answers(made, 5, ipv6=ipv6) == ["<h1>RS1</h1>"] * 5
