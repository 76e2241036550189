"""Datagrams, damaged packets, times to live, sizes, and servers in odd places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import Network, Segment, tcp_packet, zero_sum_data
from tests.conformance.traffic.scenarios.common import (
    EVERYWHERE,
    FULL,
    REQUEST,
    client_closes_first,
    pair,
    service,
)
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import server_address


def datagrams(stage: Stage) -> None:
    flow = stage.flow(vport=53)
    flow.udp(b"question")
    flow.answer_udp(b"the answer")
    flow.udp(b"again")
    flow.answer_udp(b"")
    if stage.family == 4:
        flow.udp(b"without a checksum", sum_it=False)
        flow.answer_udp(b"without one either", sum_it=False)
    other = stage.flow(port=40001, vport=53)
    other.udp(b"to the other server")
    other.answer_udp(b"x" * 1300)
    # Sums that are 0 before or after translation: 0 would say that there is none.
    if flow.seen is None:
        return
    for source, target in ((flow.source, flow.target), (flow.seen.source, flow.seen.target)):
        flow.udp(zero_sum_data(source, target))
        flow.answer_udp(zero_sum_data(target, source))


def times_to_live(stage: Stage) -> None:
    for port, ttl in ((40000, 1), (40001, 2), (40002, 64), (40003, 255)):
        flow = replace_network(stage.flow(port), Network(ttl=ttl, tos=0x10))
        flow.tcp("S")
        flow.answer("SA", network=Network(ttl=ttl, identity=9))
    flow = replace_network(stage.flow(40002), Network(ttl=1))
    flow.tcp("PA", REQUEST)
    for port, bits in ((40004, 0x03), (40005, 0xB8), (40006, 0x02)):
        flow = replace_network(stage.flow(port), Network(tos=bits))
        flow.tcp("S")
        flow.answer("SA")


def replace_network(flow: Flow, network: Network) -> Flow:
    return replace(flow, network=network)


def too_big(stage: Stage) -> None:
    """The inside carries 1400 bytes, the outside 1500."""
    flow = stage.flow()
    flow.open()
    header = 40 if stage.family == 4 else 60
    for size in (1340, 1341, 1360, 1361, 1380, 1381, 1400, 1401, 1500):
        flow.tcp("A", FULL[: size - header], acknowledge=False)
    flow.tcp("PA", REQUEST)


def damaged(stage: Stage) -> None:
    flow = stage.flow()
    flow.open()
    flow.tcp("PA", REQUEST, acknowledge=False, damage=0x0101)
    flow.tcp("PA", REQUEST)
    if stage.family == 4:
        for field in (Network(damage=1), Network(identity=77, dont_fragment=False)):
            segment = Segment("PA", flow.sequence, flow.server_sequence, data=b"x")
            stage.outside(tcp_packet(flow.source, flow.target, segment, field))


def no_connection(stage: Stage) -> None:
    """Segments that begin nothing, to the service; then to a port without one; then a ping."""
    for number, flags in enumerate(("A", "PA", "FA", "R", "RA", "SA", "SF", "")):
        stage.flow(41000 + number).tcp(flags)
    stage.flow(42000, vport=81).tcp("S")
    stage.flow(42001, vport=81).udp(b"nobody there")
    stage.ping()


def servers_on_their_own(stage: Stage) -> None:
    """What real servers send without having been asked is routed as by any router."""
    server = server_address(stage.family, 1)
    packet = tcp_packet((server, 8080), (stage.client(), 50000), Segment("S", 1), Network(identity=3))
    stage.inside("RS1", packet)
    packet = tcp_packet((server, 8080), (stage.client(), 50000), Segment("PA", 2, 7), Network(ttl=1))
    stage.inside("RS1", packet)


def one_arm(stage: Stage) -> None:
    """A client on the servers' own network: what the director sends leaves where it came in."""
    flow = stage.flow_inside()
    flow.tcp("S")
    flow.tcp("A")
    flow.tcp("PA", REQUEST)
    flow.tcp("A", FULL[: 1360 if stage.family == 4 else 1340], acknowledge=False)
    replace_network(flow, Network(ttl=1)).tcp("A", acknowledge=False)
    flow.tcp("FA")
    flow.tcp("R")


def far_server(stage: Stage) -> None:
    """A server beyond a router."""
    client_closes_first(stage.flow())
    flow = stage.flow(40001)
    flow.open()
    flow.tcp("A", FULL[:1361], acknowledge=False)


def on_director(stage: Stage) -> None:
    """The director itself is the server; nobody listens there."""
    for port in (40000, 40001, 40002):
        stage.flow(port).tcp("S")
    stage.flow(40003).tcp("A")


def without_servers(stage: Stage) -> None:
    stage.flow().tcp("S")
    stage.flow().tcp("A")
    stage.flow(vport=53).udp(b"question")
    stage.rules("-a -t {vip}:80 -r {rs1}:80 -m -w 0", "-a -u {vip}:53 -r {rs1}:53 -m -w 0")
    stage.flow().tcp("S")
    stage.flow(vport=53).udp(b"question")
    stage.rules("-e -t {vip}:80 -r {rs1}:80 -m -w 1")
    stage.flow().tcp("S")


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        rules = pair("-u", 53, method, real=8080)
        yield Scenario(f"{where}: datagrams", family, rules, datagrams, listed=("-Ln", "-Lnc"))
        rules = pair("-t", 80, method, real=8080)
        for name, play in PLAYS.items():
            yield Scenario(f"{where}: {name}", family, rules, play)
        yield Scenario(f"{where}: one arm", family, service("-t", 80), one_arm, method=method)
        rules = ["-A -t {vip}:80 -s rr", "-a -t {vip}:80 -r {far}:80 {method}"]
        yield Scenario(f"{where}: a far server", family, rules, far_server, method=method)
        port = 8080 if method == "-m" else 80
        rules = ["-A -t {vip}:80 -s rr", f"-a -t {{vip}}:80 -r {{dip}}:{port} {method}"]
        rules.append("-a -t {vip}:80 -r {rs1}:80 -m")
        yield Scenario(f"{where}: on the director itself", family, rules, on_director)
    for family in (4, 6):
        rules = ["-A -t {vip}:80 -s rr", "-a -t {vip}:80 -r {rs1}:8080 -m"]
        yield Scenario(f"nat{family}: servers on their own", family, rules, servers_on_their_own)
        rules = ["-A -t {vip}:80 -s rr", "-A -u {vip}:53 -s rr"]
        yield Scenario(f"none{family}: a service without servers", family, rules, without_servers)


PLAYS = {
    "times to live": times_to_live,
    "too big": too_big,
    "damaged": damaged,
    "no connection": no_connection,
}
