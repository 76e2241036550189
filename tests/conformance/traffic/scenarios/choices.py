"""Which server each new connection goes to: every scheduler, every method, both families."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from ipaddress import ip_network

from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.scenarios.common import EVERYWHERE, REQUEST, knock, marked, service, talk
from tests.conformance.traffic.stage import Scenario, Stage

# Every scheduler of Debian's kernel, with every set of its flags.
SCHEDULERS = {
    **{name: name for name in ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf")},
    "sh": "sh",
    "sh fallback": "sh -b sh-fallback",
    "sh port": "sh -b sh-port",
    "sh fallback port": "sh -b sh-fallback,sh-port",
    "mh": "mh",
    "mh fallback": "mh -b mh-fallback",
    "mh port": "mh -b mh-port",
    "mh fallback port": "mh -b mh-fallback,mh-port",
}
BY_CLIENT = [name for name in SCHEDULERS if name[:2] in ("sh", "mh")]
BY_TARGET = ("dh", "lblc", "lblcr")
SOME = ("dr4", "nat6")
WEIGHTS = ((2, 1, 0), (4, 3, 2), (10, 5, 5), (1, 1, 1), (7, 0, 3), (100, 40, 60))


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


def many_targets(stage: Stage) -> None:
    """As before a row of web caches: clients of many places, by a firewall mark."""
    network = ip_network(stage.network())
    stage.mark("tcp", "80", str(network))
    stage.rules(*marked(stage.scenario.name.split()[-1], weights=(1, 2, 1)))

    def visit(first: int, last: int, step: int, client: int) -> list[Flow]:
        flows = [stage.flow(40000 + n, client, target=network[n]) for n in range(first, last, step)]
        for flow in flows:
            flow.tcp("S")
        return flows

    visit(1, 120, 7, 1)
    flows = visit(1, 120, 14, 2)
    for flow in flows:
        flow.answer("SA")
        flow.tcp("A")
    visit(1, 120, 14, 3)
    stage.rules("-e -f {mark} -r {rs2}:0 {method} -w 0")
    visit(1, 120, 11, 4)
    stage.rules("-d -f {mark} -r {rs1}:0")
    visit(1, 120, 11, 5)
    stage.rules("-a -f {mark} -r {rs1}:0 {method} -w 3", "-e -f {mark} -r {rs2}:0 {method} -w 1")
    visit(1, 120, 5, 6)
    for flow in flows[:6]:
        flow.tcp("FA")
        flow.answer("FA")
    visit(3, 60, 5, 7)


def crowded(stage: Stage) -> None:
    """One target that outgrows its server: lblc and lblcr move on when it is loaded and another is not."""
    network = ip_network(stage.network())
    stage.mark("tcp", "80", str(network))
    stage.rules(*marked(stage.scenario.name.split()[-1], weights=(2, 2, 2)))
    flows = []
    for number in range(14):
        flows.append(stage.flow(40000 + number, target=network[9]))
        flows[-1].open()
        stage.flow(41000 + number, target=network[10 + number % 3]).tcp("S")
    for flow in flows[::2]:
        flow.tcp("FA")
        flow.answer("FA")
        flow.tcp("A")
    for number in range(8):
        stage.flow(42000 + number, target=network[9]).open()


def at_random(stage: Stage) -> None:
    """A reproducible muddle of clients that come and go and an operator who cannot leave it alone."""
    dice = random.Random(stage.scenario.name)  # the same sequence each time
    weights = {1: 1, 2: 2, 3: 3}
    flows: list[Flow] = []
    stage.rules(*service("-t", 80, SCHEDULERS[stage.scenario.name.partition(" of ")[2]], weights=(1, 2, 3)))
    for number in range(90):
        action = dice.random()
        if action < 0.5:
            flows.append(stage.flow(40000 + number, dice.randrange(1, 500)))
            flows[-1].open()
        elif action < 0.6 and flows:
            flow = flows.pop(dice.randrange(len(flows)))
            flow.tcp("FA")
            flow.answer("FA")
        elif action < 0.65 and flows:
            flows.pop(dice.randrange(len(flows))).tcp("R")
        elif action < 0.85:
            knock(stage, 50000 + number, 1, dice.randrange(1, 500))
        elif action < 0.94 and weights:
            server = dice.choice(sorted(weights))
            weights[server] = dice.choice((0, 1, 1, 2, 5))
            stage.rules(f"-e -t {{vip}}:80 -r {{rs{server}}}:80 {{method}} -w {weights[server]}")
        elif len(weights) > 1 and action < 0.97:
            server = dice.choice(sorted(weights))
            del weights[server]
            stage.rules(f"-d -t {{vip}}:80 -r {{rs{server}}}:80")
        elif absent := sorted({1, 2, 3} - set(weights)):
            weights[absent[0]] = 2
            stage.rules(f"-a -t {{vip}}:80 -r {{rs{absent[0]}}}:80 {{method}} -w 2")


def by_weights(stage: Stage) -> None:
    for number in range(24):
        knock(stage, 40000 + number, 1, number + 1)


def scenarios() -> Iterator[Scenario]:
    for where, method, family in EVERYWHERE:
        for name, scheduler in SCHEDULERS.items():
            rules = service("-t", 80, scheduler, weights=(1, 2))
            yield _choice(f"{where}: order of {name}", family, rules, method, order)
        if where not in SOME:
            continue  # a choice does not depend on the method: the rest is played for two of them
        for name in SCHEDULERS:
            yield _choice(f"{where}: muddle of {name}", family, [], method, at_random)
        for name in BY_CLIENT:
            rules = service("-t", 80, SCHEDULERS[name], weights=(1, 2))
            yield _choice(f"{where}: many clients of {name}", family, rules, method, many_clients)
        for name in BY_TARGET:
            yield _choice(f"{where}: many targets of {name}", family, [], method, many_targets)
            yield _choice(f"{where}: a crowded target of {name}", family, [], method, crowded)
    for where, family in (("nat4", 4), ("nat6", 6)):
        rules = service("-t", 80, "rr", weights=(2, 3))
        yield _choice(f"{where}: a service that changes", family, rules, "-m", changed)
    for weights in WEIGHTS:
        for name, scheduler in SCHEDULERS.items():
            rules = service("-t", 80, scheduler, weights=weights)
            text = f"dr4: {name} by weights {' '.join(map(str, weights))}"
            yield _choice(text, 4, rules, "-g", by_weights)


def _choice(name: str, family: int, rules: list[str], method: str, play: Callable[[Stage], None]) -> Scenario:
    return Scenario(name, family, rules, play, method=method, connections=False)
