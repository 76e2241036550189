"""AH and ESP beside IKE, one-packet scheduling, and the persistence engine of SIP."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.conformance.traffic.packets import AH, ESP, Network, ip_packet
from tests.conformance.traffic.scenarios.common import EVERYWHERE, METHODS, ask, service
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import server_address

IKE = 500
ESP_BODY = struct.pack("!II", 0x1001, 1) + bytes(range(32))
AH_BODY = struct.pack("!BBHII", 6, 4, 0, 0x1002, 1) + bytes(12) + bytes(range(20))
BODIES = {ESP: ESP_BODY, AH: AH_BODY}


def security(stage: Stage) -> None:
    """ESP and AH follow the IKE of their client; without one they are none of IPVS's business."""
    network = Network(identity=11)
    strangers = stage.client(stage.own_client() + 1)
    flow = stage.flow(IKE, stage.own_client(), IKE)
    for protocol, body in BODIES.items():
        stage.outside(ip_packet(strangers, stage.vip, protocol, body, network))
    flow.udp(b"a proposal")
    flow.answer_udp(b"accepted")
    for protocol, body in BODIES.items():
        stage.outside(ip_packet(flow.source[0], stage.vip, protocol, body, network))
        for number in (1, 2):
            server = server_address(stage.family, number)
            stage.inside(f"RS{number}", ip_packet(server, flow.source[0], protocol, body, network))
    short = Network(ttl=1, identity=12)
    stage.outside(ip_packet(flow.source[0], stage.vip, ESP, ESP_BODY, short))


def one_packet(stage: Stage) -> None:
    """Every datagram is a new connection, gone at once."""
    flow = stage.flow(40000, stage.own_client(), 53)
    for text in (b"one", b"two", b"three"):
        flow.udp(text)
        flow.answer_udp(b"answer to " + text)
    for client in range(3):
        ask(stage, 40001, stage.own_client() + client)
        ask(stage, 40001, stage.own_client() + client)
    stage.rules("-e -u {vip}:53 -r {rs1}:53 {method} -w 0")
    ask(stage, 40002, stage.own_client())
    ask(stage, 40002, stage.own_client())
    stage.rules("-e -u {vip}:53 -r {rs2}:53 {method} -w 0")
    ask(stage, 40003, stage.own_client())
    stage.listings("-Ln", "-Lnc")


def invitation(call: str, method: str = "INVITE") -> bytes:
    lines = [
        f"{method} sip:bob@example.org SIP/2.0",
        "Via: SIP/2.0/UDP client.example.org:5060;branch=z9hG4bK1",
        "From: <sip:alice@example.org>;tag=1",
        "To: <sip:bob@example.org>",
        f"Call-ID: {call}",
        f"CSeq: 1 {method}",
        "Content-Length: 0",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def calls(stage: Stage) -> None:
    """Whoever speaks of the same call comes to the same server."""
    for client, call in ((1, "a@x"), (2, "b@x"), (3, "a@x"), (1, "b@x"), (2, "c@x"), (1, "a@x")):
        flow = stage.flow(5060 + client, client, 5060)
        flow.udp(invitation(call))
        flow.answer_udp(invitation(call, "BYE"))
    for text in (b"", b"nonsense", b"OPTIONS sip:x SIP/2.0\r\n\r\n", invitation("x" * 80)):
        stage.flow(5070, 4, 5060).udp(text)
        stage.flow(5071, 4, 5060).udp(text)
    stage.listings("-Ln", "-Lnc", "-Lnc --persistent-conn", "-Ln --persistent-conn")


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        rules = service("-u", IKE)
        yield Scenario(f"{where} related: IPsec", family, rules, security, method=method)
        for scheduler in ("rr", "wrr", "wlc", "sh", "mh", "lc", "sed"):
            rules = service("-u", 53, scheduler, "-o", weights=(1, 2))
            name = f"{where} one packet: {scheduler}"
            yield Scenario(name, family, rules, one_packet, method=method)
        for option in ("-p 300 --pe sip", "-o -p 300 --pe sip"):
            rules = service("-u", 5060, "rr", option)
            name = f"{where} sip: {'each packet' if '-o' in option else 'calls'}"
            yield Scenario(name, family, rules, calls, method=method)
    rules = service("-u", 53, "rr", "-o -p 300")
    yield Scenario("nat4 one packet: persistent", 4, rules, one_packet, method=METHODS["nat"])
