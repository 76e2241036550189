"""A stage for one scenario: sends its packets, and writes down what came of each."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network

from tests.conformance.traffic.engines import Director, listing
from tests.conformance.traffic.packets import (
    Address,
    Endpoints,
    Network,
    Segment,
    describe,
    describe_frame,
    echo_packet,
    endpoints,
    tcp_packet,
    udp_packet,
)
from tests.conformance.traffic.world import ADDRESSES, INSIDE, NAMES, OUTSIDE, Frame, World, server_address

# A connection that a new one takes the place of is gone after the kernel's next timer tick.
REPLACED = 0.05
# The kernel adds up its counters in steps of two seconds.
ESTIMATOR = 2.5
CLIENTS = {4: "198.18.{}.{}", 6: "fd18::{:x}:{:x}"}
MSS_OPTION = bytes.fromhex("020405b4")
SYN_OPTIONS = MSS_OPTION + bytes.fromhex("0402080a0000000a00000000" + "01030307")


@dataclass(frozen=True)
class Scenario:
    """Rules that an operator types, then packets.

    ``connections`` off: only the servers' counters are written down after each packet.
    ``listed``: what ipvsadm lists at the end is written down too.
    """

    name: str
    family: int
    rules: Sequence[str]
    play: Callable[[Stage], None]
    connections: bool = True
    listed: bool = False

    @property
    def vip(self) -> Address:
        """A VIP of its own, so that no scenario meets what another left behind."""
        number = zlib.crc32(self.name.encode()) % 65000 + 1
        if self.family == 4:
            return ip_address(f"10.80.{number >> 8}.{number & 0xFF}")
        return ip_address(f"fd80::{number:x}")


class Stage:
    """One scenario on one director; ``lines`` is the record."""

    def __init__(self, scenario: Scenario, world: World, director: Director) -> None:
        self.scenario = scenario
        self.vip = scenario.vip
        self.family = scenario.family
        self.lines: list[str] = []
        self._world = world
        self._director = director
        self._state: list[str] = []
        self.method = ""

    def run(self) -> None:
        self.rules(*self.scenario.rules)
        self.scenario.play(self)
        for option in ("-Ln", "-Lnc") if self.scenario.listed else ():
            self.note(option, self._director.ipvsadm([option]))

    def rules(self, *rules: str) -> None:
        """Type ipvsadm lines.

        {vip}, {rs1} to {rs3} stand for addresses, {other1} to {other3} for those of the other
        family, {far} for a server beyond a router, {dip} for the director's own inside address,
        {method} for the option of the forwarding method.
        """
        names: dict[str, str] = {"vip": _bracketed(self.vip), "method": self.method}
        plan = ADDRESSES[self.family]
        names["dip"] = _bracketed(ip_interface(plan["inside"]).ip)
        names["far"] = _bracketed(ip_network(plan["far"])[7])
        for number in (1, 2, 3):
            names[f"rs{number}"] = _bracketed(server_address(self.family, number))
            names[f"other{number}"] = _bracketed(server_address(10 - self.family, number))
        lines = [rule.format_map(names) for rule in rules]
        self.lines += [f"$ ipvsadm {line}" for line in lines]
        # Several at once are restored, to start one process instead of many.
        if len(lines) == 1:
            said = self._director.ipvsadm(lines[0].split())
        else:
            said = self._director.ipvsadm(["-R"], "".join(f"{line}\n" for line in lines))
        self.lines += [f"  {text}" for text in said.splitlines()]
        self._look()

    def note(self, arguments: str, text: str) -> None:
        """Write down what ``ipvsadm ARGUMENTS`` listed of this scenario's services."""
        self.lines += [f"$ ipvsadm {arguments}", *listing(text, self.vip)]

    def outside(self, packet: bytes, wait: float = 0) -> list[Frame]:
        """A packet from the clients' side; what came of it is looked at after ``wait`` seconds."""
        return self._exchange(OUTSIDE, "router", packet, wait)

    def inside(self, sender: str, packet: bytes, wait: float = 0) -> list[Frame]:
        """A packet from a real server, or from the client among them."""
        return self._exchange(INSIDE, sender, packet, wait)

    def _exchange(self, side: str, sender: str, packet: bytes, wait: float = 0) -> list[Frame]:
        self.lines.append(f"> {sender} | {describe(packet)}")
        frames = self._world.exchange(side, sender, packet)
        self.lines += [f"< {frame.side} | {describe_frame(frame.content, NAMES)}" for frame in frames]
        time.sleep(wait)
        self._look()
        return frames

    def _look(self) -> None:
        """Write down destinations and connections where they changed."""
        state = self._director.destinations(self.vip)
        if self.scenario.connections:
            state += self._director.connections(self.vip)
        if state != self._state:
            self.lines += [f"= {line}" for line in state] or ["= nothing"]
        self._state = state

    def rest(self) -> None:
        """Let the kernel add up its counters: what it zeroes are the sums of its last step."""
        time.sleep(ESTIMATOR)

    def client(self, number: int = 1) -> Address:
        return ip_address(CLIENTS[self.family].format(number >> 8, number & 0xFF))

    def flow(self, port: int = 40000, client: int = 1, vport: int = 80) -> Flow:
        return Flow(self, (self.client(client), port), (self.vip, vport))

    def flow_inside(self) -> Flow:
        """A flow of the client that lives among the servers: in and out on one interface."""
        client = ip_address(ADDRESSES[self.family]["client"])
        return Flow(self, (client, 40000), (self.vip, 80), inside=True)

    def ping(self) -> None:
        self.outside(echo_packet(self.client(), self.vip, 1, Network(identity=1)))


