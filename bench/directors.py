"""The directors under comparison. Each is set up on a road, forwards, and is taken off again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from bench import place
from bench.place import settings
from bench.road import INSIDE, LOCALS, OUTSIDE, SERVER, SERVER_PORT, VIP, VPORT, Road, Traffic
from xlvs.dataplane import libbpf
from xlvs.lab import namespaces

Director = Callable[[Road, Traffic], AbstractContextManager[None]]

PROTOCOLS = {"udp": "-u", "tcp": "-t"}


@contextmanager
def floor(road: Road, traffic: Traffic) -> Iterator[None]:
    """Bare XDP redirect: no director can be faster on this road."""
    with place.inside(road.director):
        index = socket.if_nametoindex(OUTSIDE)
        link = libbpf.attach_xdp(traffic.program("bare_redirect"), index, libbpf.XDP_FLAGS_DRV_MODE)
    try:
        yield
    finally:
        os.close(link)


def xlvs(method: str, connections: int, scheduler: str = "rr", servers: int = 1) -> Director:
    """xlvs, as an operator sets it up; ``method`` is ipvsadm's option."""

    @contextmanager
    def set_up(road: Road, _: Traffic) -> Iterator[None]:
        road.xlvs("up", OUTSIDE, INSIDE, "--mode", "native", "--connections", str(connections))
        try:
            lines = (" ".join(rule) for rule in _rules(method, scheduler, servers))
            road.xlvs("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
            yield
        finally:
            road.xlvs("down")

    return set_up


def ipvs(method: str) -> Director:
    """The kernel's IPVS with the real ipvsadm, where the kernel has it (the guest)."""

    @contextmanager
    def set_up(road: Road, _: Traffic) -> Iterator[None]:
        # Connections outlive their service: those of the last method would swallow the flows.
        namespaces.set_sysctls(road.director, {"net.ipv4.vs.expire_nodest_conn": "1"})
        try:
            for rule in _rules(method):
                road.type(["ipvsadm", *rule])
            yield
        finally:
            road.type(["ipvsadm", "-C"])

    return set_up


def _rules(method: str, scheduler: str = "rr", servers: int = 1) -> Iterator[list[str]]:
    """Many servers are ports of the one that there is (by NAT), with weights from 1 to 10."""
    port = SERVER_PORT if method in ("-m", "-b") else VPORT
    for option in PROTOCOLS.values():
        yield ["-A", option, f"{VIP}:{VPORT}", "-s", scheduler]
        if method == "-b":
            yield ["-P", option, f"{VIP}:{VPORT}", "-z", LOCALS]
        for number in range(servers):
            weight = str(number * 7 % 10 + 1)
            server = f"{SERVER}:{port + number}"
            yield ["-a", option, f"{VIP}:{VPORT}", "-r", server, method, "-w", weight]


def nftables(connections: int) -> Director:
    """Stateful DNAT by nftables: what a stock kernel without IPVS offers."""

    @contextmanager
    def set_up(road: Road, _: Traffic) -> Iterator[None]:
        command = namespaces.inside(road.director, ["nft", "-f", "-"])
        # Global, not of a namespace: how many flows are remembered, and the hash table's size.
        room = {
            "/proc/sys/net/netfilter/nf_conntrack_max": connections,
            "/sys/module/nf_conntrack/parameters/hashsize": connections // 4,
        }
        with settings(room):
            namespaces.run(command, "\n".join(_RULESET) + "\n")
            try:
                yield
            finally:
                namespaces.run(command, "delete table ip bench\n")

    return set_up


_RULESET = (
    "add table ip bench",
    "add chain ip bench before { type nat hook prerouting priority dstnat; }",
    "add chain ip bench after { type nat hook postrouting priority srcnat; }",
    *(
        f"add rule ip bench before ip daddr {VIP} {protocol} dport {VPORT} dnat to {SERVER}:{SERVER_PORT}"
        for protocol in PROTOCOLS
    ),
)
