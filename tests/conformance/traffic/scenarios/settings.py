"""IPVS's sysctls: what each of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import Network, Segment, icmp_error, tcp_packet, udp_packet
from tests.conformance.traffic.scenarios import associations, conversations
from tests.conformance.traffic.scenarios.common import (
    EVERYWHERE,
    FULL,
    REQUEST,
    client_closes_first,
    knock,
    marked,
    pair,
    service,
    talk,
)
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import server_address

REUSES: dict[str, Callable[[Flow], None]] = {
    name: play
    for name, play in conversations.CONVERSATIONS.items()
    if name.startswith("reused") or name in ("refused", "odd flags")
}


def no_destination(stage: Stage) -> None:
    """Connections whose server is deleted end."""
    stage.sysctl("expire_nodest_conn", 1)
    flows = talk(stage, 40000, 3)
    datagram = stage.flow(40000, vport=53)
    datagram.udp(b"first")
    stage.rules("-d -t {vip}:80 -r {rs2}:80", "-d -u {vip}:53 -r {rs2}:53", settle=1.5)
    for flow in flows:
        flow.tcp("PA", REQUEST)
        flow.tcp("PA", REQUEST)
    datagram.udp(b"second")
    datagram.udp(b"third")
    knock(stage, 40000, 3)
    stage.rules("-a -t {vip}:80 -r {rs2}:80 {method}")
    flows[0].tcp("PA", REQUEST)
    flows[1].tcp("PA", REQUEST)


def no_destination_kept(stage: Stage) -> None:
    """As it is by default: its packets are dropped until the server is back."""
    flows = talk(stage, 40000, 3)
    stage.rules("-d -t {vip}:80 -r {rs2}:80")
    for flow in flows:
        flow.tcp("PA", REQUEST)
    stage.rules("-a -t {vip}:80 -r {rs2}:80 {method}")
    for flow in flows:
        flow.tcp("PA", REQUEST)


def sloppy_tcp(stage: Stage) -> None:
    """Connections that the director did not see begin."""
    stage.sysctl("sloppy_tcp", 1)
    for number, flags in enumerate(("A", "PA", "FA", "R", "RA", "SA", "SF", "", "S", "F")):
        flow = stage.flow(41000 + number)
        flow.tcp(flags, REQUEST)
        flow.answer("PA", b"reply")
        flow.tcp("A")
        flow.tcp("FA")


def sloppy_sctp(stage: Stage) -> None:
    stage.sysctl("sloppy_sctp", 1)
    for number, name in enumerate(associations.NOT_THE_FIRST):
        flow = stage.flow(41000 + number)
        flow.sctp(name)
        flow.answer_sctp("SACK")
        flow.sctp("DATA")


def nat_icmp_send(stage: Stage) -> None:
    """Servers that speak out of no connection are told so."""
    stage.sysctl("nat_icmp_send", 1)
    client, network = (stage.client(), 50000), Network(identity=3)
    for number in (1, 3):
        server = server_address(stage.family, number)
        for port, vport in ((80, 80), (81, 81)):
            segment = tcp_packet((server, port), client, Segment("PA", 2, 7, data=REQUEST), network)
            stage.inside(f"RS{number}", segment)
            reset = tcp_packet((server, port), client, Segment("R", 2), network)
            stage.inside(f"RS{number}", reset)
            stage.inside(f"RS{number}", udp_packet((server, 53 + vport - 80), client, b"x", network))
    client_closes_first(stage.flow())


def schedule_icmp(stage: Stage) -> None:
    """Errors about connections that the director does not know go to a server."""
    stage.sysctl("schedule_icmp", 1)
    network = Network(identity=4)
    client = stage.client(stage.own_client()), 43000
    answers = (
        tcp_packet((stage.vip, 80), client, Segment("PA", 5, 6), network),
        udp_packet((stage.vip, 53), client, FULL[:200], network),
    )
    for number, about in enumerate(answers):
        for error, extra in (("too big", 1280), ("unreachable port", 0), ("time exceeded", 0)):
            stage.outside(icmp_error(stage.router(), stage.vip, error, about, extra))
        other = stage.client(stage.own_client() + number)
        stage.outside(icmp_error(other, stage.vip, "too big", about[:28], 1280))
    for number, flags in enumerate(("A", "R")):
        stage.flow(41000 + number).tcp(flags)


def pmtu_disc(stage: Stage) -> None:
    """Without path MTU discovery packets with DF are cut where they are too big."""
    stage.sysctl("pmtu_disc", 0)
    flow = stage.flow()
    flow.open()
    header = 40 if stage.family == 4 else 60
    for size in (1340, 1341, 1360, 1361, 1380, 1381, 1400, 1401, 1500):
        flow.tcp("A", FULL[: size - header], acknowledge=False)


def cache_bypass(stage: Stage) -> None:
    """Where no cache is left, packets go where they were sent to."""
    network = ip_network(stage.network())
    stage.mark("tcp", "80", str(network))
    stage.rules(*marked("dh"))
    stage.flow(40000, target=network[5]).tcp("S")
    stage.sysctl("cache_bypass", 1)
    for number in (1, 2):
        stage.rules(f"-e -f {{mark}} -r {{rs{number}}}:0 {{method}} -w 0")
    flow = stage.flow(40001, target=network[5])
    flow.tcp("S")
    flow.tcp("A")
    flow.tcp("PA", REQUEST)
    stage.rules("-e -f {mark} -r {rs1}:0 {method} -w 1")
    stage.flow(40002, target=network[5]).tcp("S")


def secure_tcp(stage: Stage, speak: Callable[[Flow], None]) -> None:
    """Always defending: half-open connections are told from open ones by what the server said."""
    stage.sysctl("secure_tcp", 3)
    stage.wait(1.5)
    speak(stage.flow())
    stage.flow(41000).tcp("S")


def drop_packet(stage: Stage) -> None:
    """Always dropping one packet of some: what begins a connection, that is."""
    stage.sysctl("am_droprate", 4)
    stage.sysctl("drop_packet", 3)
    stage.wait(1.5)
    knock(stage, 40000, 16)
    flow = stage.flow(45000)
    for _ in range(4):
        flow.open()


PLAYS: dict[str, tuple[Callable[[Stage], None], list[str]]] = {
    "servers gone, expired": (no_destination, [*service("-t", 80), *service("-u", 53)]),
    "servers gone, kept": (no_destination_kept, service("-t", 80)),
    "sloppy_tcp": (sloppy_tcp, service("-t", 80)),
    "sloppy_sctp": (sloppy_sctp, service("--sctp-service", 80)),
    "schedule_icmp": (schedule_icmp, [*service("-t", 80), *service("-u", 53)]),
    "pmtu_disc": (pmtu_disc, service("-t", 80)),
    "cache_bypass": (cache_bypass, []),
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for name, (play, rules) in PLAYS.items():
            text = f"{where} settings: {name}"
            helped = play is pmtu_disc
            yield Scenario(text, family, rules, play, method=method, helped=helped, world="settings")
        for name, speak in REUSES.items():

            def reuse(stage: Stage, speak: Callable[[Flow], None] = speak) -> None:
                stage.sysctl("conn_reuse_mode", 0)
                speak(stage.flow())

            rules = pair("-t", 80, method, real=8080)
            text = f"{where} settings: no reuse, {name}"
            yield Scenario(text, family, rules, reuse, method=method, world="settings")
        if method == "-m":
            rules = [*service("-t", 80), *service("-u", 53)]
            name = f"{where} settings: nat_icmp_send"
            yield Scenario(name, family, rules, nat_icmp_send, method=method, world="settings")
    for where, method, family in (EVERYWHERE[0], EVERYWHERE[4]):
        for name, speak in conversations.CONVERSATIONS.items():

            def secured(stage: Stage, speak: Callable[[Flow], None] = speak) -> None:
                secure_tcp(stage, speak)

            rules = service("-t", 80)
            text = f"{where} settings: secure_tcp, {name}"
            yield Scenario(text, family, rules, secured, method=method, world="slow settings")
        name = f"{where} settings: drop_packet"
        yield Scenario(name, family, service("-t", 80), drop_packet, method=method, world="slow settings")
