"""A conversation of one client with a VIP, both ends played by the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.conformance.traffic.packets import (
    Address,
    Endpoint,
    Network,
    Segment,
    chunk,
    icmp_error,
    sctp_packet,
    tcp_packet,
    udp_packet,
)
from tests.conformance.traffic.text import Endpoints, endpoints, next_sequence, unwrap
from tests.conformance.traffic.world import INSIDE, NAMES, OUTSIDE, Frame

if TYPE_CHECKING:
    from tests.conformance.traffic.stage import Stage

# A connection that a new one takes the place of is gone after the kernel's next timer tick.
REPLACED = 0.05
MSS_OPTION = bytes.fromhex("020405b4")
SYN_OPTIONS = MSS_OPTION + bytes.fromhex("0402080a0000000a00000000" + "01030307")
# Verification tags of both ends' SCTP.
CLIENT_TAG, SERVER_TAG = 0x11111111, 0x22222222


@dataclass
class Flow:
    """What the servers say is made of what reached them."""

    stage: Stage
    source: Endpoint
    target: Endpoint
    network: Network = field(default_factory=Network)
    sequence: int = 1000
    server_sequence: int = 70000
    server: str = ""
    seen: Endpoints | None = None
    """As the server sees it: where the client's packets came from and went to."""
    inside: bool = False
    packets: int = field(default=0)
    arrived: bytes = b""
    """The last packet that the server got, out of its tunnel."""
    answered: bytes = b""
    """The last answer, as the client got it or (past the director) would have got it."""
    shift: int = 0
    """How much further the server's sequence numbers are for the client (see FTP)."""

    # --- TCP --------------------------------------------------------------------------------

    def tcp(self, flags: str, data: bytes = b"", *, acknowledge: bool = True, **fields: object) -> None:
        """The client sends a segment."""
        self._send(self.segment(flags, data, acknowledge=acknowledge, **fields), self._pause("S" in flags))

    def segment(self, flags: str, data: bytes = b"", *, acknowledge: bool = True, **fields: object) -> bytes:
        """The client's next segment, not sent yet."""
        heard = self.server_sequence + self.shift if "A" in flags else 0
        segment = Segment(flags, self.sequence, heard, data=data)
        if "S" in flags:
            segment = replace(segment, options=SYN_OPTIONS)
        segment = replace(segment, **fields)  # type: ignore[arg-type]  # names of Segment's fields
        if acknowledge:
            self.sequence += len(data) + sum(flag in flags for flag in "SF")
        return tcp_packet(self.source, self.target, segment, self._network())

    def answer(self, flags: str, data: bytes = b"", network: Network | None = None) -> None:
        """The server that got the client's packets sends a segment, if its way leads through the director."""
        segment = Segment(flags, self.server_sequence, self.sequence if "A" in flags else 0, data=data)
        if "S" in flags:
            segment = replace(segment, options=SYN_OPTIONS)
        self.server_sequence += len(data) + sum(flag in flags for flag in "SF")
        if self.seen is not None:
            ends = self.seen.target, self.seen.source
            self._reply(tcp_packet(*ends, segment, network or self._network()))
        else:
            self._reply(b"")

    def open(self) -> None:
        """The handshake."""
        self.tcp("S")
        self.answer("SA")
        self.tcp("A")

    # --- UDP --------------------------------------------------------------------------------

    def udp(self, data: bytes, *, sum_it: bool = True) -> None:
        """The client sends a datagram."""
        self._send(self.datagram(data, sum_it=sum_it))

    def datagram(self, data: bytes, *, sum_it: bool = True) -> bytes:
        """A datagram of the client, not sent yet."""
        return udp_packet(self.source, self.target, data, self._network(), sum_it=sum_it)

    def answer_udp(self, data: bytes, *, sum_it: bool = True) -> None:
        """The server sends a datagram, if its way leads through the director."""
        self._reply(self.answering_datagram(data, sum_it=sum_it))

    def answering_datagram(self, data: bytes, *, sum_it: bool = True) -> bytes:
        """A datagram of the server, not sent yet; nothing where none has seen the client."""
        if self.seen is None:
            return b""
        ends = self.seen.target, self.seen.source
        return udp_packet(*ends, data, self._network(), sum_it=sum_it)

    # --- SCTP -------------------------------------------------------------------------------

    def sctp(self, *names: str, damage: int = 0) -> None:
        """The client sends a packet of these chunks."""
        tag = 0 if "INIT" in names else SERVER_TAG
        chunks = [chunk(name) for name in names]
        packet = sctp_packet(self.source, self.target, tag, chunks, self._network(), damage)
        self._send(packet, self._pause("INIT" in names))

    def answer_sctp(self, *names: str) -> None:
        """The server sends a packet of these chunks, if its way leads through the director."""
        if self.seen is not None:
            ends = self.seen.target, self.seen.source
            chunks = [chunk(name) for name in names]
            self._reply(sctp_packet(*ends, CLIENT_TAG, chunks, self._network()))
        else:
            self._reply(b"")

    def associate(self) -> None:
        """SCTP's four-way handshake."""
        self.sctp("INIT")
        self.answer_sctp("INIT-ACK")
        self.sctp("COOKIE-ECHO")
        self.answer_sctp("COOKIE-ACK")

    def answer_to(self, vip: Address) -> bytes:
        """A datagram that a VIP would have sent this client."""
        return udp_packet((vip, self.target[1]), self.source, b"never sent", Network(identity=5))

    # --- errors -----------------------------------------------------------------------------

    def error_from_clients(
        self, error: str, extra: int = 0, sender: Address | None = None, quoted: int | None = None
    ) -> None:
        """An ICMP error about the last answer, from the client or a router before it."""
        about = self.answered[:quoted]
        source = sender or self.source[0]
        self.stage.outside(icmp_error(source, self.target[0], error, about, extra))

    def error_from_servers(
        self, error: str, extra: int = 0, sender: Address | None = None, quoted: int | None = None
    ) -> None:
        """An ICMP error about the client's last packet, from the server or a router before it."""
        if self.seen is None:
            self.stage.lines.append("  no server has seen this client")
            return
        source = sender or self.seen.target[0]
        packet = icmp_error(source, self.seen.source[0], error, self.arrived[:quoted], extra)
        self.stage.inside(self.server, packet)

    # --- both -------------------------------------------------------------------------------

    def send(self, packets: Sequence[bytes]) -> None:
        """The client sends packets that are looked at together (fragments, for example)."""
        for frame in self.stage.burst(OUTSIDE, "router", packets):
            self._notice(frame)

    def reply(self, packets: Sequence[bytes]) -> None:
        """The server sends packets that are looked at together, if its way leads through the director."""
        if self.answers_pass:
            self.stage.burst(INSIDE, self.server, packets)

    @property
    def answers_pass(self) -> bool:
        """Under DR and TUN the server sees the VIP itself, and answers past the director."""
        return self.seen is not None and self.seen.target[0] != self.target[0]

    def _pause(self, begins: bool) -> float:
        return REPLACED if begins and self.packets > 1 else 0

    def _send(self, packet: bytes, wait: float = 0) -> None:
        stage = self.stage
        frames = stage.inside("client", packet, wait) if self.inside else stage.outside(packet, wait)
        for frame in frames:
            self._notice(frame)

    def _notice(self, frame: Frame) -> None:
        packet = frame.content[14:]
        ends = endpoints(packet)
        if frame.side == INSIDE and ends is not None and ends.source == self.source:
            self.seen = ends
            self.arrived = unwrap(packet)
            self.server = NAMES.get(frame.content[:6], "nobody")

    def _reply(self, packet: bytes) -> None:
        if self.seen is None:
            self.stage.lines.append("  no server has seen this client")
        elif not self.answers_pass:
            self.answered = packet
        else:
            for frame in self.stage.inside(self.server, packet):
                if frame.side == OUTSIDE:
                    self.answered = frame.content[14:]
                    said, heard = next_sequence(packet), next_sequence(self.answered)
                    self.shift = heard - said if said is not None and heard is not None else 0

    def _network(self) -> Network:
        self.packets += 1
        return replace(self.network, identity=self.packets)
