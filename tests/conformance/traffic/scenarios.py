"""What is sent. Every scenario has a VIP of its own and begins without connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.conformance.traffic.packets import Network, Segment, tcp_packet, zero_sum_data
from tests.conformance.traffic.stage import Flow, Scenario, Stage
from tests.conformance.traffic.world import server_address

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
METHODS = {"nat": "-m", "dr": "-g", "tun": "-i"}
FULL = bytes(range(256)) * 6  # cut to what a test needs


# --- conversations ------------------------------------------------------------------------


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


def client_closes_first(flow: Flow) -> None:
    flow.open()
    flow.tcp("PA", REQUEST)
    flow.answer("PA", b"reply")
    flow.tcp("FA")
    flow.answer("FA")
    flow.tcp("A")


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


def conversations() -> Iterator[Scenario]:
    for family in (4, 6):
        for method, option in METHODS.items():
            port = 8080 if method == "nat" else 80
            rules = ["-A -t {vip}:80 -s rr"]
            rules += [f"-a -t {{vip}}:80 -r {{rs{number}}}:{port} {option}" for number in (1, 2)]
            for name, talk in CONVERSATIONS.items():

                def play(stage: Stage, talk: Callable[[Flow], None] = talk) -> None:
                    talk(stage.flow())

                listed = talk in (server_closes_first, client_closes_first)
                yield Scenario(f"{method}{family}: {name}", family, rules, play, listed=listed)


# --- datagrams, odd and damaged packets, TTL, MTU -----------------------------------------


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


def places() -> Iterator[Scenario]:
    for family in (4, 6):
        for method, option in METHODS.items():
            rules = _choice_rules("rr", method, (1, 1))
            yield Scenario(f"{method}{family}: one arm", family, rules, one_arm)
            rules = ["-A -t {vip}:80 -s rr", f"-a -t {{vip}}:80 -r {{far}}:80 {option}"]
            yield Scenario(f"{method}{family}: a far server", family, rules, far_server)
            port = 8080 if method == "nat" else 80
            rules = ["-A -t {vip}:80 -s rr", f"-a -t {{vip}}:80 -r {{dip}}:{port} {option}"]
            rules.append("-a -t {vip}:80 -r {rs1}:80 -m")
            yield Scenario(f"{method}{family}: on the director itself", family, rules, on_director)


def mixed() -> Iterator[Scenario]:
    for family in (4, 6):
        for method, option in METHODS.items():
            for proto, port in (("t", 80), ("u", 53)):
                rules = [f"-A -{proto} {{vip}}:{port} -s rr"]
                real = 8080 if method == "nat" else port
                rules += [f"-a -{proto} {{vip}}:{port} -r {{rs{n}}}:{real} {option}" for n in (1, 2)]
                tag = f"{method}{family}"
                if proto == "u":
                    yield Scenario(f"{tag}: datagrams", family, rules, datagrams, listed=True)
                    continue
                yield Scenario(f"{tag}: times to live", family, rules, times_to_live)
                yield Scenario(f"{tag}: too big", family, rules, too_big)
                yield Scenario(f"{tag}: damaged", family, rules, damaged)
                yield Scenario(f"{tag}: no connection", family, rules, no_connection)
        rules = ["-A -t {vip}:80 -s rr", "-a -t {vip}:80 -r {rs1}:8080 -m"]
        yield Scenario(f"nat{family}: servers on their own", family, rules, servers_on_their_own)
        rules = ["-A -t {vip}:80 -s rr", "-a -t {vip}:80 -r {other1}:80 -i", "-a -t {vip}:80 -r {rs2}:80 -i"]
        name = f"tun{family}: servers of both families"

        def both(stage: Stage) -> None:
            client_closes_first(stage.flow(40000))
            client_closes_first(stage.flow(40001))

        yield Scenario(name, family, rules, both, listed=True)
        yield Scenario(f"{name}, times to live", family, rules, times_to_live)
        yield Scenario(f"{name}, too big", family, rules[:2], too_big)
        rules = ["-A -t {vip}:80 -s rr", "-A -u {vip}:53 -s rr"]
        yield Scenario(f"none{family}: a service without servers", family, rules, without_servers)


def without_servers(stage: Stage) -> None:
    stage.flow().tcp("S")
    stage.flow().tcp("A")
    stage.flow(vport=53).udp(b"question")
    stage.rules("-a -t {vip}:80 -r {rs1}:80 -m -w 0", "-a -u {vip}:53 -r {rs1}:53 -m -w 0")
    stage.flow().tcp("S")
    stage.flow(vport=53).udp(b"question")
    stage.rules("-e -t {vip}:80 -r {rs1}:80 -m -w 1")
    stage.flow().tcp("S")


# --- the order of choice ------------------------------------------------------------------


def knock(stage: Stage, first: int, count: int, client: int = 1) -> None:
    """New connections that get no further than their SYN."""
    for port in range(first, first + count):
        stage.flow(port, client).tcp("S")


def talk(stage: Stage, first: int, count: int) -> list[Flow]:
    flows = [stage.flow(port) for port in range(first, first + count)]
    for flow in flows:
        flow.open()
    return flows


def order(stage: Stage) -> None:
    """Choices while servers come, go, drain and change weight, connections open and close."""
    knock(stage, 40000, 10)
    stage.rules("-e -t {vip}:80 -r {rs1}:80 {method} -w 3")
    knock(stage, 40100, 10)
    flows = talk(stage, 40200, 8)
    stage.rules("-a -t {vip}:80 -r {rs3}:80 {method} -w 2")
    knock(stage, 40300, 12)
    for flow in flows[:4]:
        flow.tcp("FA")
        flow.answer("FA")
    knock(stage, 40400, 6)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -w 0")
    knock(stage, 40500, 6)
    flows[5].tcp("PA", REQUEST)
    stage.rules("-d -t {vip}:80 -r {rs1}:80")
    knock(stage, 40600, 4)
    flows[4].tcp("PA", REQUEST)
    flows[5].tcp("PA", REQUEST)
    flows[6].tcp("PA", REQUEST)
    stage.rules("-a -t {vip}:80 -r {rs1}:80 {method} -w 1", "-e -t {vip}:80 -r {rs2}:80 {method} -w 5")
    knock(stage, 40700, 14)
    flows[4].tcp("PA", REQUEST)
    flows[5].tcp("PA", REQUEST)
    stage.rules("-e -t {vip}:80 -r {rs3}:80 {method} -w 0")
    knock(stage, 40800, 8)


def changed(stage: Stage) -> None:
    """The service itself changes its scheduler; at last it is deleted under its connections."""
    knock(stage, 40000, 3)
    for number, scheduler in enumerate(("wrr", "wlc", "sh", "rr"), 1):
        stage.rules(f"-E -t {{vip}}:80 -s {scheduler}")
        knock(stage, 40000 + 100 * number, 5)
    flow = stage.flow(45000)
    flow.open()
    stage.rest()
    stage.rules("-D -t {vip}:80")
    flow.tcp("PA", REQUEST)
    flow.answer("PA", b"reply")
    knock(stage, 46000, 1)
    stage.rules(
        "-A -t {vip}:80 -s wlc", "-a -t {vip}:80 -r {rs1}:80 {method}", "-a -t {vip}:80 -r {rs2}:80 {method}"
    )
    flow.tcp("PA", REQUEST)
    knock(stage, 47000, 4)


def many_clients(stage: Stage) -> None:
    for client in range(1, 600, 13):
        knock(stage, 40000 + client, 1, client)
    stage.rules("-e -t {vip}:80 -r {rs2}:80 {method} -w 0")
    for client in range(1, 600, 47):
        knock(stage, 41000 + client, 1, client)
    stage.rules("-d -t {vip}:80 -r {rs1}:80")
    for client in range(1, 600, 47):
        knock(stage, 42000 + client, 1, client)


def choices() -> Iterator[Scenario]:
    for family in (4, 6):
        for scheduler in ("rr", "wrr", "wlc", "sh"):
            for method in ("nat", "dr") if family == 4 else ("tun",):
                play = many_clients if scheduler == "sh" else order
                rules = _choice_rules(scheduler, method, (1, 2))
                yield _choice(f"{method}{family}: order of {scheduler}", family, rules, method, play)
        rules = _choice_rules("rr", "nat", (2, 3))
        yield _choice(f"nat{family}: a service that changes", family, rules, "nat", changed)
    for weights in ((2, 1, 0), (4, 3, 2), (10, 5, 5), (1, 1, 1), (7, 0, 3), (100, 40, 60)):
        for scheduler in ("wrr", "wlc", "sh"):
            rules = _choice_rules(scheduler, "dr", weights)
            name = f"dr4: {scheduler} by weights {' '.join(map(str, weights))}"

            def play_weights(stage: Stage) -> None:
                for number in range(24):
                    knock(stage, 40000 + number, 1, number + 1)

            yield Scenario(name, 4, rules, play_weights, connections=False)


def _choice_rules(scheduler: str, method: str, weights: tuple[int, ...]) -> list[str]:
    rules = [f"-A -t {{vip}}:80 -s {scheduler}"]
    for number, weight in enumerate(weights, 1):
        rules.append(f"-a -t {{vip}}:80 -r {{rs{number}}}:80 {METHODS[method]} -w {weight}")
    return rules


def _choice(name: str, family: int, rules: list[str], method: str, play: Callable[[Stage], None]) -> Scenario:
    def play_as(stage: Stage) -> None:
        stage.method = METHODS[method]
        play(stage)

    return Scenario(name, family, rules, play_as, connections=False)


def scenarios() -> dict[str, Scenario]:
    """All of them by name; names are unique, and so are their VIPs."""
    found = [*conversations(), *mixed(), *places(), *choices()]
    by_name = {scenario.name: scenario for scenario in found}
    assert len(by_name) == len(found) == len({scenario.vip for scenario in found})
    return by_name
