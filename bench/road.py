"""The road that every director stands on: client, director, server, each a namespace.

The same links, addresses and CPU for all of them. Generator, director and sink work in
lockstep on one CPU: a batch of frames is made, then the softirq of the director's
veth forwards it, then that of the server's counts and drops it. So one core carries
all three, nothing is lost on the way, and a rate is a little less than what the core
would forward alone: what is compared are directors with the same company.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import place
from bench.build import compiled
from bench.frames import ACK, LENGTH, TCP, UDP, Load, sent
from xlvs.dataplane import libbpf
from xlvs.lab import namespaces

VIP, VPORT = "10.80.0.1", 80
ROUTER = "10.9.0.254"
SERVER, SERVER_PORT = "10.19.0.11", 8080
LOCALS = "10.19.0.200-10.19.0.227"  # FULLNAT's local addresses: ports for a million new flows
OUTSIDE, INSIDE = "outside", "inside"  # the director's interfaces
CPU = 0
BATCH = 64  # frames made at once, the kernel's own budget of a softirq
MAC = {
    "client": "02:00:00:00:09:fe",
    "outside": "02:00:00:00:09:01",
    "inside": "02:00:00:00:19:01",
    "server": "02:00:00:00:19:0b",
}
XLVS = [sys.executable, "-m", "xlvs.cli.main"]


def mac(name: str) -> bytes:
    """A link address of the road."""
    return bytes.fromhex(MAC[name].replace(":", ""))


class Road:
    """Three namespaces with two links; a context manager, nothing is left after it."""

    def __init__(self) -> None:
        tag = f"xlvsbench{os.getpid()}"
        self.client, self.director, self.server = f"{tag}c", f"{tag}d", f"{tag}s"
        self._names = (self.client, self.director, self.server)

    def __enter__(self) -> Road:
        try:
            self._build()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _clear(self) -> None:
        for name in self._names:
            if namespaces.exists(name):
                namespaces.kill_processes([name])
                namespaces.delete(name)

    def _build(self) -> None:
        namespaces.batch(f"netns add {name}" for name in self._names)
        lines = []
        for near, far, where in ((OUTSIDE, "client", self.client), (INSIDE, "server", self.server)):
            lines.append(
                f"link add {near} netns {self.director} address {MAC[near]} numrxqueues 1 numtxqueues 1 "
                f"type veth peer {far} netns {where} address {MAC[far]} numrxqueues 1 numtxqueues 1"
            )
        namespaces.batch(lines)
        for name in self._names:
            quiet = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
            namespaces.set_sysctls(name, quiet)
        namespaces.set_sysctls(
            self.director,
            {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"}
            | {f"net.ipv4.conf.{name}.rp_filter": "0" for name in ("default", OUTSIDE, INSIDE)}
            | {"net.ipv4.conf.all.send_redirects": "0"},
        )
        for name, device, own in ((self.client, "client", ROUTER), (self.server, "server", SERVER)):
            lines = [f"link set {device} up", "link set lo up", f"address add {own}/24 dev {device}"]
            namespaces.batch(lines, name)
        namespaces.batch(
            [
                "link set lo up",
                f"link set {OUTSIDE} up",
                f"link set {INSIDE} up",
                f"address add 10.9.0.1/24 dev {OUTSIDE}",
                f"address add 10.19.0.1/24 dev {INSIDE}",
                f"address add {VIP}/32 dev lo",
                f"route add default via {ROUTER}",
                f"neighbour add {ROUTER} lladdr {MAC['client']} dev {OUTSIDE} nud permanent",
                f"neighbour add {SERVER} lladdr {MAC['server']} dev {INSIDE} nud permanent",
            ],
            self.director,
        )
        # A frame redirected into a veth needs a NAPI at the other end.
        for device in (OUTSIDE, INSIDE):
            namespaces.run(namespaces.inside(self.director, ["ethtool", "-K", device, "gro", "on"]))

    def type(self, command: Sequence[str], text: str | None = None) -> str:
        """Run a command on the director, as an operator would, with ``text`` to read."""
        return namespaces.run(namespaces.typed_inside(self.director, command), text)

    def xlvs(self, *arguments: str, text: str | None = None) -> str:
        """Run xlvs on the director."""
        return self.type([*XLVS, *arguments], text)


@dataclass(frozen=True)
class Passage:
    """A stream of frames that went along the road."""

    packets: int
    arrived: int
    timed: int  # frames between the generator's two time stamps
    seconds: float

    @property
    def rate(self) -> float:
        """Packets a second that arrived."""
        return self.timed / self.seconds * self.arrived / self.packets

    @property
    def lost(self) -> float:
        """The part that did not arrive."""
        return 1 - self.arrived / self.packets


class Traffic:
    """Generator and sink at the two ends of a road."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self._object = libbpf.BpfObject(compiled("traffic"))
        with place.inside(road.director):
            inside = _ifindex(INSIDE)
        self._object.set_constants(".rodata.floor", inside.to_bytes(4, "little"))
        self._object.load()
        self._frames = libbpf.map_memory(self._object.map_fd("frames"))
        self._links: list[int] = []
        # Both ends: answers of the servers end at the client's.
        for namespace, device in ((road.client, "client"), (road.server, "server")):
            with place.inside(namespace):
                program = self._object.program_fd("sink")
                self._links.append(libbpf.attach_xdp(program, _ifindex(device), libbpf.XDP_FLAGS_DRV_MODE))

    def close(self) -> None:
        """Take the programs off."""
        for link in self._links:
            os.close(link)
        self._object.close()

    def program(self, name: str) -> int:
        """One of the programs of traffic.bpf.c."""
        return self._object.program_fd(name)

    def arrived(self) -> int:
        """Packets that any sink has seen."""
        value = libbpf.lookup(self._object.map_fd("arrived"), bytes(4), 8 * (os.cpu_count() or 1)) or b""
        return sum(int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8))

    def send(self, load: Load, packets: int, end: str = "client", first: int = 0) -> Passage:
        """Send that many frames from one end, and see what comes out at the other."""
        namespace = self._road.client if end == "client" else self._road.server
        with place.inside(namespace), place.on_cpu(CPU):
            load.write(self._frames, _ifindex(end), first)
            before = self.arrived()
            program = self._object.program_fd("generate")
            libbpf.test_run(program, bytes(LENGTH), repeat=packets, live_frames=True, batch=BATCH)
        return Passage(packets, self.arrived() - before, *sent(self._frames))


