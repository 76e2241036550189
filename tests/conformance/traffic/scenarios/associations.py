"""SCTP: associations with every kind of ending, by frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import Network
from tests.conformance.traffic.scenarios.common import EVERYWHERE, pair
from tests.conformance.traffic.stage import Scenario, Stage


def client_ends(flow: Flow) -> None:
    flow.associate()
    flow.sctp("DATA")
    flow.answer_sctp("SACK", "DATA")
    flow.sctp("SACK")
    flow.sctp("SHUTDOWN")
    flow.answer_sctp("SHUTDOWN-ACK")
    flow.sctp("SHUTDOWN-COMPLETE")


def server_ends(flow: Flow) -> None:
    flow.associate()
    flow.answer_sctp("DATA")
    flow.sctp("SACK")
    flow.answer_sctp("SHUTDOWN")
    flow.sctp("SHUTDOWN-ACK")
    flow.answer_sctp("SHUTDOWN-COMPLETE")


def client_aborts(flow: Flow) -> None:
    flow.associate()
    flow.sctp("ABORT")
    flow.answer_sctp("ABORT")


def server_aborts(flow: Flow) -> None:
    flow.associate()
    flow.sctp("DATA")
    flow.answer_sctp("ABORT")
    flow.sctp("DATA")


def refused(flow: Flow) -> None:
    flow.sctp("INIT")
    flow.answer_sctp("ABORT")
    flow.sctp("INIT")


def repeated(flow: Flow) -> None:
    flow.sctp("INIT")
    flow.sctp("INIT")
    flow.answer_sctp("INIT-ACK")
    flow.answer_sctp("INIT-ACK")
    flow.sctp("COOKIE-ECHO", "DATA")
    flow.sctp("COOKIE-ECHO", "DATA")
    flow.answer_sctp("COOKIE-ACK", "SACK")
    flow.sctp("INIT")


def errors(flow: Flow) -> None:
    flow.sctp("INIT")
    flow.answer_sctp("INIT-ACK")
    flow.sctp("COOKIE-ECHO")
    flow.answer_sctp("ERROR")
    flow.sctp("INIT")
    flow.answer_sctp("INIT-ACK")
    flow.sctp("COOKIE-ECHO")
    flow.answer_sctp("COOKIE-ACK")
    flow.sctp("ERROR")


def beats(flow: Flow) -> None:
    flow.associate()
    flow.sctp("HEARTBEAT")
    flow.answer_sctp("HEARTBEAT-ACK")
    flow.answer_sctp("HEARTBEAT")
    flow.sctp("HEARTBEAT-ACK")
    flow.sctp("ECNE")
    flow.answer_sctp("CWR")
    flow.sctp("AUTH", "DATA")
    flow.sctp("ASCONF")


def both_end(flow: Flow) -> None:
    flow.associate()
    flow.sctp("SHUTDOWN")
    flow.answer_sctp("SHUTDOWN")
    flow.sctp("SHUTDOWN-ACK")
    flow.answer_sctp("SHUTDOWN-ACK")
    flow.sctp("SHUTDOWN-COMPLETE")
    flow.answer_sctp("SHUTDOWN-COMPLETE")


def out_of_order(flow: Flow) -> None:
    """States of which the chunks tell another story."""
    flow.sctp("INIT")
    for name in ("COOKIE-ECHO", "SHUTDOWN-COMPLETE", "SACK", "SHUTDOWN", "INIT-ACK", "COOKIE-ACK"):
        flow.sctp(name)
        flow.answer_sctp(name)


def again(flow: Flow) -> None:
    client_ends(flow)
    client_ends(flow)


NOT_THE_FIRST = ("DATA", "COOKIE-ECHO", "SHUTDOWN", "ABORT", "INIT-ACK", "HEARTBEAT", "SACK")


def begins_nothing(flow: Flow) -> None:
    for number, name in enumerate(NOT_THE_FIRST):
        flow.stage.flow(41000 + number).sctp(name)
    flow.stage.flow(42000, vport=81).sctp("INIT")


def damaged(flow: Flow) -> None:
    flow.sctp("INIT", damage=1)
    flow.sctp("INIT")
    flow.answer_sctp("INIT-ACK")
    flow.sctp("COOKIE-ECHO", damage=5)


def too_far(flow: Flow) -> None:
    flow.sctp("INIT")
    flow.answer_sctp("INIT-ACK")
    flow.network = Network(ttl=1)
    flow.sctp("COOKIE-ECHO")


CONVERSATIONS: dict[str, Callable[[Flow], None]] = {
    "client ends": client_ends,
    "server ends": server_ends,
    "client aborts": client_aborts,
    "server aborts": server_aborts,
    "refused": refused,
    "repeated": repeated,
    "errors": errors,
    "beats": beats,
    "both end": both_end,
    "out of order": out_of_order,
    "again": again,
    "begins nothing": begins_nothing,
    "damaged": damaged,
    "too far": too_far,
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        rules = pair("--sctp-service", 80, method, real=8080)
        for name, talk in CONVERSATIONS.items():

            def play(stage: Stage, talk: Callable[[Flow], None] = talk) -> None:
                talk(stage.flow())

            listed = ("-Ln", "-Lnc") if talk in (client_ends, client_aborts) else ()
            yield Scenario(f"{where} sctp: {name}", family, rules, play, listed=listed)
        # NAT without another port: the sum need not change.
        if method == "-m":
            rules = pair("--sctp-service", 80, method)

            def same_port(stage: Stage) -> None:
                client_ends(stage.flow())
                damaged(stage.flow(40001))
                too_far(stage.flow(40002))

            yield Scenario(f"{where} sctp: same port", family, rules, same_port)
