"""What scenarios share: methods, rules, pieces of conversation."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.stage import Stage

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
FULL = bytes(range(256)) * 24  # cut to what a test needs

METHODS = {"nat": "-m", "dr": "-g", "tun": "-i"}
# The other tunnels, by the names that scenarios have.
TUNNELS = {
    "gre": "-i --tun-type gre",
    "gre with sum": "-i --tun-type gre --tun-csum",
    "gue": "-i --tun-type gue --tun-port 6080",
    "gue with sum": "-i --tun-type gue --tun-port 6080 --tun-csum",
    "gue with remote sum": "-i --tun-type gue --tun-port 7777 --tun-remcsum",
}
# Every method under each family: name of both, option, family.
EVERYWHERE = [(f"{name}{family}", option, family) for family in (4, 6) for name, option in METHODS.items()]


def service(
    kind: str, port: int, scheduler: str = "rr", options: str = "", weights: Sequence[int] = (1, 1)
) -> list[str]:
    """Rules of a service of {vip} with a server for each weight, by {method}.

    ``kind`` is the option of the service's protocol; NAT servers listen on another port (8080).
    """
    rules = [f"-A {kind} {{vip}}:{port} -s {scheduler} {options}".rstrip()]
    return rules + servers(f"{kind} {{vip}}:{port}", port, weights)


def marked(scheduler: str = "rr", options: str = "", weights: Sequence[int] = (1, 1)) -> list[str]:
    """Rules of a service of the scenario's firewall mark, by {method}."""
    rules = [f"-A -f {{mark}} -s {scheduler} {options}".rstrip()]
    return rules + servers("-f {mark}", 0, weights)


def servers(name: str, port: int, weights: Sequence[int]) -> list[str]:
    return [
        f"-a {name} -r {{rs{number}}}:{port} {{method}} -w {weight}"
        for number, weight in enumerate(weights, 1)
    ]


def pair(kind: str, port: int, method: str, real: int = 0) -> list[str]:
    """Rules of a round-robin service with two servers; NAT may name another port of theirs."""
    real = real if real and method == "-m" else port
    rules = [f"-A {kind} {{vip}}:{port} -s rr"]
    return rules + [f"-a {kind} {{vip}}:{port} -r {{rs{number}}}:{real} {method}" for number in (1, 2)]


def knock(stage: Stage, first: int, count: int = 1, client: int = 1, vport: int = 80) -> None:
    """New connections that get no further than their SYN."""
    for port in range(first, first + count):
        stage.flow(port, client, vport).tcp("S")


def talk(stage: Stage, first: int, count: int) -> list[Flow]:
    """New connections that are established."""
    flows = [stage.flow(port) for port in range(first, first + count)]
    for flow in flows:
        flow.open()
    return flows


def client_closes_first(flow: Flow) -> None:
    flow.open()
    flow.tcp("PA", REQUEST)
    flow.answer("PA", b"reply")
    flow.tcp("FA")
    flow.answer("FA")
    flow.tcp("A")


def ask(stage: Stage, port: int, client: int = 1, vport: int = 53, data: bytes = b"question") -> Flow:
    """A datagram there and its answer."""
    flow = stage.flow(port, client, vport)
    flow.udp(data)
    flow.answer_udp(b"the answer to " + data)
    return flow
