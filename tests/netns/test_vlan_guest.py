"""VLAN devices between director and real server, on Debian's 6.1 kernel: this machine's may have none.

Run as a module this is the part that happens in the guest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.guest import run_in_guest
from tests.netns.topology import PORT, PROGRAM
from xlvs.lab import build, namespaces

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

VIP, VIP6 = "10.9.0.100", "fd09::100"

# c -- eth0 -- d -- in0 (.10, and .20 with .30 inside it) -- s
WIRES = """
link add eth0 netns c type veth peer name eth0 netns d
link add in0 netns d type veth peer name in0 netns s
"""
CLIENT = """
address add 10.9.0.2/24 dev eth0
address add fd09::2/64 dev eth0 nodad
link set eth0 up
"""
DIRECTOR = """
link set lo up
address add 10.9.0.1/24 dev eth0
address add fd09::1/64 dev eth0 nodad
address add 10.9.0.100/32 dev eth0
address add fd09::100/128 dev eth0 nodad
link set eth0 up
link set in0 up
"""
SERVER = "link set lo up\nlink set in0 up\n"
VLANS = """
link add link in0 name in0.10 type vlan id 10
link add link in0 name in0.20 type vlan proto 802.1ad id 20
link add link in0.20 name in0.30 type vlan id 30
link set in0.10 up
link set in0.20 up
link set in0.30 up
address add 10.10.0.{host}/24 dev in0.10
address add 10.30.0.{host}/24 dev in0.30
address add fd10::{host}/64 dev in0.10 nodad
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def inside(node: str, *command: str) -> str:
    return namespaces.run(namespaces.inside(node, command))


def observe() -> dict[str, object]:
    namespaces.batch(["netns add c", "netns add d", "netns add s"])
    namespaces.batch(lines(WIRES))
    namespaces.batch(lines(CLIENT), "c")
    namespaces.batch([*lines(DIRECTOR), *lines(VLANS.format(host=1))], "d")
    namespaces.batch([*lines(SERVER), *lines(VLANS.format(host=2))], "s")
    namespaces.batch(["route add default via 10.10.0.1", "route add default via fd10::1"], "s")
    namespaces.batch(["route add 10.9.0.0/24 via 10.10.0.1"], "s")
    inside("d", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for node, device in (("c", "eth0"), ("s", "in0")):
        # Tags in the frame, where XDP looks for them; and arrivals by polling.
        inside(node, "ethtool", "-K", device, "gro", "on", "txvlan", "off", "tx-vlan-stag-hw-insert", "off")
    server = subprocess.Popen(
        namespaces.inside("s", [sys.executable, PROGRAM, "serve", "s", str(PORT)]), stdout=subprocess.PIPE
    )
    assert server.stdout
    server.stdout.readline()
    inside("d", *build.xlvs("up", "eth0", "in0"))
    seen = {}
    rules = [(VIP, 1, "10.10.0.2"), (VIP, 2, "10.30.0.2"), (f"[{VIP6}]", 1, "[fd10::2]")]
    for vip, offset, server_address in rules:
        service, real = f"{vip}:{PORT + offset}", f"{server_address}:{PORT}"
        inside("d", *build.xlvs("ipvsadm", "-A", "-t", service, "-s", "rr"))
        inside("d", *build.xlvs("ipvsadm", "-a", "-t", service, "-r", real, "-m"))
        command = [sys.executable, PROGRAM, "talk", vip.strip("[]"), str(PORT + offset)]
        talk = subprocess.Popen(
            namespaces.inside("c", [*command, "--tcp", "3", "--udp", "0"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert talk.stdout
        talk.stdout.readline()
        time.sleep(3)
        found = json.loads(talk.communicate()[0])
        seen[server_address] = [
            each["received"] == each["sent"] > 0 and not (each["error"] or each["wrong"]) for each in found
        ]
    status = json.loads(inside("d", *build.xlvs("status", "--json")))["packets"]
    inside("d", *build.xlvs("down"))
    server.kill()
    server.wait()
    forwarded = status["forwarded"]["count"]
    return {"seen": seen, "by_xdp": forwarded > 200 and forwarded > 50 * status["forwarded_tc"]["count"]}


def test_one_tag_and_two() -> None:
    done = run_in_guest(f"modprobe -a veth 8021q && {sys.executable} -m tests.netns.test_vlan_guest")
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        "seen": {address: [True] * 3 for address in ("10.10.0.2", "10.30.0.2", "[fd10::2]")},
        "by_xdp": True,
    }


if __name__ == "__main__":
    print(json.dumps(observe()))
