"""Datagrams longer than any packet, through a whole director: in order, backwards, too long for the way."""

from __future__ import annotations

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
def serving(site: Site) -> Iterator[None]:
    """Servers on the address that each method has requests arrive at, and the service."""
    made = site.made.topology
    with ExitStack() as stack:
        lines = []
        for ipv6 in (False, True):
            name = host_port(made.vips[ipv6], PORT)
            lines.append(f"-A -u {name} -s rr")
            for number, node in enumerate(made.real_servers, 1):
                rip = made.rip(number, ipv6)
                address = rip if made.method is Method.NAT else made.vips[ipv6]
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
