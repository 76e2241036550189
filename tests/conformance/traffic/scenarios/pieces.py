"""Fragments: in order, reversed, shuffled, overlapping, incomplete; both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.packets import Network, echo_packet, fragment, fragments, icmp_error
from tests.conformance.traffic.scenarios.common import EVERYWHERE, FULL, REQUEST, ask, pair
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import INSIDE_MTU, OUTSIDE

CUTS = (496, 1000, 1496)


def asker(stage: Stage, port: int = 40000) -> Flow:
    flow = stage.flow(port, stage.own_client(), 53)
    flow.network = Network(dont_fragment=False)
    return flow


def cut(stage: Stage, packet: bytes, cuts: Sequence[int], number: int = 0) -> list[bytes]:
    """A packet in fragments whose id no other scenario uses."""
    return fragments(packet, cuts, identity(stage, number))


def identity(stage: Stage, number: int) -> int:
    return (stage.scenario.number * 8 + number) & 0xFFFF


def in_order(stage: Stage) -> None:
    flow = asker(stage)
    flow.send(cut(stage, flow.datagram(FULL[:2000]), CUTS))
    flow.reply(cut(stage, flow.answering_datagram(FULL[:1800]), CUTS))
    flow.send(cut(stage, flow.datagram(FULL[:1700]), CUTS, number=1))


def reversed_order(stage: Stage) -> None:
    flow = asker(stage)
    flow.send(cut(stage, flow.datagram(FULL[:2000]), CUTS)[::-1])
    flow.reply(cut(stage, flow.answering_datagram(FULL[:1800]), CUTS)[::-1])
    flow.send(cut(stage, flow.datagram(FULL[:2100]), CUTS, number=1)[::-1])


def shuffled(stage: Stage) -> None:
    """Two datagrams of one conversation, their pieces mixed up."""
    flow = asker(stage)
    a, b, c, d = cut(stage, flow.datagram(FULL[:2000]), CUTS)
    e, f = cut(stage, flow.datagram(FULL[:1500]), (800,), number=1)
    flow.send([c, a, f, d, e, b])
    answers = cut(stage, flow.answering_datagram(FULL[:1200]), (600,))
    flow.reply([*answers[::-1], *cut(stage, flow.answering_datagram(FULL[:1900]), CUTS, number=1)])


def doubled(stage: Stage) -> None:
    """Fragments that arrive twice, as a network may send them."""
    flow = asker(stage)
    a, b, c = cut(stage, flow.datagram(FULL[:1500]), (600, 1200))
    flow.send([a, a, b, b, c])


def overlapping(stage: Stage) -> None:
    """Pieces that contradict each other: what came of them is no datagram."""
    flow = asker(stage)
    whole = flow.datagram(FULL[:1500])
    flow.send(
        [
            fragment(whole, start, end, identity(stage, 0))
            for start, end in ((0, 800), (600, 1200), (1200, None))
        ]
    )
    flow.udp(b"afterwards")


def incomplete(stage: Stage) -> None:
    """The last piece never comes; the next datagram is another one."""
    flow = asker(stage)
    flow.udp(b"before")
    flow.send(cut(stage, flow.datagram(FULL[:1500]), (600, 1200), number=1)[2:])
    flow.send(cut(stage, flow.datagram(FULL[:1500]), (600, 1200), number=2)[1:])
    flow.udp(b"afterwards")


def tiny(stage: Stage) -> None:
    """Eight bytes in the first fragment: ports, and no more."""
    flow = asker(stage)
    flow.send(cut(stage, flow.datagram(FULL[:100]), (8, 16)))


def tiny_segments(stage: Stage) -> None:
    """A first fragment that ends before TCP's flags."""
    flow = stage.flow(40001)
    flow.network = Network(dont_fragment=False)
    flow.send(cut(stage, flow.segment("S"), (8, 16)))
    flow.send(cut(stage, flow.segment("PA", REQUEST), (16, 24), number=2))


def segments(stage: Stage) -> None:
    flow = stage.flow()
    flow.network = Network(dont_fragment=False)
    flow.open()
    flow.send(cut(stage, flow.segment("PA", FULL[:1400]), (400, 1000)))
    flow.send(cut(stage, flow.segment("PA", FULL[:1400]), (400, 1000), number=1)[::-1])
    flow.tcp("A")


def grown(stage: Stage) -> None:
    """Whole packets without DF, larger than the inside's MTU."""
    flow = asker(stage)
    for size in (INSIDE_MTU - 28, INSIDE_MTU - 27, 1472):
        flow.udp(FULL[:size])
    flow.send(cut(stage, flow.datagram(FULL[:2900]), (1480,)))


def pinged(stage: Stage) -> None:
    """Pings in pieces, left to the kernel; and an error about a datagram, in pieces."""
    network = Network(dont_fragment=False, identity=3)
    ping = echo_packet(stage.client(), stage.vip, 1, network, FULL[:1200])
    stage.burst(OUTSIDE, "router", cut(stage, ping, (600,)))
    flow = ask(stage, 40000, stage.own_client())
    flow.answer_udp(FULL[:1200])
    error = icmp_error(flow.source[0], stage.vip, "unreachable port", flow.answered)
    stage.burst(OUTSIDE, "router", cut(stage, error, (600,), number=3))


def of_no_service(stage: Stage) -> None:
    flow = stage.flow(vport=54)
    flow.network = Network(dont_fragment=False)
    flow.send(cut(stage, flow.datagram(FULL[:1500]), (600,)))
    flow.send(cut(stage, flow.datagram(FULL[:1500]), (600,), number=2)[::-1])


PLAYS: dict[str, tuple[Callable[[Stage], None], str, int]] = {
    "in order": (in_order, "-u", 53),
    "reversed": (reversed_order, "-u", 53),
    "shuffled": (shuffled, "-u", 53),
    "doubled": (doubled, "-u", 53),
    "overlapping": (overlapping, "-u", 53),
    "incomplete": (incomplete, "-u", 53),
    "tiny": (tiny, "-u", 53),
    "tiny segments": (tiny_segments, "-t", 80),
    "segments": (segments, "-t", 80),
    "pinged": (pinged, "-u", 53),
    "of no service": (of_no_service, "-u", 53),
}


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for name, (play, kind, port) in PLAYS.items():
            rules = pair(kind, port, method, real=8080)
            yield Scenario(f"{where} fragments: {name}", family, rules, play, helped=True)
        if family == 4:
            yield Scenario(f"{where} fragments: grown", 4, pair("-u", 53, method), grown, helped=True)
