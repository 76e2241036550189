"""Everything around the director: one network outside, one inside, frame by frame.

Two unnamed network namespaces of this process: the director's, and the world's, where the
other ends of the director's two links lie and nothing answers but the script. Neighbours
are permanent entries, MAC addresses are fixed: no frame depends on chance. The namespaces
end with the process, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.conformance.traffic.packets import Address, Network, frame, udp_packet
from tests.conformance.traffic.text import endpoints

CLONE_NEWNET = 0x40000000
PACKET_OUTGOING = 4
ETH_P_ALL = 3

OUTSIDE, INSIDE = "outside", "inside"
SERVERS = 3
INSIDE_MTU = 1400  # less than the outside's 1500
# Addresses of each family: the director's two, the router beyond which clients live, the real
# servers' own, a client among them, and networks beyond the third of them.
ADDRESSES = {
    4: {
        "outside": "10.9.0.1/24",
        "router": "10.9.0.254",
        "inside": "10.19.0.1/24",
        "server": "10.19.0.{}",
        "client": "10.19.0.100",
        "far": "10.29.0.0/24",
        "farther": "100.0.0.0/8",
    },
    6: {
        "outside": "fd09::1/64",
        "router": "fd09::254",
        "inside": "fd19::1/64",
        "server": "fd19::{}",
        "client": "fd19::100",
        "far": "fd29::/64",
        "farther": "fd90::/16",
    },
}
# Where barriers go: nobody's addresses, routed plainly through the director.
BARRIER = {OUTSIDE: ip_address("10.9.0.253"), INSIDE: ip_address("10.19.0.253")}
BARRIER_PORT = 9

MAC = {
    "director-outside": bytes.fromhex("020000000901"),
    "director-inside": bytes.fromhex("020000001901"),
    "router": bytes.fromhex("0200000009fe"),
    "client": bytes.fromhex("020000001964"),
    "nobody": bytes.fromhex("0200000000fd"),
    **{f"RS{number}": bytes.fromhex(f"0200000019{10 + number}") for number in range(1, SERVERS + 1)},
}
NAMES = {mac: name for name, mac in MAC.items()}


def server_address(family: int, number: int) -> Address:
    """The RIP of real server 1, 2 or 3."""
    return ip_address(ADDRESSES[family]["server"].format(10 + number))


@dataclass(frozen=True)
class Frame:
    """A frame that left the director, and on which side; ``reassembled`` of several with fragments."""

    side: str
    content: bytes
    reassembled: bool = False


_libc = ctypes.CDLL(None, use_errno=True)


def _unshare_network() -> int:
    """Go into a new network namespace; gives its descriptor."""
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _sysctl(name: str, value: object) -> None:
    Path("/proc/sys/net", name).write_text(f"{value}\n")


class World:
    """Builds the networks, leaves this process in the director's namespace."""

    def __init__(self, vips: Iterable[Address], cpu: int = 0) -> None:
        os.sched_setaffinity(0, {cpu})  # one CPU: what is sent first has passed first
        world = _unshare_network()
        self._sockets: dict[str, socket.socket] = {}
        director = _unshare_network()
        for side in (OUTSIDE, INSIDE):
            _link(side, f"/proc/{os.getpid()}/fd/{world}")
        _enter(world)
        for side in (OUTSIDE, INSIDE):
            _sysctl(f"ipv6/conf/{side}/disable_ipv6", 1)
            # A frame that XDP redirects into a veth needs a NAPI at the other end.
            subprocess.run(["ethtool", "-K", side, "gro", "on"], check=True, stdout=subprocess.DEVNULL)
            _ip("link", "set", side, "up")
            self._sockets[side] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._sockets[side].bind((side, ETH_P_ALL))
            self._sockets[side].setblocking(False)
        _enter(director)
        _configure_director(vips)
        self._serial = 0
        self._settle()

    def _settle(self) -> None:
        """Wait until the links carry frames, and forget what the kernels said meanwhile."""
        for side in (OUTSIDE, INSIDE):
            deadline = time.monotonic() + 60
            while True:
                try:
                    self._barrier(side, 0.2)
                    break
                except TimeoutError:
                    if time.monotonic() > deadline:
                        raise

    def exchange(self, side: str, sender: str, packet: bytes) -> list[Frame]:
        """Send a packet to the director from a machine on one side; all frames that this sets off."""
        self._send(side, sender, packet)
        return self._barrier(side, 60)

    def later(self) -> list[Frame]:
        """What left the director since, without a packet from here: a helper process may take its time."""
        return [
            Frame(side, content)
            for side in (INSIDE, OUTSIDE)
            for content in self._receive(side)
            if not _is_barrier(content)
        ]

    def _send(self, side: str, sender: str, packet: bytes) -> None:
        self._sockets[side].send(frame(MAC[sender], MAC[f"director-{side}"], packet))

    def _barrier(self, side: str, patience: float) -> list[Frame]:
        """Send a packet that is only routed; when it arrives, all earlier ones have been dealt with."""
        self._serial += 1
        other = INSIDE if side == OUTSIDE else OUTSIDE
        mark = struct.pack("!I", self._serial)
        ends = (BARRIER[side], BARRIER_PORT), (BARRIER[other], BARRIER_PORT)
        self._send(side, "nobody", udp_packet(*ends, mark, Network()))
        frames: list[Frame] = []
        deadline = time.monotonic() + patience
        arrived = False
        while not arrived:
            for content in self._receive(other):
                if _is_barrier(content):
                    arrived = arrived or content.endswith(mark)
                else:
                    frames.append(Frame(other, content))
            if not arrived and time.monotonic() > deadline:
                raise TimeoutError(f"nothing passes the director from {side} to {other}")
        # What went back where it came from left the director before the barrier did.
        frames += [Frame(side, content) for content in self._receive(side) if not _is_barrier(content)]
        return frames

    def _receive(self, side: str) -> list[bytes]:
        contents: list[bytes] = []
        while True:
            try:
                content, address = self._sockets[side].recvfrom(65535)
            except BlockingIOError:
                return contents
            if address[2] != PACKET_OUTGOING and not _is_chatter(content):
                contents.append(content)


