"""Floods at full speed onto a director with its defence up, and honest clients beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.flood import SOURCES, flooded
from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import VIP4, Method

pytestmark = [pytest.mark.root, pytest.mark.slow]
WEB = ("-t", f"{VIP4}:80")
HONEST = 40  # requests during each flood
STRAYS = {
    "ACK": "drop_stray_tcp",
    "FIN": "drop_stray_tcp",
    "RST": "drop_stray_tcp",
    "UDP": "drop_stray_udp",
    "fragments": "drop_stray_fragment",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[build.Lab]:
    with labs.lab(Method.NAT) as made:
        yield made


@pytest.fixture(autouse=True)
def _calm(lab: build.Lab) -> Iterator[None]:
    """No defence after a test."""
    yield
    labs.xlvs(lab, "director", "defence", "flush")


def outcomes(lab: build.Lab) -> Counter[str]:
    found = json.loads(labs.xlvs(lab, "director", "status", "--json"))
    return Counter({name: each["count"] for name, each in found["packets"].items()})


def connections(lab: build.Lab) -> int:
    return len(labs.xlvs(lab, "director", "ipvsadm", "-Lnc").splitlines()) - 2


def honest(lab: build.Lab, count: int = HONEST) -> None:
    """Requests one after the other, a connection each; every one must be answered."""
    url = f"{lab.topology.url()}/?[1-{count}]"
    command = ["curl", "-sS", "--max-time", "120", "-H", "Connection: close", "-o", "/dev/null"]
    assert lab.run("client", [*command, "-w", "%{http_code}\n", url]).split() == ["200"] * count


@pytest.mark.parametrize("kind", STRAYS)
def test_what_belongs_to_nobody_is_dropped_and_nobody_suffers(lab: build.Lab, kind: str) -> None:
    for name in ("tcp_drop_entry", "udp_drop_entry", "frag_drop_entry"):
        labs.xlvs(lab, "director", "sysctl", f"{name}=1")
    before, known = outcomes(lab), connections(lab)
    with flooded(lab, kind):
        honest(lab)
    seen = outcomes(lab) - before
    assert seen[STRAYS[kind]] > 1_000, seen
    assert seen["pass_no_connection"] == seen["drop_no_helper"] == seen["handed_early"] == 0, seen
    assert connections(lab) <= known + HONEST


def test_who_is_denied_reaches_nobody(lab: build.Lab) -> None:
    labs.xlvs(lab, "director", "defence", "deny", *WEB, SOURCES)
    before, known = outcomes(lab), connections(lab)
    with flooded(lab, "SYN"):
        honest(lab)
    seen = outcomes(lab) - before
    assert seen["drop_denied"] > 1_000, seen
    assert connections(lab) <= known + HONEST
    (service,) = json.loads(labs.xlvs(lab, "director", "defence", "list", "--json"))["services"]
    assert service["clients"] == [{"prefix": SOURCES, "verdict": "deny", "packets": seen["drop_denied"]}]


def test_a_limit_spares_connections_that_exist(lab: build.Lab) -> None:
    """A keep-alive connection goes on undisturbed while SYNs from everywhere are turned away."""
    labs.xlvs(lab, "director", "defence", "limit", *WEB, "--new", "50")
    requests = 300
    url = f"{lab.topology.url()}/?[1-{requests}]"
    command = ["curl", "-sS", "--max-time", "120", "--rate", "50/s", "-o", "/dev/null"]
    known, before = connections(lab), outcomes(lab)
    # Where it does not go into a file, standard error is written at once.
    keeping = lab.start("client", [*command, "-w", "%{stderr}%{http_code} %{num_connects}\n", url])
    try:
        assert keeping.stderr
        assert keeping.stderr.readline() == "200 1\n"
        with flooded(lab, "SYN"):
            rest = keeping.stderr.readlines()
        assert keeping.wait(60) == 0
    finally:
        keeping.kill()
        keeping.communicate()
    assert rest == ["200 0\n"] * (requests - 1)  # all by the first one's connection
    seen = outcomes(lab) - before
    assert seen["drop_service_limit"] > 1_000, seen
    (service,) = json.loads(labs.xlvs(lab, "director", "defence", "list", "--json"))["services"]
    assert service["new_refused"] == seen["drop_service_limit"]
    assert connections(lab) - known < seen["drop_service_limit"] / 10


def test_one_client_over_its_limit_waits(lab: build.Lab) -> None:
    """Eight connections at once of four a second: some SYNs are refused, and come again."""
    labs.xlvs(lab, "director", "defence", "limit", *WEB, "--per-source", "4")
    before = outcomes(lab)
    url = f"{lab.topology.url()}/?[1-8]"
    command = ["curl", "-sS", "-Z", "--parallel-immediate", "--max-time", "120", "-w", "%{http_code}\n"]
    said = lab.run("client", [*command, "-o", "/dev/null", url]).split()
    assert said == ["200"] * 8
    refused = (outcomes(lab) - before)["drop_source_limit"]
    assert refused >= 1
    (service,) = json.loads(labs.xlvs(lab, "director", "defence", "list", "--json"))["services"]
    assert (service["per_source_refused"], service["new_refused"]) == (refused, 0)
