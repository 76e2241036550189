"""FTP through NAT: the connections that a control connection announces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import Network, Segment, tcp_packet
from tests.conformance.traffic.scenarios.common import service
from tests.conformance.traffic.stage import Scenario, Stage


def logged_in(stage: Stage) -> Flow:
    flow = stage.flow(40000, stage.own_client(), vport=21)
    flow.open()
    flow.answer("PA", b"220 ready\r\n")
    flow.tcp("A")
    flow.tcp("PA", b"USER someone\r\n")
    flow.answer("PA", b"230 welcome\r\n")
    return flow


def passive(stage: Stage, *, extended: bool = False) -> None:
    """The server names an address and a port, which must be the VIP's for the client."""
    flow = logged_in(stage)
    assert flow.seen is not None
    server = flow.seen.target[0]
    for number, port in enumerate((50001, 50002)):
        flow.tcp("PA", b"EPSV\r\n" if extended else b"PASV\r\n")
        words = ",".join([*str(server).split("."), str(port >> 8), str(port & 255)])
        text = f"229 Extended Passive (|||{port}|)\r\n" if extended else f"227 Passive ({words})\r\n"
        flow.answer("PA", text.encode())
        flow.tcp("A")
        data = stage.flow(40010 + number, stage.own_client(), port)
        data.open()
        data.answer("PA", b"the file")
        data.answer("FA")
        data.tcp("FA")
        flow.answer("PA", b"226 done\r\n")
        flow.tcp("PA", b"NOOP\r\n")
    flow.tcp("FA")
    flow.answer("FA")


def active(stage: Stage, *, extended: bool = False) -> None:
    """The client names an address and a port; the server's connection must come from the VIP."""
    flow = logged_in(stage)
    assert flow.seen is not None
    server, home = flow.seen.target[0], flow.source[0]
    for number, port in enumerate((50001, 50002)):
        words = ",".join([*str(home).split("."), str(port >> 8), str(port & 255)])
        family = 1 if home.version == 4 else 2
        text = f"EPRT |{family}|{home}|{port}|\r\n" if extended else f"PORT {words}\r\n"
        flow.tcp("PA", text.encode())
        flow.answer("PA", b"200 fine\r\n")
        network = Network(identity=20 + number)
        ends = (server, 20), (home, port)
        stage.inside(flow.server, tcp_packet(*ends, Segment("S", 9000), network))
        back = replace(stage.flow(port, stage.own_client(), 20), sequence=5000, server_sequence=9001)
        back.tcp("SA")
        stage.inside(flow.server, tcp_packet(*ends, Segment("PA", 9001, 5001, data=b"file"), network))
        back.server_sequence = 9005
        back.tcp("A")
        stage.inside(flow.server, tcp_packet(*ends, Segment("FA", 9005, 5001), network))
        back.tcp("FA")
        flow.answer("PA", b"226 done\r\n")
        flow.tcp("PA", b"NOOP\r\n")


def extended_passive(stage: Stage) -> None:
    passive(stage, extended=True)


def extended_active(stage: Stage) -> None:
    active(stage, extended=True)


def not_ftp(stage: Stage) -> None:
    """A control connection that says nothing of the kind."""
    flow = logged_in(stage)
    for text in (b"PORT nonsense\r\n", b"PASV", b"\r\n", b"EPRT |9|x|1|\r\n"):
        flow.tcp("PA", text)
        flow.answer("PA", b"227 what\r\n")
    flow.tcp("FA")
    flow.answer("FA")


PLAYS = {
    "passive": (passive, (4,)),
    "active": (active, (4,)),
    "extended passive": (extended_passive, (4, 6)),
    "extended active": (extended_active, (4, 6)),
    "no announcement": (not_ftp, (4, 6)),
}


def scenarios() -> Iterator[Scenario]:
    for name, (play, families) in PLAYS.items():
        for family in families:
            for options in ("", "-p 300"):
                rules = service("-t", 21, "rr", options)
                text = f"nat{family} ftp: {name}{', persistent' if options else ''}"
                yield Scenario(text, family, rules, play, method="-m", helped=True, world="ftp")
