"""An independent reader of frames, and its judgement on what the director made of one.

It shares no code and no shape with the data plane: from the frame that went in, the rules
and the connections it says what may have come out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.packet.director import (
    DIP,
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    XDP_TX,
)
from tests.packet.frames import checksum
from xlvs.dataplane import layout
from xlvs.model import Forward

Address = IPv4Address | IPv6Address
TCP, UDP, SCTP = 6, 17, 132
TRANSLATING = (Forward.MASQ, Forward.FULLNAT)
EXTENSIONS = (0, 43, 51, 60)
VLANS = (0x8100, 0x88A8)
# What is dropped as nobody's, and its protocol; fragments have any.
STRAYS = {"drop_stray_tcp": TCP, "drop_stray_udp": UDP, "drop_stray_fragment": None}
SYN, RST = 2, 4
# What a packet's sender may be told of by an ICMP error.
ANSWERED = ("drop_no_destination", "drop_too_big", "drop_ttl", "drop_unknown_answer")


class Wrong(AssertionError):
    """What the director did is not allowed."""


@dataclass
class Read:
    """A frame as far as it makes sense. ``l3`` and ``l4`` are offsets in it."""

    version: int = 0
    l3: int = 0
    l4: int = 0
    end: int = 0
    protocol: int = -1
    source: Address = field(default_factory=lambda: IPv4Address(0))
    target: Address = field(default_factory=lambda: IPv4Address(0))
    sport: int = -1
    dport: int = -1
    ttl: int = 0
    offset: int = 0
    fragment: bool = False
    sum_holds: bool | None = None
    """Of the transport; None where it cannot be told (fragments, no checksum, partial ones)."""
    check: tuple[int, int] = (0, 0)
    """Where a partial checksum begins and ends, which the director completes."""


def number(data: bytes | bytearray, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def read_frame(frame: bytes) -> Read | None:
    at, tags = 12, 0
    while tags < 2 and number(frame, at) in VLANS:
        at += 4
        tags += 1
    kind = number(frame, at)
    if kind not in (0x0800, 0x86DD):
        return None
    return read_ip(frame, at + 2, 4 if kind == 0x0800 else 6)


def read_ip(data: bytes, at: int, version: int, *, cut: bool = False) -> Read | None:
    """``cut``: a quotation, of which the end may be missing."""
    found = Read(version, at)
    size = 20 if version == 4 else 40
    if at + size > len(data) or data[at] >> 4 != version:
        return None
    if version == 4:
        header = (data[at] & 15) * 4
        found.end = at + number(data, at + 2)
        if header < 20 or found.end < at + header or (found.end > len(data) and not cut):
            return None
        if at + header > len(data) or (not cut and header == 20 and checksum(data[at : at + header])):
            return None
        word = number(data, at + 6)
        found.fragment, found.offset = bool(word & 0x3FFF), (word & 0x1FFF) * 8
        found.protocol, found.ttl, found.l4 = data[at + 9], data[at + 8], at + header
        found.source, found.target = ip_address(data[at + 12 : at + 16]), ip_address(data[at + 16 : at + 20])
    else:
        found.end = at + 40 + number(data, at + 4)
        if found.end > len(data) and not cut:
            return None
        found.protocol, found.ttl, found.l4 = data[at + 6], data[at + 7], at + 40
        found.source, found.target = ip_address(data[at + 8 : at + 24]), ip_address(data[at + 24 : at + 40])
        if not _walk(data, found):
            return None
    if cut:
        found.end = min(found.end, len(data))
    if found.offset:
        return found
    if found.protocol in (TCP, UDP, SCTP) and found.l4 + 4 <= found.end:
        found.sport, found.dport = number(data, found.l4), number(data, found.l4 + 2)
    if not cut and not found.fragment:
        found.sum_holds = _sum_holds(data, found)
    return found


def _walk(data: bytes, found: Read) -> bool:
    while found.protocol in (*EXTENSIONS, 44):
        if found.l4 + 8 > min(found.end, len(data)):
            return False
        kind, following, units = found.protocol, data[found.l4], data[found.l4 + 1]
        if kind == 44:
            word = number(data, found.l4 + 2)
            found.offset, found.fragment = word & 0xFFF8, found.fragment or bool(word & 0xFFF9)
        found.l4 += 8 if kind == 44 else (units + 2) * 4 if kind == 51 else (units + 1) * 8
        found.protocol = following
        if found.offset:
            return True
    return True


def _sum_holds(data: bytes, found: Read) -> bool | None:
    body = data[found.l4 : found.end]
    places = {TCP: 16, UDP: 6, 58: 2}
    if found.protocol == SCTP:
        if body[8:12] == bytes(4):  # left to the hardware, as Linux does it
            found.check = (found.l4 + 8, found.l4 + 12)
        return None
    if found.protocol == 1:
        return len(body) >= 4 and checksum(body) == 0
    if found.protocol not in places or len(body) < places[found.protocol] + 2:
        return None
    pseudo = found.source.packed + found.target.packed
    pseudo += len(body).to_bytes(4, "big") + found.protocol.to_bytes(4, "big")
    said = number(body, places[found.protocol])
    if said == checksum(pseudo) ^ 0xFFFF and found.protocol in (TCP, UDP):
        found.check = (found.l4 + places[found.protocol], found.l4 + places[found.protocol] + 2)
        return None
    if found.protocol == UDP and said == 0:
        return None
    return checksum(pseudo + body) == 0


@dataclass(frozen=True)
class Connection:
    """A row of the connection table."""

    protocol: int
    client: tuple[Address, int]
    virtual: tuple[Address, int]
    server: tuple[Address, int]
    method: Forward
    flags: int
    destination: Address
    local: tuple[Address, int] | None = None  # what stands for the client at the server (FULLNAT)

    @property
    def away(self) -> tuple[Address, int]:
        """Whom the server answers."""
        return self.local or self.client


def connection(row: layout.ConnRow, dest: layout.DestRow) -> Connection:
    def end(address: object, port: int) -> tuple[Address, int]:
        packed = layout.plain_address(address, row.family)  # type: ignore[arg-type]
        return ip_address(packed), port >> 8 | (port & 255) << 8

    return Connection(
        row.protocol,
        end(row.caddr, row.cport),
        end(row.vaddr, row.vport),
        end(row.daddr, row.dport),
        Forward(row.flags & layout.CONN_METHOD),
        row.flags,
        ip_address(layout.plain_address(dest.address, dest.family)),
        end(row.laddr, row.lport) if row.flags & layout.CONN_METHOD == Forward.FULLNAT else None,
    )


def _request(conn: Connection) -> object:
    return conn.protocol, *conn.client, *conn.virtual


def _reply(conn: Connection) -> object:
    return conn.protocol, *conn.server, *conn.away


class Judge:
    """Judges single frames by the connections that there are after each.

    ``once`` are the servers of services that connect single packets, of which nothing stays;
    ``virtual`` are the services' addresses, ``denied`` the clients that they serve not.
    """

    def __init__(
        self,
        once: Mapping[object, Sequence[tuple[Address, int]]],
        virtual: Collection[Address] = (),
        denied: Collection[Address] = (),
    ) -> None:
        self._once, self._virtual, self._denied = once, virtual, denied
        self._slots: dict[int, Connection] = {}
        # Several have one key where an FTP control connection was replaced that others hang on.
        self._requests: defaultdict[object, dict[int, Connection]] = defaultdict(dict)
        self._replies: defaultdict[object, dict[int, Connection]] = defaultdict(dict)

    def learn(self, slot: int, conn: Connection | None) -> None:
        """What is in a slot now."""
        old = self._slots.pop(slot, None)
        if old:
            self._requests[_request(old)].pop(slot, None)
            self._replies[_reply(old)].pop(slot, None)
        if conn is None:
            return
        self._slots[slot] = conn
        self._requests[_request(conn)][slot] = conn
        if conn.method in TRANSLATING:
            self._replies[_reply(conn)][slot] = conn

    @property
    def _all(self) -> Iterable[Connection]:
        return self._slots.values()

    def check(self, outcome: str, verdict: int, before: bytes, after: bytes) -> None:
        """Raise Wrong where the director did what it must not."""
        if outcome in ("forwarded",):
            _require(verdict in (XDP_REDIRECT, XDP_TX), f"forwarded, but the verdict is {verdict}")
            self._forwarded(before, after)
        elif outcome in ("not_ours", "bypassed") or outcome.startswith("pass_"):
            _require(verdict == XDP_PASS, f"{outcome}, but the verdict is {verdict}")
            _require(before == after, "left to the kernel, but changed")
        elif outcome in ANSWERED:
            _require(verdict in (XDP_REDIRECT, XDP_TX, XDP_DROP), f"{outcome}: verdict {verdict}")
            if verdict != XDP_DROP:
                self._answered(before, after, sized=outcome == "drop_too_big")
        elif outcome.startswith("drop_") or outcome in ("handed_early", "handed_split"):
            _require(verdict == XDP_DROP, f"{outcome}, but the verdict is {verdict}")
            if outcome in STRAYS or outcome == "drop_denied":
                self._refused(outcome, before)
        else:
            raise Wrong(f"the outcome {outcome} was not to be had here")

    def _refused(self, outcome: str, before: bytes) -> None:
        """By the defence: what is nobody's, or from whom nobody wants anything."""
        packet = read_frame(before)
        _require(packet is not None, "refused for what it is, but nothing can be read in it")
        assert packet
        if outcome == "drop_denied":
            _require(packet.source in self._denied, f"{packet.source} is not denied")
            return
        _require(packet.target in self._virtual, f"{packet.target} is of no service")
        if outcome == "drop_stray_fragment":
            _require(packet.fragment, "no fragment")
            return
        _require(packet.protocol == STRAYS[outcome], f"of protocol {packet.protocol}")
        # A control connection of FTP that was replaced lives on without being found.
        owners = [conn for conn, _ in self._of(before, packet) if not conn.flags & layout.CONN_WATCHED]
        _require(not owners, f"of a connection: {owners}")
        if outcome == "drop_stray_tcp":
            flags = before[packet.l4 + 13]
            _require(flags & RST != 0 or not flags & SYN, "a SYN begins a connection")

    def _forwarded(self, before: bytes, after: bytes) -> None:
        packet = read_frame(before)
        _require(packet is not None, "forwarded, but no packet can be read in it")
        assert packet
        candidates = list(self._of(before, packet))
        _require(bool(candidates), f"forwarded, but of no connection: {packet}")
        reasons = []
        for conn, reply in candidates:
            try:
                _forwarded_as(before, packet, after, conn, reply)
                return
            except Wrong as wrong:
                reasons.append(f"{conn} {'reply' if reply else 'request'}: {wrong}")
        raise Wrong("; ".join(reasons))

    def _of(self, frame: bytes, packet: Read) -> list[tuple[Connection, bool]]:
        """Connections that the packet may belong to, and in which direction."""
        if packet.offset:
            return [
                (c, reply)
                for c in self._all
                for reply, ends in ((False, (c.client[0], c.virtual[0])), (True, (c.server[0], c.away[0])))
                if (packet.source, packet.target) == ends and (not reply or c.method in TRANSLATING)
            ]
        protocol, sport, dport = packet.protocol, packet.sport, packet.dport
        if protocol in (50, 51):
            protocol, sport, dport = UDP, 500, 500
        if protocol in (1, 58):
            return self._errors(frame, packet)
        client, virtual = (packet.source, sport), (packet.target, dport)
        single = [
            (Connection(protocol, client, virtual, server, Forward.MASQ, 0, server[0]), False)
            for server in self._once.get((protocol, *virtual), ())
        ]
        return self._between((protocol, *client, *virtual)) + single

    def _between(self, ends: object) -> list[tuple[Connection, bool]]:
        return [
            (conn, reply)
            for table, reply in ((self._requests, False), (self._replies, True))
            for conn in table.get(ends, {}).values()
        ]

    def _errors(self, frame: bytes, packet: Read) -> list[tuple[Connection, bool]]:
        quoted = read_ip(frame[: packet.end], packet.l4 + 8, packet.version, cut=True)
        if not quoted or quoted.sport < 0:
            return []
        return self._between((quoted.protocol, quoted.target, quoted.dport, quoted.source, quoted.sport))

    def _answered(self, before: bytes, after: bytes, *, sized: bool) -> None:
        """An ICMP error to the sender, about this packet, from an address that the sender knows."""
        packet, answer = read_frame(before), read_frame(after)
        _require(packet is not None and answer is not None, "an error about what cannot be read")
        assert packet
        assert answer
        _require(answer.protocol == (1 if packet.version == 4 else 58), "the answer is no ICMP error")
        _require(answer.target == packet.source, "the error goes to somebody else")
        known = {end[0] for c in self._all for end in (c.virtual, c.server, c.away)} | {packet.target}
        known |= {ip_address(own) for own in DIP.values()}
        _require(answer.source in known, f"the error comes from {answer.source}")
        _require(answer.sum_holds is True, "the error's checksum is wrong")
        _require(answer.end == len(after), "there is more in the frame than the error")
        _require(after[:6] == before[6:12] and after[6:12] == before[:6], "the error goes another way")
        if sized and any(c.flags & layout.CONN_WATCHED for c, _ in self._of(before, packet)):
            return  # FTP: how long it is shows when it was rewritten
        quoted = after[answer.l4 + 8 : answer.end]
        whole = before[packet.l3 : packet.end]
        same = bytearray(whole[: len(quoted)])
        for at in (8, 10, 11) if packet.version == 4 else (7,):  # TTL and its checksum may have gone down
            if at < len(same):
                same[at] = quoted[at]
        _require(bytes(same) == quoted, "the error quotes another packet")


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise Wrong(otherwise)