def _ifindex(name: str) -> int:
    return socket.if_nametoindex(name)


KNOWN = Load(mac("client"), mac("outside"), VIP, VPORT)
ANSWERS = Load(mac("server"), mac("inside"), SERVER, SERVER_PORT, backwards=True)
KNOWN_TCP = Load(mac("client"), mac("outside"), VIP, VPORT, TCP, flags=ACK)
ANSWERS_TCP = Load(mac("server"), mac("inside"), SERVER, SERVER_PORT, TCP, backwards=True, flags=ACK)
FRESH_TCP = Load(mac("client"), mac("outside"), VIP, VPORT, TCP, fresh=True)
FRESH_UDP = Load(mac("client"), mac("outside"), VIP, VPORT, UDP, fresh=True)
STRANGERS = Load(mac("client"), mac("outside"), ROUTER, VPORT)  # of no service
FRESH_STRANGERS = Load(mac("client"), mac("outside"), ROUTER, VPORT, TCP, fresh=True)
ACKS = Load(mac("client"), mac("outside"), VIP, VPORT, TCP, fresh=True, flags=0x10)
CLOSED_UDP = Load(mac("client"), mac("outside"), VIP, 9, UDP, fresh=True)
FRAGMENTS = Load(mac("client"), mac("outside"), VIP, 9, UDP, fresh=True, fragment=1480 // 8)
