"""Play scenarios on the kernel's own IPVS, in a namespace that is thrown away (the guest):

    python -m tests.conformance.schedulers.kernel OUTPUT.json [NAME...]

Packets enter by a TUN device, whose writes IPVS has handled when they return; the choices
are read from the connection table. Needs nothing but Python, so that it starts soon.
"""

from __future__ import annotations

import fcntl
import json
import os
import string
import struct
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from tests.conformance.schedulers.scenarios import (
    EXPIRATION,
    TCP,
    Ask,
    Close,
    Put,
    Scenario,
    Step,
    Take,
    Wait,
    scenarios,
)
from tests.packet.frames import Datagram

# One a server, in the order of their numbers.
LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
LINK = 14  # an Ethernet header: a TUN device has none
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SETUP = """
set -e
modprobe -a tun dummy ip_vs
ip link add xlvsnowhere type dummy
ip link set xlvsnowhere up
ip route add default dev xlvsnowhere
ip -6 route add default dev xlvsnowhere
ip route add local 10.80.0.0/16 dev lo
ip -6 route add local fd80::/16 dev lo
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
"""


class Kernel:
    """The kernel's IPVS with a device to feed it."""

    def __init__(self) -> None:
        run(["bash", "-c", _SETUP])
        self.tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tun, _TUNSETIFF, struct.pack("16sH22x", b"xlvsin", _IFF_TUN | _IFF_NO_PI))
        run(["ip", "link", "set", "xlvsin", "up"])
        run(["modprobe", "ip_vs_lblcr"])
        run(["sysctl", "-qw", f"net.ipv4.vs.lblcr_expiration={EXPIRATION}"])

    def play(self, scenario: Scenario) -> str:
        """The answers, one character a connection: a letter for the server, or - for none."""
        begun = time.monotonic()
        self.rules([_add_service(scenario)])
        if scenario.by_mark:
            tables = "iptables" if scenario.family == 4 else "ip6tables"
            mark = ["-j", "MARK", "--set-mark", str(scenario.number)]
            run([tables, "-t", "mangle", "-A", "PREROUTING", "-d", scenario.targets(), *mark])
        pending: list[str] = []
        for step in scenario.steps:
            if isinstance(step, Put | Take):
                pending.append(_rule(scenario, step))
                continue
            if pending:
                self.rules(pending)
                pending = []
            if isinstance(step, Wait):
                time.sleep(EXPIRATION + 1.5)
            else:
                self.send(scenario, step)
        chosen = self.chosen(scenario)
        self.rules([f"-D {_service(scenario)}"])
        took = time.monotonic() - begun
        assert took < 55, f"{scenario.name} took {took:.0f} s: connections of SYN_RECV live for 60"
        return "".join(chosen.get(ask, "-") for ask in scenario.asks)

    def rules(self, lines: list[str]) -> None:
        run(["ipvsadm", "-R"], "".join(f"{line}\n" for line in lines))

    def send(self, scenario: Scenario, step: Ask | Close) -> None:
        ask = step.ask if isinstance(step, Close) else step
        flags = "FA" if isinstance(step, Close) else "S"
        datagram = Datagram(ask.source, ask.target, ask.port, protocol=scenario.protocol, flags=flags)
        os.write(self.tun, datagram.frame()[LINK:])

    def chosen(self, scenario: Scenario) -> dict[Ask, str]:
        """Which connection has which server."""
        found, asked = {}, set(scenario.asks)
        numbers = {step.number for step in scenario.steps if isinstance(step, Put)}
        servers = {ip_address(scenario.server(number)[0]): LETTERS[number - 1] for number in numbers}
        # The kernel lists by position: an entry that expires meanwhile hides another. Not thrice.
        lines = {line for _ in range(3) for line in Path("/proc/net/ip_vs_conn").read_text().splitlines()}
        for words in map(str.split, lines):
            if words[0] == "Pro":
                continue
            source, target, server = (
                ip_address(text if ":" in text else bytes.fromhex(text)) for text in words[1:6:2]
            )
            ask = Ask(str(source), int(words[2], 16), str(target))
            if ask in asked:
                found[ask] = servers[server]
        return found


def run(command: list[str], typed: str = "") -> None:
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{command}: {done.stderr}")


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _service(scenario: Scenario) -> str:
    if scenario.by_mark:
        return f"-f {scenario.number}{' -6' if scenario.family == 6 else ''}"
    return f"{'-t' if scenario.protocol == TCP else '-u'} {_endpoint(scenario.target(), 80)}"


def _add_service(scenario: Scenario) -> str:
    flags = f" -b {scenario.flags}" if scenario.flags else ""
    return f"-A {_service(scenario)} -s {scenario.scheduler}{flags}"


def _rule(scenario: Scenario, step: Step) -> str:
    assert isinstance(step, Put | Take)
    address, port = scenario.server(step.number)
    head = f"{_service(scenario)} -r {_endpoint(address, port)}"
    if isinstance(step, Take):
        return f"-d {head}"
    return f"{'-a' if step.new else '-e'} {head} -m -w {step.weight} -x {step.upper} -y {step.lower}"


def main() -> None:
    output, *names = sys.argv[1:]
    kernel = Kernel()
    answers = {}
    for name in names or scenarios():
        answers[name] = kernel.play(scenarios()[name])
        print(name, file=sys.stderr, flush=True)
    Path(output).write_text(json.dumps(answers, indent=0))


if __name__ == "__main__":
    main()
