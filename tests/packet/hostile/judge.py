"""An independent judgement on what the director made of a frame.

It shares no code and no shape with the data plane: from the frame that went in, the rules
and the connections it says what may have come out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

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
from tests.packet.hostile.reader import (
    TCP,
    UDP,
    Address,
    Read,
    number,
    options,
    payload,
    payload_at,
    read_frame,
    read_ip,
)
from tests.packet.options import CLAIMS, toa, walk, without
from xlvs.dataplane import layout
from xlvs.model import ClientAddress, Forward

# Of a service: what it tells its servers of clients, and whether cookies guard it.
Special = tuple[ClientAddress, bool]
ORDINARY: Special = (ClientAddress.NONE, False)
TRANSLATING = (Forward.MASQ, Forward.FULLNAT)
# What is dropped as nobody's, and its protocol; fragments have any.
STRAYS = {"drop_stray_tcp": TCP, "drop_stray_udp": UDP, "drop_stray_fragment": None}
SYN, RST, ACK = 2, 4, 16
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")  # of the PROXY protocol, version 2
# What a packet's sender may be told of by an ICMP error.
ANSWERED = ("drop_no_destination", "drop_too_big", "drop_ttl", "drop_unknown_answer")


class Wrong(AssertionError):
    """What the director did is not allowed."""


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
    ``special`` is what services tell their servers, and whether cookies guard them; ``virtual``
    are the services' addresses, ``denied`` the clients that they serve not.
    """

    def __init__(
        self,
        once: Mapping[object, Sequence[tuple[Address, int]]],
        special: Mapping[object, Special],
        virtual: Collection[Address] = (),
        denied: Collection[Address] = (),
    ) -> None:
        self._once, self._virtual, self._denied = once, virtual, denied
        self._special = special
        self.named = 0  # packets that told who the client is
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
        elif outcome == "cookie_sent":
            _require(verdict in (XDP_REDIRECT, XDP_TX), f"a cookie, but the verdict is {verdict}")
            self._cookie(before, after)
        elif outcome == "server_refused":
            _require(verdict == XDP_REDIRECT, f"a reset, but the verdict is {verdict}")
            self._reset(before, after)
        elif outcome == "handed_answer":
            _require(verdict == XDP_PASS, f"{outcome}, but the verdict is {verdict}")
            _require(after[4:] == before, "handed to the companion, but changed")
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
            special = self._special.get((conn.protocol, *conn.virtual), ORDINARY)
            try:
                if not special[1] or not _drafted(after, conn, reply):
                    self.named += _forwarded_as(before, packet, after, conn, reply, special)
                return
            except Wrong as wrong:
                reasons.append(f"{conn} {'reply' if reply else 'request'}: {wrong}")
        raise Wrong("; ".join(reasons))

    def _tells(self, conn: Connection) -> ClientAddress:
        return self._special.get((conn.protocol, *conn.virtual), ORDINARY)[0]

    def _cookie(self, before: bytes, after: bytes) -> None:
        """A SYN-ACK for the SYN, to whom it came from."""
        packet, answer = read_frame(before), read_frame(after)
        _require(packet is not None and answer is not None, "a cookie for what cannot be read")
        assert packet
        assert answer
        virtual = (packet.target, packet.dport)
        _require(self._special.get((TCP, *virtual), ORDINARY)[1], f"{virtual} is not guarded")
        _require(before[packet.l4 + 13] & (SYN | ACK | RST) == SYN, "a cookie for what is no SYN")
        _require((answer.source, answer.sport) == virtual, f"the cookie comes from {answer.source}")
        _require((answer.target, answer.dport) == (packet.source, packet.sport), "somebody else's cookie")
        _require(after[answer.l4 + 13] == SYN | ACK, f"flags {after[answer.l4 + 13]:#x}")
        following = number(before, packet.l4 + 4, 4) + 1 & 0xFFFFFFFF
        _require(number(after, answer.l4 + 8, 4) == following, "it acknowledges something else")
        _require(answer.sum_holds is True, "its sum is wrong")
        _require(after[:6] == before[6:12] and after[6:12] == before[:6], "the cookie goes another way")

    def _reset(self, before: bytes, after: bytes) -> None:
        """The client hears that nobody serves it."""
        packet, answer = read_frame(before), read_frame(after)
        _require(packet is not None and answer is not None, "a reset for what cannot be read")
        assert packet
        assert answer
        ends = ((answer.source, answer.sport), (answer.target, answer.dport))
        owners = [conn for conn, _ in self._of(before, packet) if (conn.virtual, conn.client) == ends]
        _require(bool(owners), f"no connection of the packet's is between {ends}")
        _require(after[:12] == ROUTER_MAC + OUTSIDE_MAC, f"sent to {after[:12].hex()}")
        _require(after[answer.l4 + 13] == RST | ACK, f"flags {after[answer.l4 + 13]:#x}")
        _require(answer.sum_holds is True, "its sum is wrong")

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
        if packet.protocol == TCP and not packet.offset and self._of(before, packet):
            # By ports and number it is known (RFC 792). What is behind them in the header, the director
            # has seen to before it showed that the packet goes no further.
            renumbered = any(self._tells(conn) is ClientAddress.PROXY for conn, _ in self._of(before, packet))
            begin = packet.l4 + (4 if renumbered else 8) - packet.l3
            end = payload_at(before, packet) - packet.l3
            same[begin:end] = quoted[begin:end]
        other = [at for at, (one, two) in enumerate(zip(same, quoted, strict=True)) if one != two]
        _require(not other, f"the error quotes another packet, at {other}")


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise Wrong(otherwise)