def _forwarded_as(before: bytes, packet: Read, after: bytes, conn: Connection, reply: bool) -> None:
    macs = ROUTER_MAC + OUTSIDE_MAC if reply else SERVER_MAC + INSIDE_MAC
    _require(after[:12] == macs, f"sent to {after[:12].hex()}")
    out = read_frame(after)
    _require(out is not None, "what came out cannot be read")
    assert out
    _require(out.l3 == 14, "the tags of the way in are still there")
    if not reply and conn.method is Forward.TUNNEL:
        _require(out.target == conn.destination, f"the tunnel leads to {out.target}")
        inner = _inner(before, packet)
        sent = after[: len(after) - (len(before) - packet.end)][-len(inner) :]
        _require(
            _but_check(sent, packet) == _but_check(inner, packet), "the packet in the tunnel is another one"
        )
        return
    if not reply and conn.method is Forward.ROUTE:
        whole = _inner(before, packet) + before[packet.end :]
        _require(_but_check(after[14:], packet) == _but_check(whole, packet), "DR changed more than a TTL")
        return
    _require(conn.method in TRANSLATING, f"method {conn.method}")
    _translated(before, packet, after, out, conn, reply)


def _but_check(data: bytes, packet: Read) -> bytes:
    """An IP packet without its partial checksum."""
    begin, end = (at - packet.l3 for at in packet.check)
    return data[:begin] + data[end:] if packet.check != (0, 0) else data


