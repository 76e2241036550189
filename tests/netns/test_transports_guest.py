"""With what only Debian's kernel has: real SCTP associations, and the kernel's own GRE and GUE ends.

Run as a module this is the part that happens in the guest: ``sctp`` or ``tunnels``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest import run_in_guest
from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import GUE_PORT, Encapsulation, Method, host_port

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

PEER = str(Path(__file__).with_name("sctp_peer.py"))
VIRTUAL_PORT = 5000
SIZE = 100_000
MODULES = {"sctp": "sctp", "tunnels": "ipip sit ip_gre fou"}
SUMS = {
    Encapsulation.GRE: ("--tun-nocsum", "--tun-csum"),
    Encapsulation.GUE: ("--tun-nocsum", "--tun-csum", "--tun-remcsum"),
}


# Two a guest: each takes minutes where the machine is busy.
HALVES = ([Method.NAT, Method.DR], [Method.TUN, Method.FULLNAT])


def guest(what: str, *words: str) -> object:
    chosen = " ".join(words)
    command = f"modprobe -a veth bridge {MODULES[what]} && {sys.executable} -m {__name__} {what} {chosen}"
    done = run_in_guest(command, timeout=800)
    assert done.status == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("methods", HALVES, ids=["nat, dr", "tun, fullnat"])
def test_sctp_associations_by_every_method(methods: list[Method]) -> None:
    assert guest("sctp", *methods) == {
        method.value: {"answers": ["rs2", "rs1", "rs2", "rs1"], "states": ["ESTABLISHED"], "errors": 0}
        for method in methods
    }


def test_the_kernels_tunnel_ends_take_in_what_we_send() -> None:
    both = ["<h1>RS1</h1>", "<h1>RS2</h1>"]
    assert guest("tunnels") == {
        f"{kind.value} {sums}": {"IPv4": both, "IPv6": both} for kind in SUMS for sums in SUMS[kind]
    }


# -- in the guest ----------------------------------------------------------------


def sctp(*methods: str) -> dict[str, object]:
    return {method: associations(Method(method)) for method in methods}


def associations(method: Method) -> dict[str, object]:
    """Four associations of a client, each with some data; more of them, to be listed meanwhile."""
    with labs.lab(method, rules=False) as made:
        service = f"{made.topology.vips[0]}:{VIRTUAL_PORT}"
        inside = 6000 if method.translates else VIRTUAL_PORT
        labs.xlvs(made, "director", "ipvsadm", "-A", "--sctp-service", service, "-s", "rr")
        if made.topology.local_addresses:
            words = ["-P", "--sctp-service", service, "-z", made.topology.pool()]
            labs.xlvs(made, "director", "ipvsadm", *words)
        with servers(made, inside):
            for number in (1, 2):
                server = f"{made.topology.rip(number)}:{inside}"
                words = ["-a", "--sctp-service", service, "-r", server, method.option]
                labs.xlvs(made, "director", "ipvsadm", *words)
            ask = [sys.executable, PEER, "ask", made.topology.vips[0], str(VIRTUAL_PORT)]
            answers = made.run("client", [*ask, "4", str(SIZE)]).split()
            many = made.start("client", [*ask, "10000", str(SIZE)])
            try:
                listed = ""
                while "SCTP" not in listed or "ESTABLISHED" not in listed:
                    assert many.poll() is None, listed
                    listed = labs.xlvs(made, "director", "ipvsadm", "-Lnc")
            finally:
                many.kill()
                many.communicate()
            snmp = made.run("client", ["cat", "/proc/net/sctp/snmp"])
        wrong = re.search(r"SctpChecksumErrors\s+(\d+)", snmp)
        states = set(re.findall(r"SCTP \d\d:\d\d  (\S+)", listed)) & {"ESTABLISHED"}
        return {"answers": answers, "states": sorted(states), "errors": int(wrong[1]) if wrong else 0}


@contextmanager
def servers(made: build.Lab, port: int) -> Iterator[None]:
    running = []
    try:
        for number in (1, 2):
            own = made.method.translates
            address = made.topology.rip(number) if own else made.topology.vips[0]
            command = [sys.executable, PEER, "serve", address, str(port), f"rs{number}"]
            running.append(made.start(f"rs{number}", command))
        for server in running:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n", server.communicate()
        yield
    finally:
        for server in running:
            server.kill()
            server.communicate()


def tunnels() -> dict[str, object]:
    return {
        f"{kind.value} {sums}": answers for kind in SUMS for sums, answers in through_kernel(kind).items()
    }


def through_kernel(kind: Encapsulation) -> dict[str, dict[str, list[str]]]:
    with labs.lab(Method.TUN, ipv6=True, rules=False, tunnel=kind) as made:
        found = {}
        for node in made.topology.real_servers:
            labs.xlvs(made, node.name, "realserver", "undo")
            prepare = ["prepare", "--method", "tun", "--kernel-tunnel", "--vip", *made.topology.vips]
            labs.xlvs(made, node.name, "realserver", *prepare)
        for sums in SUMS[kind]:
            for number in (1, 2):
                receive(made, number, kind, sums)
            found[sums] = {
                f"IPv{6 if ipv6 else 4}": ask_nginx(made, kind, sums, ipv6) for ipv6 in (False, True)
            }
        return found


def receive(made: build.Lab, number: int, kind: Encapsulation, sums: str) -> None:
    """Set the kernel's end up: it demands GRE's checksum, or its absence."""
    node = f"rs{number}"
    if kind is Encapsulation.GUE:
        labs.typed(made, node, ["ip", "fou", "add", "port", str(GUE_PORT), "gue"])  # once is enough
        return
    labs.typed(made, node, ["ip", "link", "del", "gre9"])
    local = ["local", made.topology.rip(number)]
    demand = ["icsum"] if sums == "--tun-csum" else []
    made.run(node, ["ip", "link", "add", "gre9", "type", "gre", *local, *demand])
    made.run(node, ["sysctl", "-qw", "net.ipv4.conf.gre9.rp_filter=0", "net.ipv4.conf.all.rp_filter=0"])
    made.run(node, ["ip", "link", "set", "gre9", "up"])


def ask_nginx(made: build.Lab, kind: Encapsulation, sums: str, ipv6: bool) -> list[str]:
    service = ["-t", made.topology.service(ipv6)]
    labs.attempt(made, "director", "ipvsadm", "-D", *service)
    labs.xlvs(made, "director", "ipvsadm", "-A", *service, "-s", "rr")
    for number in (1, 2):
        server = ["-r", host_port(made.topology.rip(number)), "-i", *kind.options.split(), sums]
        labs.xlvs(made, "director", "ipvsadm", "-a", *service, *server)
    return sorted(labs.answers(made, 2, ipv6=ipv6))


if __name__ == "__main__":
    json.dump(sctp(*sys.argv[2:]) if sys.argv[1] == "sctp" else tunnels(), sys.stdout)
