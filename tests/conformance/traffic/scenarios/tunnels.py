"""Servers behind tunnels of every kind, in and over both families."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.traffic.packets import Network, fragments, icmp_error
from tests.conformance.traffic.scenarios.common import FULL, TUNNELS, ask, client_closes_first, pair
from tests.conformance.traffic.scenarios.oddities import times_to_live
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import INSIDE, INSIDE_MTU, server_address

# What tunnels add: an outer header, and GRE's or UDP's and GUE's, with and without sums.
OVERHEADS = sorted({outer + more for outer in (20, 40) for more in (0, 4, 8, 12, 16, 20)})


def too_big(stage: Stage) -> None:
    """Sizes about each border where a tunnel's header still fits."""
    flow = stage.flow()
    flow.open()
    header = 40 if stage.family == 4 else 60
    for overhead in reversed(OVERHEADS):
        for size in (INSIDE_MTU - overhead, INSIDE_MTU - overhead + 1):
            flow.tcp("A", FULL[: size - header], acknowledge=False)


def fragments_allowed(stage: Stage) -> None:
    """Packets without DF, larger than what the tunnel carries."""
    flow = stage.flow(vport=53)
    flow.network = Network(dont_fragment=False)
    for size in (100, 1330, 1352, 1372, 1400, 1450):
        flow.udp(FULL[:size])


def datagrams(stage: Stage) -> None:
    for port in range(40000, 40004):
        ask(stage, port)
    flow = stage.flow(40001, vport=53)
    flow.network = Network(tos=0xB8)
    flow.udp(b"in a hurry")
    flow.network = Network(tos=0x03)
    flow.udp(b"congested")


def two_servers(stage: Stage) -> None:
    client_closes_first(stage.flow(40000))
    client_closes_first(stage.flow(40001))


def errors_inside(stage: Stage) -> None:
    """Routers between director and server complain about the tunnel's packets: to the director."""
    flow = stage.flow()
    flow.open()
    for frame in stage.outside(flow.segment("PA", FULL[:1200], acknowledge=False)):
        if frame.side == INSIDE:
            quoted = frame.content[14:]
            version = quoted[0] >> 4
            router, here = server_address(version, 3), stage.director(INSIDE, version)
            for error, extra in (("too big", 1300), ("unreachable host", 0), ("time exceeded", 0)):
                for length in (128, 600):
                    stage.inside("RS3", icmp_error(router, here, error, quoted[:length], extra))
    flow.tcp("PA", FULL[:1200])
    flow.tcp("PA", FULL[:1340])


def pieces(stage: Stage) -> None:
    """Fragments into a tunnel."""
    flow = stage.flow(vport=53)
    flow.network = Network(dont_fragment=False)
    whole = flow.datagram(FULL[:2000])
    flow.send(fragments(whole, (1000,)))


PLAYS = {
    "conversation": (two_servers, "-t", 80),
    "datagrams": (datagrams, "-u", 53),
    "times to live": (times_to_live, "-t", 80),
    "too big": (too_big, "-t", 80),
    "errors inside": (errors_inside, "-t", 80),
}


def scenarios() -> Iterator[Scenario]:
    for family in (4, 6):
        kinds = {"ipip": "-i", **TUNNELS}
        for name, option in kinds.items():
            for outer in ("rs", "other"):
                where = f"{name} tunnel for {family} over {family if outer == 'rs' else 10 - family}"
                for text, (play, kind, port) in PLAYS.items():
                    rules = [rule.replace("{rs1}", f"{{{outer}1}}") for rule in pair(kind, port, option)]
                    # What the director's kernel learns of a path's MTU stays in that world, and
                    # changes what comes next: no scenario may depend on which others are played.
                    world = f"{where}: errors" if play is errors_inside else "plain"
                    yield Scenario(f"{where}: {text}", family, rules, play, world=world)
                if family == 4:
                    rules = ["-A -u {vip}:53 -s rr", f"-a -u {{vip}}:53 -r {{{outer}1}}:53 {option}"]
                    text = f"{where}: fragments allowed"
                    yield Scenario(text, family, rules, fragments_allowed, helped=True)
        rules = ["-A -u {vip}:53 -s rr", "-a -u {vip}:53 -r {rs1}:53 -i"]
        yield Scenario(f"ipip tunnel for {family}: pieces", family, rules, pieces, helped=True)