def _inner(before: bytes, packet: Read) -> bytes:
    """The IP packet with its TTL one lower."""
    whole = bytearray(before[packet.l3 : packet.end])
    if packet.version == 6:
        whole[7] -= 1
        return bytes(whole)
    whole[8] -= 1
    check = number(whole, 10) + 0x0100
    whole[10:12] = (check + (check >> 16) & 0xFFFF).to_bytes(2, "big")
    return bytes(whole)


def _translated(before: bytes, packet: Read, after: bytes, out: Read, conn: Connection, reply: bool) -> None:
    far, near = (packet.target, packet.dport), (packet.source, packet.sport)
    if conn.local:
        far, near = conn.client, conn.local
    ends = (conn.virtual[0], far[0]) if reply else (near[0], conn.server[0])
    _require((out.source, out.target) == ends, f"from {out.source} to {out.target}")
    _require(out.protocol == packet.protocol and out.ttl == packet.ttl - 1, "protocol or TTL")
    if packet.protocol not in (1, 58, 50, 51) and not packet.offset:
        ports = (conn.virtual[1], far[1]) if reply else (near[1], conn.server[1])
        _require((out.sport, out.dport) == ports, f"from port {out.sport} to {out.dport}")
    if packet.sum_holds is not None:
        _require(out.sum_holds == packet.sum_holds, f"the sum held: {packet.sum_holds}, now {out.sum_holds}")
    if conn.flags & layout.CONN_WATCHED or packet.protocol in (1, 58):
        return  # texts and quotations are changed: by tests of their own
    old, new = bytearray(before[packet.l3 :]), bytearray(after[14:])
    _require(len(old) == len(new), "longer or shorter")
    shift = packet.l4 - packet.l3
    free = [*range(12, 20), 8, 10, 11] if packet.version == 4 else [*range(8, 40), 7]
    if not packet.offset and packet.protocol not in (50, 51):
        free += [shift + n for n in range(4)]
        free += {TCP: [shift + 16, shift + 17], UDP: [shift + 6, shift + 7]}.get(
            packet.protocol, [shift + n for n in range(8, 12)]
        )
    if conn.local and packet.protocol == TCP and not packet.offset:
        # Numbers, and the options that hold some, are looked at by tests of their own.
        free += [*range(shift + 4, shift + 12), *range(shift + 20, shift + (old[shift + 12] >> 4) * 4)]
    for at in free:
        if at < len(old):
            old[at] = new[at] = 0
    _require(old == new, "more than addresses, ports, TTL and sums was changed")
