"""Clients that stay with their server: templates, masks, ports, marks, expiry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance.traffic.scenarios.common import (
    EVERYWHERE,
    ask,
    client_closes_first,
    knock,
    marked,
    service,
    talk,
)
from tests.conformance.traffic.stage import Scenario, Stage

LISTED = ("-Ln", "-Lnc", "-Ln --persistent-conn", "-Lnc --persistent-conn")


def stays(stage: Stage) -> None:
    client_closes_first(stage.flow(40000))
    knock(stage, 40001, 2)
    knock(stage, 40000, 2, client=2)
    knock(stage, 40000, 2, client=3)
    knock(stage, 40003)
    stage.listings(*LISTED)


def stays_while_servers_change(stage: Stage) -> None:
    knock(stage, 40000)
    knock(stage, 40000, client=2)
    for number in (1, 2):
        stage.rules(f"-e -t {{vip}}:80 -r {{rs{number}}}:80 {{method}} -w 0")
        knock(stage, 40000 + number)
        knock(stage, 40000 + number, client=2)
        knock(stage, 40000, client=2 + number)
    stage.rules("-e -t {vip}:80 -r {rs1}:80 {method} -w 3")
    knock(stage, 40005)
    stage.rules("-d -t {vip}:80 -r {rs2}:80")
    knock(stage, 40006)
    knock(stage, 40006, client=2)
    stage.rules("-a -t {vip}:80 -r {rs2}:80 {method} -w 1")
    knock(stage, 40007)
    knock(stage, 40007, client=2)
    stage.rules("-E -t {vip}:80 -s wrr")
    knock(stage, 40008, 3)
    stage.rules("-E -t {vip}:80 -s wrr -p 600")
    knock(stage, 40011, 3)
    knock(stage, 40011, 2, client=2)


def quiescent(stage: Stage) -> None:
    """Templates of a server of weight 0 are no longer used."""
    stage.sysctl("expire_quiescent_template", 1)
    flow, *_ = talk(stage, 40000, 1)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -w 0")
    knock(stage, 40001)
    flow.tcp("PA", b"still here")
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -w 1", "-e -t {vip}:80 -r {rs1}:80 {method} -w 0")
    knock(stage, 40002, 2)
    stage.rules("-d -t {vip}:80 -r {rs2}:80")
    knock(stage, 40004)


def all_ports(stage: Stage) -> None:
    """A service of port 0: one server for all that a client asks for."""
    for vport in (80, 443, 21, 8080):
        flow = stage.flow(40000 + vport, vport=vport)
        flow.open()
        flow.tcp("FA")
        flow.answer("FA")
    for client in (2, 3):
        knock(stage, 40000, client=client, vport=443)
        knock(stage, 40001, client=client, vport=22)
    stage.flow(40000, vport=81).tcp("A")
    stage.listings(*LISTED)


def beside_all_ports(stage: Stage) -> None:
    """A service of its own port goes before that of port 0."""
    stage.rules("-A -t {vip}:80 -s rr", "-a -t {vip}:80 -r {rs3}:80 {method}")
    for client in (1, 2):
        for vport in (80, 81, 82, 80):
            knock(stage, 40000 + vport, 1, client, vport)
            knock(stage, 50000 + vport, 1, client, vport)


def masked(stage: Stage) -> None:
    """Clients of one network stay together: 1 to 255 share a /24, and 256 to 511 another."""
    for client in (1, 2, 77, 256, 257, 255, 511, 512, 3):
        knock(stage, 40000 + client, 1, client)
    stage.listings(*LISTED)


def by_mark(stage: Stage) -> None:
    """Two ports with one mark: one server for both."""
    stage.mark("tcp", "80")
    stage.mark("tcp", "443")
    stage.rules(*marked("rr", "-p 300"))
    for client in (1, 2, 3):
        for vport in (80, 443):
            stage.flow(40000, client, vport).open()
            knock(stage, 40001, 1, client, vport)
    stage.rules("-e -f {mark} -r {rs1}:0 {method} -w 0")
    for client in (1, 2, 4):
        knock(stage, 40002, 1, client, 443)
    stage.listings(*LISTED)


def datagrams(stage: Stage) -> None:
    for client in (1, 2, 1, 3, 2):
        ask(stage, 40000 + len(stage.lines), client)
    stage.listings(*LISTED)


def associations(stage: Stage) -> None:
    for client in (1, 2, 1, 3):
        stage.flow(40000 + len(stage.lines), client).associate()
    stage.listings(*LISTED)


def expires(stage: Stage) -> None:
    """The template lives on while connections use it, and a minute is what it gets then."""
    stage.timeouts(0, 2, 2)
    ask(stage, 40000)
    ask(stage, 40001)
    ask(stage, 40000, client=2)
    stage.wait(7.5)
    ask(stage, 40002)
    ask(stage, 40003, client=3)


def expires_in_use(stage: Stage) -> None:
    ask(stage, 40000)
    ask(stage, 40000, client=2)
    stage.wait(6)
    ask(stage, 40001)
    ask(stage, 40001, client=2)


def thresholds(stage: Stage) -> None:
    """A full server keeps its clients."""
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -x 2")
    for client in (1, 2, 3, 4, 1, 2, 3):
        knock(stage, 40000 + len(stage.lines), 1, client)


def one_client_many_flows(stage: Stage) -> None:
    flows = talk(stage, 40000, 4)
    for flow in flows:
        flow.tcp("PA", b"x")
        flow.answer("PA", b"y")
    flows[0].tcp("R")
    flows[1].tcp("FA")
    flows[1].answer("FA")
    knock(stage, 40000)
    stage.rest()
    stage.rules("-D -t {vip}:80")
    flows[2].tcp("PA", b"after the service went")
    stage.rules(*service("-t", 80, "rr", "-p 60"))
    flows[2].tcp("PA", b"after it came again")
    knock(stage, 40010, 2)
    knock(stage, 40010, client=2)


PLAYS: dict[str, tuple[Callable[[Stage], None], str, int, str]] = {
    "a client stays": (stays, "-t", 80, "-p 300"),
    "a client stays by default": (stays, "-t", 80, "-p"),
    "servers change": (stays_while_servers_change, "-t", 80, "-p 300"),
    "quiescent templates": (quiescent, "-t", 80, "-p 300"),
    "all ports": (all_ports, "-t", 0, "-p 300"),
    "beside all ports": (beside_all_ports, "-t", 0, "-p 300"),
    "datagrams": (datagrams, "-u", 53, "-p 300"),
    "associations": (associations, "--sctp-service", 80, "-p 300"),
    "full servers": (thresholds, "-t", 80, "-p 300"),
    "many flows": (one_client_many_flows, "-t", 80, "-p 60"),
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for name, (play, kind, port, options) in PLAYS.items():
            rules = service(kind, port, "rr", options)
            yield Scenario(f"{where} persistent: {name}", family, rules, play, method=method)
        yield Scenario(f"{where} persistent: by mark", family, [], by_mark, method=method)
        mask = "255.255.255.0" if family == 4 else "120"
        rules = service("-t", 80, "rr", f"-p 300 -M {mask}")
        yield Scenario(f"{where} persistent: masked", family, rules, masked, method=method)
    for where, method, family in (("nat4", "-m", 4), ("dr6", "-g", 6)):
        for scheduler in ("wlc", "sh", "lblc", "mh", "sed"):
            rules = service("-t", 80, scheduler, "-p 300", weights=(1, 2))
            yield Scenario(f"{where} persistent: {scheduler}", family, rules, stays, method=method)
        rules = service("-u", 53, "rr", "-p 4")
        yield Scenario(f"{where} persistent: expiry", family, rules, expires, method=method, world="slow")
        rules = service("-u", 53, "rr", "-p 3")
        name = f"{where} persistent: expiry in use"
        yield Scenario(name, family, rules, expires_in_use, method=method, world="slow")