def _drafted(after: bytes, conn: Connection, reply: bool) -> bool:
    """Whether it is what SYNPROXY says itself: a SYN to the real server, or a reset."""
    out = read_frame(after)
    if out is None or out.protocol != TCP or after[:12] != SERVER_MAC + INSIDE_MAC:
        return False
    ends = ((out.source, out.sport), (out.target, out.dport))
    flags = after[out.l4 + 13]
    if ends != (conn.away, conn.server) or flags not in ((RST,) if reply else (SYN, RST)):
        return False
    bare = out.end - out.l4 == (after[out.l4 + 12] >> 4) * 4
    return bare and out.sum_holds is True


def _forwarded_as(
    before: bytes, packet: Read, after: bytes, conn: Connection, reply: bool, special: Special
) -> bool:
    """Whether it told the server who the client is."""
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
        return False
    if not reply and conn.method is Forward.ROUTE:
        whole = _inner(before, packet) + before[packet.end :]
        _require(_but_check(after[14:], packet) == _but_check(whole, packet), "DR changed more than a TTL")
        return False
    _require(conn.method in TRANSLATING, f"method {conn.method}")
    return _translated(before, packet, after, out, conn, reply, special)


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


def _translated(
    before: bytes, packet: Read, after: bytes, out: Read, conn: Connection, reply: bool, special: Special
) -> bool:
    far, near = (packet.target, packet.dport), (packet.source, packet.sport)
    if conn.local:
        far, near = conn.client, conn.local
    ends = (conn.virtual[0], far[0]) if reply else (near[0], conn.server[0])
    _require((out.source, out.target) == ends, f"from {out.source} to {out.target}")
    _require(out.protocol == packet.protocol and out.ttl == packet.ttl - 1, "protocol or TTL")
    if packet.protocol not in (1, 58, 50, 51) and not packet.offset:
        ports = (conn.virtual[1], far[1]) if reply else (near[1], conn.server[1])
        _require((out.sport, out.dport) == ports, f"from port {out.sport} to {out.dport}")
    renumbered = bool(conn.local) or special != ORDINARY
    # A wrong sum whose numbers change may look like a partial one, by chance.
    if packet.sum_holds is not None and (packet.sum_holds or out.sum_holds is not None or not renumbered):
        _require(out.sum_holds == packet.sum_holds, f"the sum held: {packet.sum_holds}, now {out.sum_holds}")
    if conn.flags & layout.CONN_WATCHED or packet.protocol in (1, 58):
        return False  # texts and quotations are changed: by tests of their own
    if packet.protocol == TCP and not reply and not packet.offset:
        _no_claims(after, out, conn, special[0])
    if special != ORDINARY and not packet.offset:
        return _told(before, packet, after, out, conn, ClientAddress.NONE if reply else special[0])
    _same(before, packet, after, conn, reply)
    return False


def _no_claims(after: bytes, out: Read, conn: Connection, tells: ClientAddress) -> None:
    """No option says who the client is, but for the director's own, which is true."""
    area = options(after, out)
    claims = [area[at : at + size] for kind, at, size in walk(area) if kind in CLAIMS]
    true = [toa(str(conn.client[0]), conn.client[1])] if tells is ClientAddress.TOA else []
    _require(claims in ([], true), f"the server is told {[claim.hex() for claim in claims]}")


def _told(
    before: bytes, packet: Read, after: bytes, out: Read, conn: Connection, tells: ClientAddress
) -> bool:
    """The same words, if need be with a header in front of them; whether the client was named."""
    said, heard = payload(before, packet), payload(after, out)
    if heard == said:
        grown = out.l4 - out.l3 > packet.l4 - packet.l3
        return grown or any(kind in CLAIMS for kind, _, _ in walk(options(after, out)))
    _require(tells is ClientAddress.PROXY, "other words")
    if before[packet.l4 + 13] & SYN and not heard:
        return False  # the header would have to come first: the client says it again
    _require(heard.startswith(SIGNATURE), "other words")
    head, rest = heard[: 16 + number(heard, 14)], heard[16 + number(heard, 14) :]
    _require(head[16:].startswith(conn.client[0].packed), "the header names somebody else")
    _require(rest in (said, b""), "other words behind the header")  # none: there was no room for them
    return True


def _same(before: bytes, packet: Read, after: bytes, conn: Connection, reply: bool) -> None:
    """Nothing was changed but what must be."""
    old, new = bytearray(before[packet.l3 :]), bytearray(after[14:])
    _require(len(old) == len(new), "longer or shorter")
    shift = packet.l4 - packet.l3
    free = [*range(12, 20), 8, 10, 11] if packet.version == 4 else [*range(8, 40), 7]
    if not packet.offset and packet.protocol not in (50, 51):
        free += [shift + n for n in range(4)]
        free += {TCP: [shift + 16, shift + 17], UDP: [shift + 6, shift + 7]}.get(
            packet.protocol, [shift + n for n in range(8, 12)]
        )
    if packet.protocol == TCP and not packet.offset:
        begin, end = shift + 20, payload_at(before, packet) - packet.l3
        if conn.local:
            # Numbers, and the options that hold some, are looked at by tests of their own.
            free += [*range(shift + 4, shift + 12), *range(begin, end)]
        elif not reply:
            old[begin:end] = without(bytes(old[begin:end]), *CLAIMS)
    for at in free:
        if at < len(old):
            old[at] = new[at] = 0
    _require(old == new, "more than addresses, ports, TTL and sums was changed")
