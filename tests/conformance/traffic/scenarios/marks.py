"""Services of firewall marks."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.traffic.scenarios.common import (
    EVERYWHERE,
    ask,
    client_closes_first,
    knock,
    marked,
    service,
)
from tests.conformance.traffic.stage import Scenario, Stage


def ports(stage: Stage) -> None:
    """One service of several protocols and ports; ports stay as they are."""
    stage.mark("tcp", "80")
    stage.mark("tcp", "8000:8010")
    stage.mark("udp", "53")
    stage.rules(*marked("rr"))
    client_closes_first(stage.flow(40000))
    client_closes_first(stage.flow(40000, vport=8000))
    client_closes_first(stage.flow(40001, vport=8010))
    knock(stage, 40002, vport=8011)
    ask(stage, 40003)
    ask(stage, 40004, vport=54)
    stage.listings("-Ln", "-Lnc")


def all_of_it(stage: Stage) -> None:
    stage.mark("all")
    stage.rules(*marked("wrr", weights=(1, 2)))
    for vport in (80, 443, 25):
        knock(stage, 40000, 2, vport=vport)
        ask(stage, 40000, vport=vport)
    stage.flow(40000, vport=80).sctp("INIT")
    stage.ping()


def before_addresses(stage: Stage) -> None:
    """A mark's service goes before that of the address."""
    stage.rules(*service("-t", 80, "rr"))
    knock(stage, 40000, 2)
    stage.mark("tcp", "80")
    knock(stage, 40010, 2)
    stage.rules("-A -f {mark} -s rr", "-a -f {mark} -r {rs3}:0 {method}")
    knock(stage, 40020, 2)
    knock(stage, 40000, 1)
    stage.rules("-D -f {mark}")
    knock(stage, 40030, 2)


def another_port(stage: Stage) -> None:
    """A server's own port is asked for: only persistent services of port 0 keep the client's."""
    stage.mark("tcp", "80")
    stage.rules("-A -f {mark} -s rr", "-a -f {mark} -r {rs1}:8080 {method}")
    client_closes_first(stage.flow(40000))


PLAYS = {
    "ports": ports,
    "all of it": all_of_it,
    "before addresses": before_addresses,
    "another port": another_port,
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for name, play in PLAYS.items():
            yield Scenario(f"{where} marks: {name}", family, [], play, method=method)
