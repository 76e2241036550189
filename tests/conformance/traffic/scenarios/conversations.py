"""TCP conversations, with every kind of ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.scenarios.common import EVERYWHERE, REQUEST, client_closes_first, pair
from tests.conformance.traffic.stage import Scenario, Stage


def server_closes_first(flow: Flow) -> None:
    flow.open()
    flow.tcp("PA", REQUEST)
    flow.answer("A")
    flow.answer("PA", b"an odd reply.")
    flow.tcp("A")
    flow.answer("FA")
    flow.tcp("A")
    flow.tcp("FA")
    flow.answer("A")


def half_close(flow: Flow) -> None:
    flow.open()
    flow.tcp("FPA", REQUEST)
    flow.answer("A")
    flow.answer("PA", b"first part")
    flow.tcp("A")
    flow.answer("PA", b"second part")
    flow.tcp("A")
    flow.answer("FA")
    flow.tcp("A")


def server_half_close(flow: Flow) -> None:
    flow.open()
    flow.answer("FA")
    flow.tcp("A")
    flow.tcp("PA", REQUEST)
    flow.answer("A")
    flow.tcp("FA")
    flow.answer("A")


def client_resets(flow: Flow) -> None:
    flow.open()
    flow.tcp("PA", REQUEST)
    flow.tcp("RA")
    flow.tcp("R")


def server_resets(flow: Flow) -> None:
    flow.open()
    flow.tcp("PA", REQUEST)
    flow.answer("RA")
    flow.tcp("A")


def refused(flow: Flow) -> None:
    flow.tcp("S")
    flow.answer("RA")
    flow.tcp("S")


def syn_repeated(flow: Flow) -> None:
    flow.tcp("S", acknowledge=False)
    flow.tcp("S")
    flow.answer("SA")
    flow.server_sequence -= 1
    flow.answer("SA")
    flow.tcp("A")
    flow.tcp("A")


def reset_at_once(flow: Flow) -> None:
    flow.tcp("S")
    flow.tcp("R")


def odd_flags(flow: Flow) -> None:
    """After the handshake: urgent data, ECN bits, no flags at all, SYN inside, everything at once."""
    flow.open()
    flow.tcp("PAU", b"!")
    flow.tcp("AEC")
    flow.tcp("")
    flow.tcp("S", sequence=5)
    flow.tcp("SA", sequence=5)
    flow.tcp("FSRPAUEC")


def reused_after_close(flow: Flow) -> None:
    server_closes_first(flow)
    again(flow)


def reused_after_reset(flow: Flow) -> None:
    client_resets(flow)
    again(flow)


def reused_after_half_close(flow: Flow) -> None:
    flow.open()
    flow.tcp("FA")
    again(flow)


def reused_while_open(flow: Flow) -> None:
    flow.open()
    again(flow)


def again(flow: Flow) -> None:
    """The same port once more, with sequence numbers further on."""
    flow.sequence += 100000
    flow.server_sequence += 100000
    client_closes_first(flow)


CONVERSATIONS: dict[str, Callable[[Flow], None]] = {
    "server closes first": server_closes_first,
    "client closes first": client_closes_first,
    "half close": half_close,
    "server half close": server_half_close,
    "client resets": client_resets,
    "server resets": server_resets,
    "refused": refused,
    "syn repeated": syn_repeated,
    "reset at once": reset_at_once,
    "odd flags": odd_flags,
    "reused after close": reused_after_close,
    "reused after reset": reused_after_reset,
    "reused after half close": reused_after_half_close,
    "reused while open": reused_while_open,
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        rules = pair("-t", 80, method, real=8080)
        for name, talk in CONVERSATIONS.items():

            def play(stage: Stage, talk: Callable[[Flow], None] = talk) -> None:
                talk(stage.flow())

            listed = ("-Ln", "-Lnc") if talk in (server_closes_first, client_closes_first) else ()
            yield Scenario(f"{where}: {name}", family, rules, play, listed=listed)
