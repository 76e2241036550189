"""A thousand reloads with random edits, and two hundred files that are wrong, under traffic.

The service with the traffic, its checks and its virtual router are in every edition: nothing of them may
move. What else is in the last edition must be there as if the daemon had begun with it.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.netns import labs
from tests.netns.keepalived import Daemon, daemon, until
from tests.netns.test_checkers import steady
from xlvs.lab import build, load
from xlvs.lab.topology import Method

pytestmark = [pytest.mark.root, pytest.mark.slow]

RELOADS, WRONG = 1000, 200
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "sed", "nq", "mh")
# What makes a file wrong: keepalived would go on without it.
MISTAKES = (
    "virtual_server 10.1.252.161 99999 {\n}\n",
    "vrrp_instance nameless {\n    virtual_router_id 300\n    interface eth0\n}\n",
    "include /nonexistent/{}/file.conf\nvirtual_server 10.1.252.300 80 {\n}\n",
)


@dataclass
class Edition:
    """What is in the file besides the service with the traffic."""

    random: random.Random
    services: dict[int, dict[int, int]] = field(default_factory=dict)  # weights of servers, by port
    schedulers: dict[int, str] = field(default_factory=dict)
    routers: dict[int, int] = field(default_factory=dict)  # priorities of virtual routers, by id

    def edit(self) -> None:
        """Change one thing or some."""
        for _ in range(self.random.randint(1, 3)):
            port = self.random.randint(8000, 8005)
            what = self.random.choice(("service", "server", "scheduler", "router"))
            if what == "service" or port not in self.services:
                if self.services.pop(port, None) is None:
                    self.services[port] = {self.random.randint(1, 3): 1}
                    self.schedulers[port] = "rr"
            elif what == "server":
                number = self.random.randint(1, 3)
                if self.services[port].pop(number, None) is None or not self.services[port]:
                    self.services[port][number] = self.random.randint(1, 9)
            elif what == "scheduler":
                self.schedulers[port] = self.random.choice(SCHEDULERS)
            else:
                number = self.random.randint(60, 62)
                if self.routers.pop(number, None) is None:
                    self.routers[number] = self.random.randint(1, 254)

    def lines(self, lab: build.Lab) -> Iterator[str]:
        """The file."""
        vip = lab.topology.vips[0]
        yield from ("vrrp_instance steady {", "    state MASTER", "    interface eth0")
        yield from ("    virtual_router_id 51", "    priority 200", "    advert_int 1")
        yield from ("    virtual_ipaddress {", "        10.1.252.170/32 dev eth0", "    }", "}")
        for number, priority in self.routers.items():
            yield from (f"vrrp_instance other_{number} {{", "    interface eth0", "    state BACKUP")
            yield from (f"    virtual_router_id {number}", f"    priority {priority}")
            yield from ("    virtual_ipaddress {", f"        10.1.252.{number}/32", "    }", "}")
        yield from self._service(lab, f"{vip} 80", "rr", {1: 1, 2: 1, 3: 1})
        for port, servers in self.services.items():
            yield from self._service(lab, f"{vip} {port}", self.schedulers[port], servers)

    def _service(self, lab: build.Lab, name: str, scheduler: str, servers: dict[int, int]) -> Iterator[str]:
        yield from (f"virtual_server {name} {{", "    delay_loop 2", f"    lvs_sched {scheduler}")
        yield from ("    lvs_method NAT", "    protocol TCP")
        for number, weight in servers.items():
            yield from (f"    real_server {lab.topology.rip(number)} 80 {{", f"        weight {weight}")
            yield from ("        TCP_CHECK {", "            connect_timeout 3", "        }", "    }")
        yield "}"


def rules(lab: build.Lab) -> list[str]:
    """Services and real servers as the data plane has them, in no order."""
    return sorted(labs.xlvs(lab, "director", "ipvsadm", "-Sn").splitlines())


def transitions(one: Daemon) -> list[str]:
    return [line for line in one.text.splitlines() if "(steady)" in line and "Entering" in line]


def _said_more(one: Daemon, before: int) -> bool:
    return one.text.count("nothing has been changed") > before


def test_reloads_and_wrong_files_disturb_nobody(tmp_path: Path) -> None:
    edition = Edition(random.Random(20261120))
    with (
        labs.lab(Method.NAT, 3, rules=False) as lab,
        daemon(lab, "director", tmp_path) as one,
    ):
        one.configure(*edition.lines(lab))
        one.start()
        until(lambda: any("MASTER" in line for line in transitions(one)), lambda: one.text)
        entered = len(transitions(one))
        with steady(lab, pause=0.5), load.running(lab, lab.topology.url(), clients=1) as asked:
            for _ in range(RELOADS):
                edition.edit()
                one.configure(*edition.lines(lab))
                one.reload()
            held = rules(lab)
            good = one.file.read_text()
            for number in range(WRONG):
                mistake = MISTAKES[number % len(MISTAKES)]
                lines = [*edition.lines(lab)]
                # Between two blocks, wherever.
                places = [0, *(at + 1 for at, line in enumerate(lines) if line == "}")]
                lines.insert(random.Random(number).choice(places), mistake)
                one.file.write_text("\n".join(lines) + "\n")
                before = one.text.count("nothing has been changed")
                one.signal(signal.SIGHUP)
                until(partial(_said_more, one, before), lambda: one.text)
            assert rules(lab) == held
            assert len(transitions(one)) == entered, transitions(one)
            assert asked.wait_for(10) >= 10
            assert not asked.failures
        one.file.write_text(good)
        one.stop()
        one.start()
        until(lambda: rules(lab) == held, lambda: f"{held}\n{rules(lab)}\n{one.text[-3000:]}")
