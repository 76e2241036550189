"""Real servers behind the kernel's own IPVS, on Debian's 6.1 kernel: both kinds of tunnel end.

The other direction of compatibility: a real server that ``xlvs realserver prepare`` made
serves any director, and the kernel's tunnel devices, which some kernels lack, are tried
where they are. Run as a module this is the part that happens in the guest.
"""

from __future__ import annotations

import json
import sys

import pytest

from tests.guest import run_in_guest
from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import Method, host_port

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

ENDS = ("decapsulator", "kernel")
EXPECTED = {
    f"IPv{inside} in IPv{outside}": ["<h1>RS2</h1>", "<h1>RS1</h1>"]
    for outside in (4, 6)
    for inside in (4, 6)
}


def test_every_pair_of_families_through_both_tunnel_ends() -> None:
    modules = "ip_vs ip_vs_rr veth bridge"
    done = run_in_guest(f"modprobe -a {modules} && {sys.executable} -m tests.netns.test_realserver_guest")
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        end: {"answers": EXPECTED, "counted": end == "decapsulator", "left": []} for end in ENDS
    }


def observe(end: str) -> dict[str, object]:
    """Build a TUN lab with real IPVS as its director, ask over each pair of families."""
    with labs.machines(Method.TUN, ipv6=True) as made:
        if end == "kernel":
            for node in made.topology.real_servers:
                labs.xlvs(made, node.name, "realserver", "undo")
                vips = made.topology.vips
                labs.xlvs(
                    made,
                    node.name,
                    "realserver",
                    "prepare",
                    "--method",
                    "tun",
                    "--vip",
                    *vips,
                    "--kernel-tunnel",
                )
        answers = {}
        for outside in (4, 6):
            for inside in (4, 6):
                direct(made, outside == 6, inside == 6)
                answers[f"IPv{inside} in IPv{outside}"] = labs.answers(made, 2, ipv6=inside == 6)
        status = json.loads(labs.xlvs(made, "rs1", "realserver", "status", "--json"))
        labs.xlvs(made, "rs1", "realserver", "undo")
        links = json.loads(made.run("rs1", ["ip", "-json", "link"]))
        left = [
            link["ifname"] for link in links if "UP" in link["flags"] and link["ifname"] not in ("lo", "eth0")
        ]
        counted = bool(status["counters"]) and status["counters"]["eth0"]["decapsulated"] > 0
        return {"answers": answers, "counted": counted, "left": left}


def direct(made: build.Lab, outer6: bool, inner6: bool) -> None:
    service = made.topology.service(inner6)
    lines = ["-C", f"-A -t {service} -s rr"]
    lines += [f"-a -t {service} -r {host_port(made.topology.rip(number, outer6))} -i" for number in (1, 2)]
    for line in lines:
        made.run("director", ["ipvsadm", *line.split()])


if __name__ == "__main__":
    json.dump({end: observe(end) for end in ENDS}, sys.stdout)
