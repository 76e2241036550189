"""A stage for one scenario: sends its packets, and writes down what came of each."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from tests.conformance.traffic.engines import SYSCTLS, Director
from tests.conformance.traffic.flow import Flow
from tests.conformance.traffic.listings import Subject, listing
from tests.conformance.traffic.packets import Address, Network, echo_packet
from tests.conformance.traffic.reassembly import Reassembler
from tests.conformance.traffic.text import describe, describe_frame
from tests.conformance.traffic.world import ADDRESSES, INSIDE, NAMES, OUTSIDE, Frame, World, server_address

# The kernel adds up its counters in steps of two seconds.
ESTIMATOR = 2.5
CLIENTS = {4: "198.18.{}.{}", 6: "fd18::{:x}:{:x}"}
TIMEOUTS = "--set 900 120 300"  # what a kernel starts with


@dataclass(frozen=True)
class Scenario:
    """Rules that an operator types, then packets.

    ``method`` is what {method} stands for in rules: the option of a forwarding method.
    ``connections`` off: only the servers' counters are written down after each packet.
    ``listed``: what ipvsadm lists at the end is written down too, by these options.
    ``helped``: a helper process of the director may take its time over packets.
    ``world``: scenarios of another world are played in another network namespace.
    """

    name: str
    family: int
    rules: Sequence[str]
    play: Callable[[Stage], None]
    method: str = ""
    connections: bool = True
    listed: Sequence[str] = ()
    helped: bool = False
    world: str = "plain"

    @property
    def number(self) -> int:
        """A number of its own, so that no scenario meets what another left behind."""
        return zlib.crc32(self.name.encode()) % 0x3FFFFF + 1

    @property
    def vip(self) -> Address:
        if self.family == 4:
            return ip_address(0x0A400000 + self.number)  # in 10.64.0.0/10
        return ip_address(f"fd80::{self.number >> 16:x}:{self.number & 0xFFFF:x}")


class Stage:
    """One scenario on one director; ``lines`` is the record."""

    def __init__(
        self, scenario: Scenario, world: World, director: Director, expected: Sequence[str] = ()
    ) -> None:
        """``expected`` is a record of the scenario: it says for how many packets to wait."""
        self.scenario = scenario
        self.vip = scenario.vip
        self.family = scenario.family
        self.lines: list[str] = []
        self._world = world
        self._director = director
        self._state: list[str] = []
        self._subject = Subject(scenario.vip, scenario.number, ip_network(self.network()))
        self._links = {INSIDE: Reassembler(), OUTSIDE: Reassembler()}
        self._answers = _answers(expected) if scenario.helped else []
        self._undo: dict[str, Callable[[], None]] = {}
        self._passed = 0.0  # seconds that the scenario has let pass since the last look

    def run(self) -> None:
        self._looked = time.monotonic()
        try:
            if self.scenario.rules:
                self.rules(*self.scenario.rules)
            self.scenario.play(self)
            for side, link in self._links.items():
                self.lines += [f"! {side} | incomplete: {pieces}" for pieces in link.incomplete()]
            self.listings(*self.scenario.listed)
        finally:
            for undo in self._undo.values():
                undo()

    # --- what an operator does ----------------------------------------------------------

    def rules(self, *rules: str, settle: float = 0) -> None:
        """Type ipvsadm lines; what became of them is looked at after ``settle`` seconds.

        {vip}, {rs1} to {rs3} stand for addresses, {other1} to {other3} for those of the other
        family, {far} for a server beyond a router, {dip} for the director's own inside address,
        {mark} for a firewall mark (with the option that its family needs).
        """
        names: dict[str, str] = {"vip": _bracketed(self.vip), "mark": str(self.scenario.number)}
        names["method"] = self.scenario.method
        names["mark"] += " -6" if self.family == 6 else ""
        plan = ADDRESSES[self.family]
        names["dip"] = _bracketed(ip_interface(plan["inside"]).ip)
        names["far"] = _bracketed(ip_network(plan["far"])[7])
        for number in (1, 2, 3):
            names[f"rs{number}"] = _bracketed(server_address(self.family, number))
            names[f"other{number}"] = _bracketed(server_address(10 - self.family, number))
        lines = [rule.format_map(names) for rule in rules]
        self.lines += [f"$ ipvsadm {line}" for line in lines]
        for line in lines:
            self._subject.learn(line)
        # Several at once are restored, to start one process instead of many.
        if len(lines) == 1:
            said = self._director.ipvsadm(lines[0].split())
        else:
            said = self._director.ipvsadm(["-R"], "".join(f"{line}\n" for line in lines))
        self.lines += [f"  {text}" for text in said.splitlines()]
        self._pass(settle)
        self._look()

    def timeouts(self, *seconds: int) -> None:
        """``ipvsadm --set`` for the length of this scenario."""
        self.rules(f"--set {' '.join(map(str, seconds))}")
        self._undo["timeouts"] = lambda: self._quietly(TIMEOUTS)

    def _quietly(self, rule: str) -> None:
        self._director.ipvsadm(rule.split())

    def sysctl(self, name: str, value: int) -> None:
        """One of IPVS's settings, for the length of this scenario."""
        self.lines.append(f"$ sysctl net.ipv4.vs.{name}={value}")
        self._director.sysctl(name, value)
        self._undo[name] = lambda: self._director.sysctl(name, SYSCTLS[name])

    def mark(self, protocol: str, ports: str = "", target: str = "") -> None:
        """Give packets of a protocol to the VIP, or to another address or network, the scenario's mark."""
        target = target or str(self.vip)
        self.lines.append(f"$ mark {protocol} {target} {ports}".rstrip())
        self._director.mark(ip_network(target), protocol, ports, self.scenario.number)

    def listings(self, *options: str) -> None:
        """List by ``ipvsadm OPTIONS``, each of them."""
        for option in options:
            self.note(option, self._director.ipvsadm(option.split()))

    def note(self, arguments: str, text: str) -> None:
        """Write down what ``ipvsadm ARGUMENTS`` listed of this scenario's services."""
        self.lines += [f"$ ipvsadm {arguments}", *listing(text, self._subject)]

    def rest(self) -> None:
        """Let the kernel add up its counters: what it zeroes are the sums of its last step."""
        self._pass(ESTIMATOR)

    def wait(self, seconds: float) -> None:
        """Let time pass, and look at what it did."""
        self._pass(seconds)
        self.lines.append(f"... {seconds} seconds later")
        self._look()

    # --- packets --------------------------------------------------------------------------

    def outside(self, packet: bytes, wait: float = 0) -> list[Frame]:
        """A packet from the clients' side; what came of it is looked at after ``wait`` seconds."""
        return self._exchange(OUTSIDE, "router", packet, wait)

    def inside(self, sender: str, packet: bytes, wait: float = 0) -> list[Frame]:
        """A packet from a real server, or from the client among them."""
        return self._exchange(INSIDE, sender, packet, wait)

    def burst(self, side: str, sender: str, packets: Sequence[bytes]) -> list[Frame]:
        """Packets of which only what came of all of them is looked at (fragments of a datagram)."""
        *first, last = packets
        self.lines += [f">+ {sender} | {describe(packet)}" for packet in first]
        early = [frame for packet in first for frame in self._world.exchange(side, sender, packet)]
        return self._exchange(side, sender, last, early=early)

    def _exchange(
        self, side: str, sender: str, packet: bytes, wait: float = 0, early: Sequence[Frame] = ()
    ) -> list[Frame]:
        self.lines.append(f"> {sender} | {describe(packet)}")
        frames = [*early, *self._world.exchange(side, sender, packet)]
        self._pass(wait)
        frames = self._whole([*frames, *self._world.later()])
        missing = self._answers.pop(0) - len(frames) if self._answers else 0
        deadline = time.monotonic() + self._director.patience
        while missing > 0 and time.monotonic() < deadline:
            time.sleep(0.01)
            late = self._whole(self._world.later())
            frames += late
            missing -= len(late)
        # Of what was looked at together the order of departure says nothing.
        self.lines += sorted(map(_line, frames)) if early else map(_line, frames)
        self._look()
        return frames

    def _whole(self, frames: Sequence[Frame]) -> list[Frame]:
        """Whole packets of what left the director."""
        contents = [(frame, self._links[frame.side].put(frame.content)) for frame in frames]
        return [
            Frame(frame.side, content, content != frame.content) for frame, content in contents if content
        ]

    def _pass(self, seconds: float) -> None:
        self._passed += seconds
        time.sleep(seconds)

    def _look(self) -> None:
        """Write down what changed of destinations and connections."""
        # In the guest, on a busy machine, a command takes seconds: those end no connection.
        self._director.forgive(time.monotonic() - self._looked - self._passed)
        state = self._director.destinations(self._subject)
        if self.scenario.connections:
            state += self._director.connections(self._subject)
        # A line begins with what it is about; the rest is how that fares.
        subjects = {_subject_of(line) for line in state}
        gone = [line for line in self._state if _subject_of(line) not in subjects]
        self.lines += [f"= {line}" for line in state if line not in self._state]
        self.lines += [f"- {line}" for line in gone]
        self._state = state
        self._looked, self._passed = time.monotonic(), 0.0

    # --- who talks ------------------------------------------------------------------------

    def own_client(self) -> int:
        """A client of the scenario's own, of whom the director's kernel has heard nothing yet."""
        return 1000 + self.scenario.number % 60000

    def client(self, number: int = 1) -> Address:
        high = number >> 8 if self.family == 6 else number >> 8 & 0xFF
        return ip_address(CLIENTS[self.family].format(high, number & 0xFF))

    def flow(
        self, port: int = 40000, client: int = 1, vport: int = 80, target: Address | None = None
    ) -> Flow:
        """A flow from a client to the VIP, or to another address."""
        return Flow(self, (self.client(client), port), (target or self.vip, vport))

    def network(self) -> str:
        """A network of the scenario's own beyond the third server, that a mark may divert."""
        if self.family == 4:
            return f"100.{self.scenario.number >> 8 & 0xFF}.{self.scenario.number & 0xFF}.0/24"
        return f"fd90:0:{self.scenario.number >> 16:x}:{self.scenario.number & 0xFFFF:x}::/64"

    def flow_inside(self) -> Flow:
        """A flow of the client that lives among the servers: in and out on one interface."""
        client = ip_address(ADDRESSES[self.family]["client"])
        return Flow(self, (client, 40000), (self.vip, 80), inside=True)

    def ping(self, data: bytes = b"ping") -> None:
        self.outside(echo_packet(self.client(), self.vip, 1, Network(identity=1), data))

    def director(self, side: str, family: int = 0) -> Address:
        """The director's own address on a side, of the scenario's family or another."""
        return ip_interface(ADDRESSES[family or self.family][side]).ip

    def router(self) -> Address:
        """The router on the clients' side."""
        return ip_address(ADDRESSES[self.family]["router"])


def _line(frame: Frame) -> str:
    return f"< {frame.side} | {describe_frame(frame.content, NAMES, reassembled=frame.reassembled)}"


def _answers(record: Sequence[str]) -> list[int]:
    """How many packets came of each packet (or burst) that was sent."""
    counts = [0]
    for line in record:
        if line.startswith("> "):
            counts.append(0)
        elif line.startswith("<"):
            counts[-1] += 1
    return counts[1:]


def _subject_of(line: str) -> str:
    words = line.split()
    return " ".join(words[:4] if words[0].isupper() else words[:1])


def _bracketed(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
