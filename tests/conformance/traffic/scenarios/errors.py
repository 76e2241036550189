"""ICMP errors about conversations, from both sides and from routers on the way; and pings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import ERRORS, icmp_error
from tests.conformance.traffic.scenarios.common import EVERYWHERE, FULL, pair
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import ADDRESSES

EXTRA = {"too big": 1280, "parameter problem": 0x08000000}


def begun(stage: Stage, kind: str) -> Flow:
    """A conversation after its first words, of TCP, UDP or SCTP."""
    flow = stage.flow(40000, stage.own_client(), 53 if kind == "-u" else 80)
    if kind == "-t":
        flow.open()
        flow.tcp("PA", FULL[:700])
        flow.answer("PA", FULL[:900])
    elif kind == "-u":
        flow.udp(FULL[:700])
        flow.answer_udp(FULL[:900])
    else:
        flow.associate()
    return flow


def common_errors(stage: Stage) -> list[str]:
    """All, but for one that IPVS leaves to the kernel over IPv4 (see parameter_problems)."""
    return [error for error in ERRORS if error != "parameter problem" or stage.family == 6]


def parameter_problems(stage: Stage) -> None:
    for kind in ("-t", "-u"):
        flow = begun(stage, kind)
        flow.error_from_clients("parameter problem", EXTRA["parameter problem"])
        flow.error_from_servers("parameter problem", EXTRA["parameter problem"])


def from_clients(stage: Stage, kind: str) -> None:
    """About what servers sent: from the client itself, and from a router before it."""
    flow = begun(stage, kind)
    for error in common_errors(stage):
        flow.error_from_clients(error, EXTRA.get(error, 0))
        flow.error_from_clients(error, EXTRA.get(error, 0), sender=stage.router(), quoted=68)
    flow.error_from_clients("too big", 1280, sender=stage.router(), quoted=28 if stage.family == 4 else 48)


def from_servers(stage: Stage, kind: str) -> None:
    """About what clients sent: from the server, and from a router behind the director."""
    flow = begun(stage, kind)
    far = ip_network(ADDRESSES[stage.family]["far"])[1]
    for error in common_errors(stage):
        flow.error_from_servers(error, EXTRA.get(error, 0))
        flow.error_from_servers(error, EXTRA.get(error, 0), sender=far, quoted=68)
    flow.error_from_servers("too big", 1280, sender=far, quoted=28 if stage.family == 4 else 48)


def about_nothing(stage: Stage, kind: str) -> None:
    """Errors about what nobody sent."""
    flow = begun(stage, kind)
    other = stage.flow(40009, stage.own_client(), flow.target[1])
    other.seen, other.server = flow.seen, flow.server
    answer = other.answer_to(stage.vip)
    for error in ("unreachable port", "too big"):
        stage.outside(icmp_error(stage.router(), stage.vip, error, answer))
        stage.outside(icmp_error(stage.router(), stage.vip, error, answer[:24]))
        stage.outside(icmp_error(stage.router(), stage.vip, error, answer[:10]))
    if flow.seen is not None:
        stage.inside("RS1", icmp_error(flow.seen.target[0], flow.source[0], "unreachable port", answer))


def after_the_end(stage: Stage) -> None:
    """An error about a connection whose server is gone, and one about an error."""
    flow = begun(stage, "-u")
    stage.rules("-d -u {vip}:53 -r {rs2}:53")
    flow.error_from_clients("too big", 1280)
    flow.error_from_servers("unreachable port")
    error = icmp_error(stage.router(), stage.vip, "unreachable port", flow.answered)
    stage.outside(icmp_error(stage.router(), stage.vip, "time exceeded", error))


def pings(stage: Stage) -> None:
    stage.ping()
    stage.ping(FULL[:1000])


PLAYS: dict[str, Callable[[Stage, str], None]] = {
    "from clients": from_clients,
    "from servers": from_servers,
    "about nothing": about_nothing,
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for kind, name in (("-t", "tcp"), ("-u", "udp"), ("--sctp-service", "sctp")):
            rules = pair(kind, 53 if kind == "-u" else 80, method, real=8080)
            for text, play in PLAYS.items():

                def play_kind(
                    stage: Stage, play: Callable[[Stage, str], None] = play, kind: str = kind
                ) -> None:
                    play(stage, kind)

                yield Scenario(f"{where} errors: {name} {text}", family, rules, play_kind)
        rules = pair("-u", 53, method)
        yield Scenario(f"{where} errors: after the end", family, rules, after_the_end)
        yield Scenario(f"{where} errors: pings", family, rules, pings)
        rules += pair("-t", 80, method, real=8080)
        yield Scenario(f"{where} errors: parameter problems", family, rules, parameter_problems)