@dataclass
class Flow:
    """A conversation of one client with the VIP; what the servers say is made of what reached them."""

    stage: Stage
    source: tuple[Address, int]
    target: tuple[Address, int]
    network: Network = field(default_factory=Network)
    sequence: int = 1000
    server_sequence: int = 70000
    server: str = ""
    seen: Endpoints | None = None
    inside: bool = False
    packets: int = field(default=0)

    def tcp(self, flags: str, data: bytes = b"", *, acknowledge: bool = True, **fields: object) -> None:
        """The client sends a segment."""
        segment = Segment(flags, self.sequence, self.server_sequence if "A" in flags else 0, data=data)
        if "S" in flags:
            segment = replace(segment, options=SYN_OPTIONS)
        segment = replace(segment, **fields)  # type: ignore[arg-type]  # names of Segment's fields
        if acknowledge:
            self.sequence += len(data) + sum(flag in flags for flag in "SF")
        wait = REPLACED if "S" in flags and self.packets else 0
        packet = tcp_packet(self.source, self.target, segment, self._network())
        self._send(packet, wait)

    def udp(self, data: bytes, *, sum_it: bool = True) -> None:
        """The client sends a datagram."""
        packet = udp_packet(self.source, self.target, data, self._network(), sum_it=sum_it)
        self._send(packet)

    def answer(self, flags: str, data: bytes = b"", network: Network | None = None) -> None:
        """The server that got the client's packets sends a segment, if its way leads through the director."""
        segment = Segment(flags, self.server_sequence, self.sequence if "A" in flags else 0, data=data)
        if "S" in flags:
            segment = replace(segment, options=SYN_OPTIONS)
        self.server_sequence += len(data) + sum(flag in flags for flag in "SF")
        if self._answers_pass():
            assert self.seen is not None
            packet = tcp_packet(self.seen.target, self.seen.source, segment, network or self._network())
            self.stage.inside(self.server, packet)

    def answer_udp(self, data: bytes, *, sum_it: bool = True) -> None:
        """The server sends a datagram, if its way leads through the director."""
        if self._answers_pass():
            assert self.seen is not None
            packet = udp_packet(self.seen.target, self.seen.source, data, self._network(), sum_it=sum_it)
            self.stage.inside(self.server, packet)

    def open(self) -> None:
        """The handshake."""
        self.tcp("S")
        self.answer("SA")
        self.tcp("A")

    def _answers_pass(self) -> bool:
        if self.seen is None:
            self.stage.lines.append("  no server has seen this client")
            return False
        # Under DR and TUN the server sees the VIP itself, and answers past the director.
        return self.seen.target[0] != self.target[0]

    def _send(self, packet: bytes, wait: float = 0) -> None:
        stage = self.stage
        frames = stage.inside("client", packet, wait) if self.inside else stage.outside(packet, wait)
        for frame in frames:
            ends = endpoints(frame.content[14:])
            if frame.side == INSIDE and ends is not None and ends.source == self.source:
                self.seen = ends
                self.server = NAMES.get(frame.content[:6], "nobody")

    def _network(self) -> Network:
        self.packets += 1
        return replace(self.network, identity=self.packets)


def _bracketed(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