def _is_barrier(content: bytes) -> bool:
    ends = endpoints(content[14:])
    return ends is not None and ends.target[1] == BARRIER_PORT and ends.target[0] in BARRIER.values()


def _is_chatter(content: bytes) -> bool:
    """What kernels say on every link: ARP, neighbour and router discovery, multicast membership."""
    if content[12:14] == b"\x86\xdd":
        return (content[20] == 58 and content[54] in range(130, 144)) or content[20] == 0
    return content[12:14] != b"\x08\x00"


def _link(side: str, world: str) -> None:
    mac = MAC[f"director-{side}"].hex(":")
    _ip(
        "link",
        "add",
        side,
        "address",
        mac,
        "type",
        "veth",
        "peer",
        "name",
        f"w{side}",
        "address",
        "02:00:00:00:00:01",
    )
    _ip("link", "set", f"w{side}", "name", side, "netns", world)
    # The director's own packets must leave with whole checksums: there is no device to add them.
    subprocess.run(
        ["ethtool", "-K", side, "tx", "off", "tso", "off", "gso", "off"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _configure_director(vips: Iterable[Address]) -> None:
    _sysctl("ipv4/ip_forward", 1)
    _sysctl("ipv6/conf/all/forwarding", 1)
    _sysctl("ipv4/icmp_ratelimit", 0)
    _sysctl("ipv6/icmp/ratelimit", 0)
    _sysctl("ipv6/auto_flowlabels", 0)
    _ip("link", "set", "lo", "up")
    for side in (OUTSIDE, INSIDE):
        _sysctl(f"ipv4/conf/{side}/rp_filter", 0)
        _sysctl(f"ipv4/conf/{side}/send_redirects", 0)
        _sysctl(f"ipv4/conf/{side}/accept_redirects", 0)
        _sysctl(f"ipv6/conf/{side}/accept_redirects", 0)
        _sysctl(f"ipv6/conf/{side}/accept_dad", 0)
        _sysctl(f"ipv6/conf/{side}/router_solicitations", 0)
        _sysctl(f"ipv6/conf/{side}/addr_gen_mode", 1)
        _ip("link", "set", side, "up")
    _ip("link", "set", INSIDE, "mtu", str(INSIDE_MTU))
    _sysctl("ipv4/conf/all/rp_filter", 0)
    for family, plan in ADDRESSES.items():
        version = f"-{family}"
        for side in (OUTSIDE, INSIDE):
            _ip(version, "address", "add", plan[side], "dev", side)
        _neighbour(OUTSIDE, plan["router"], "router")
        for number in range(1, SERVERS + 1):
            _neighbour(INSIDE, str(server_address(family, number)), f"RS{number}")
        _neighbour(INSIDE, plan["client"], "client")
        _ip(version, "route", "add", "default", "via", plan["router"])
        for network in ("far", "farther"):
            _ip(version, "route", "add", plan[network], "via", str(server_address(family, SERVERS)))
    commands = [f"address add {vip} dev lo{' nodad' if vip.version == 6 else ''}\n" for vip in vips]
    subprocess.run(["ip", "-batch", "-"], input="".join(commands), text=True, check=True)
    for side, address in BARRIER.items():
        _neighbour(side, str(address), "nobody")


def _neighbour(side: str, address: str, machine: str) -> None:
    _ip("neighbour", "replace", address, "lladdr", MAC[machine].hex(":"), "dev", side, "nud", "permanent")
