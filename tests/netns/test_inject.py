"""Frames that the helper puts back go the way of those that came by wire."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.netns import topology
from tests.netns.topology import PORT, Site
from tests.packet.frames import Datagram
from xlvs.lab import namespaces

pytestmark = pytest.mark.root

INJECT = """if True:
    import socket, sys
    from xlvs.dataplane.inject import Injector
    from xlvs.dataplane.tables import Tables
    injector = Injector(Tables())
    for frame in sys.argv[2:]:
        injector.inject(bytes.fromhex(frame), socket.if_nametoindex(sys.argv[1]))"""

LISTEN = """if True:
    import socket, sys
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as heard:
        heard.bind((host, port))
        heard.settimeout(30)
        print("ready", flush=True)
        for _ in range(count):
            data, sender = heard.recvfrom(4096)
            print(sender[0], sender[1], len(data), flush=True)"""


def mac(site: Site, interface: str) -> bytes:
    with_colons = namespaces.run(
        namespaces.inside(site.namespace, ["cat", f"/sys/class/net/{interface}/address"])
    )
    return bytes.fromhex(with_colons.strip().replace(":", ""))


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_put_back_are_forwarded_and_answered(mode: str, ipv6: bool) -> None:
    with topology.site(ipv6=True) as site:
        site.up("--mode", mode)
        site.service("u", ipv6=ipv6)
        made = site.made.topology
        client, vip = made.client.addresses[ipv6], made.vips[ipv6]
        target = mac(site, "eth0")
        sizes = (0, 1, 1000, 1400)
        frames = [
            Datagram(client, vip, 5555, PORT, payload=bytes(size), target_mac=target).frame().hex()
            for size in sizes
        ]
        listen = [sys.executable, "-c", LISTEN, client, "5555", str(len(frames))]
        with subprocess.Popen(
            namespaces.inside(site.made.namespace("client"), listen), stdout=subprocess.PIPE, text=True
        ) as listener:
            assert listener.stdout
            assert listener.stdout.readline() == "ready\n"
            done = site.python(INJECT, "eth0", *frames)
            assert done.returncode == 0, done.stderr
            heard = [line.split() for line in listener.stdout]
        # The server's name comes before what it echoes.
        assert sorted((host, int(size) - 16) for host, _, size in heard) == [(vip, size) for size in sizes]
        packets = site.status()["packets"]
        sent = sum(packets[name]["count"] for name in ("forwarded", "forwarded_tc"))
        assert sent == 2 * len(frames)


def test_a_device_that_is_gone_is_an_error() -> None:
    with topology.site() as site:
        site.up()
        done = site.python(INJECT.replace("socket.if_nametoindex(sys.argv[1])", "4711"), "-", "00" * 60)
        assert "BpfError: test run: No such device" in done.stderr
