"""Datagrams longer than any packet, through a whole director: in order, backwards, too long for the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.netns import topology
from tests.netns.topology import REPOSITORY, Site
from xlvs.lab import namespaces
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

PORT = 7100
MODULE = [sys.executable, "-m", "tests.netns.datagrams"]


def inside(site: Site, node: str, *command: str) -> list[str]:
    return namespaces.inside(site.made.namespace(node), [*MODULE, *command])


def ask(site: Site, ipv6: bool, size: int, order: str) -> str:
    command = inside(site, "client", "ask", site.made.topology.vips[ipv6], str(PORT), str(size), order)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return done.stdout.strip()


@contextmanager
def serving(site: Site, ipv6: bool = True) -> Iterator[None]:
    """Servers on the address that each method has requests arrive at, and the service."""
    made = site.made.topology
    with ExitStack() as stack:
        lines = []
        for version6 in (False, True) if ipv6 else (False,):
            name = host_port(made.vips[version6], PORT)
            lines.append(f"-A -u {name} -s rr")
            if made.local_addresses:
                lines.append(f"-P -u {name} -z {made.pool(version6)}")
            for number, node in enumerate(made.real_servers, 1):
                rip = made.rip(number, version6)
                address = rip if made.method.translates else made.vips[version6]
                lines.append(f"-a -u {name} -r {host_port(rip, PORT)} {made.method.option}")
                command = inside(site, node.name, "serve", address, str(PORT))
                server = stack.enter_context(
                    subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
                )
                stack.callback(server.kill)
                assert server.stdout
                assert server.stdout.readline() == "ready\n"
        site.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
        yield


def counted(site: Site) -> dict[str, int]:
    return {name: each["count"] for name, each in site.status()["packets"].items() if each["count"]}


@pytest.fixture(params=list(Method))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with topology.site(request.param, 1, ipv6=True) as made:
        yield made


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_long_datagrams_arrive_in_any_order(site: Site, mode: str) -> None:
    """10 kB: eight fragments. Backwards, all but the last wait in the helper."""
    site.up("--mode", mode)
    with serving(site):
        for ipv6 in (False, True):
            for order in ("whole", "forward", "reversed", "forward"):
                sizes = (1000, 10_000) if order == "whole" else (10_000,)
                for size in sizes:
                    got = ask(site, ipv6, size, order)
                    if got == "OSError" and ipv6 and site.made.method is Method.TUN and order == "whole":
                        got = ask(site, ipv6, size, order)  # has learnt the way's MTU
                    assert got == "right", (ipv6, order, size, counted(site))
        seen = counted(site)
        assert seen["handed_early"] >= 14
        assert not seen.keys() & {"drop_fragment", "drop_no_helper", "drop_helper_busy", "drop_early_limited"}
        assert not site.status()["helper_trouble"]


FLOOD = """if True:
    import random, socket, sys, time
    from tests.packet.frames import ip
    vip, seconds = sys.argv[1], float(sys.argv[2])
    pieces = [ip("172.16.0.10", vip, 17, bytes(1400), identity=random.randrange(65536), fragment=0x2010)
              for _ in range(2000)]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        end, sent = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for piece in pieces:
                raw.sendto(piece, (vip, 0))
            sent += len(pieces)
        print(sent)"""


def helper_memory(site: Site) -> int:
    """Resident kilobytes of the helper."""
    with open(f"/proc/{site.status()['helper']}/status") as text:
        (line,) = (line for line in text if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_a_flood_of_fragments_without_a_first_hurts_nobody() -> None:
    with topology.site(Method.NAT, 1) as site:
        site.up()
        site.service("t")
        with serving(site, ipv6=False):
            assert ask(site, False, 10_000, "reversed") == "right"
            before = helper_memory(site)
            with site.talking("--tcp", "10", "--udp", "0") as seen:
                command = [sys.executable, "-c", FLOOD, site.vip, "4"]
                flood = namespaces.inside(site.made.namespace("client"), command)
                done = subprocess.run(flood, capture_output=True, text=True, check=True, cwd=REPOSITORY)
            topology.assert_unbroken(seen)
            assert ask(site, False, 10_000, "forward") == "right"
            assert helper_memory(site) - before < 40_000
            now = counted(site)
            sent = int(done.stdout)
            held = now["handed_early"]
            turned_away = sum(now.get(name, 0) for name in ("drop_early_limited", "drop_helper_busy"))
            assert sent > 2000
            # On a busy machine a queue before the director may lose a few.
            assert held + turned_away >= 0.95 * sent
            assert held <= 6 * (os.cpu_count() or 1) * 4096 + 7, (
                "more than the limit of each CPU for each second"
            )
            assert not site.status()["helper_trouble"]
