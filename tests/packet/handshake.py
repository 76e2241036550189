"""SYNPROXY's handshakes, step by step, and what leaves the director at each."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

from tests.packet.director import INSIDE_MAC, SERVER_MAC, Director, Server
from tests.packet.frames import TCP, Datagram, sums_are_right
from xlvs.dataplane import layout
from xlvs.model import Forward, ServiceKey

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
KEY = (0x01234567, 0x89ABCDEF, 0xDEADBEEF, 0x0BADCAFE)
OFF, ALWAYS, AUTO = range(3)
SYN_SENT, ESTABLISHED, CLOSE = (
    layout.TCP_STATES.index(name) for name in ("SYN_SENT", "ESTABLISHED", "CLOSE")
)
ANSWER_MAGIC = 0x786C7661


@dataclass(frozen=True)
class Seen:
    """A TCP segment as it left."""

    source: str
    target: str
    sport: int
    dport: int
    sequence: int
    acknowledged: int
    flags: int
    window: int
    options: bytes
    payload: bytes
    macs: tuple[bytes, bytes]
    tags: tuple[int, ...]


def read(frame: bytes) -> Seen:
    """Take a frame apart; its sums must be right."""
    at, tags = 12, []
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        tags.append(int.from_bytes(frame[at + 2 : at + 4], "big"))
        at += 4
    packet = frame[at + 2 :]
    assert sums_are_right(packet)
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45
        size, length = 20, int.from_bytes(packet[2:4], "big")
        ends = packet[12:16], packet[16:20]
    else:
        size, length = 40, 40 + int.from_bytes(packet[4:6], "big")
        ends = packet[8:24], packet[24:40]
    segment = packet[size:length]
    sport, dport, sequence, acknowledged, offset, flags, window = struct.unpack_from("!HHIIBBH", segment)
    source, target = (str(ip_address(end)) for end in ends)
    return Seen(
        source,
        target,
        sport,
        dport,
        sequence,
        acknowledged,
        flags,
        window,
        segment[20 : (offset >> 4) * 4],
        segment[(offset >> 4) * 4 :],
        (frame[:6], frame[6:12]),
        tuple(tags),
    )


def service_of(
    director: Director, family: int = 4, mode: int = ALWAYS, servers: int = 1, port: int = 80
) -> layout.ServiceRow:
    """A service with SYNPROXY; its row."""
    settings = director.tables.settings
    settings.cookie_key[:] = KEY
    names = [RIP[family].replace("11", str(11 + number)) for number in range(servers)]
    key = director.service(VIP[family], TCP, [Server(name, 80, Forward.MASQ) for name in names], port=port)
    row = row_of(director, key)
    row.synproxy = mode
    return row


def row_of(director: Director, key: ServiceKey) -> layout.ServiceRow:
    for number in range(director.tables.settings.services_high):
        row = director.tables.row("services", layout.ServiceRow, number)
        if row.flags & layout.SERVICE_USED:
            return row
    raise KeyError(key)


def syn(family: int = 4, **fields: object) -> Datagram:
    base = Datagram(CLIENT[family], VIP[family], protocol=TCP, flags="S", payload=b"", sequence=5000)
    return replace(base, **fields)  # type: ignore[arg-type]


def cookie_of(director: Director, datagram: Datagram) -> Seen:
    """Send a SYN; what it was answered by."""
    director.counted()
    _, frame = director.run(datagram.frame())
    assert director.counted() == {"cookie_sent": 1}
    answer = read(frame)
    assert (answer.source, answer.target) == (datagram.target, datagram.source)
    assert (answer.sport, answer.dport) == (datagram.dport, datagram.sport)
    assert answer.acknowledged == (datagram.sequence + 1) & 0xFFFFFFFF
    assert answer.flags == 0x12
    assert answer.macs == (datagram.source_mac, datagram.target_mac)
    assert answer.tags == datagram.tags
    return answer


def ack_of(datagram: Datagram, answer: Seen, **fields: object) -> Datagram:
    """The third packet of the handshake."""
    numbers = {
        "sequence": (datagram.sequence + 1) & 0xFFFFFFFF,
        "acknowledged": (answer.sequence + 1) & 0xFFFFFFFF,
    }
    bare = replace(datagram, flags="A", tcp_options=b"", payload=b"", **numbers)  # type: ignore[arg-type]
    return replace(bare, **fields)  # type: ignore[arg-type]


def opened(director: Director, datagram: Datagram) -> tuple[Seen, Seen]:
    """Shake hands as far as the SYN to the real server: the cookie, and that SYN."""
    answer = cookie_of(director, datagram)
    _, frame = director.exchange(ack_of(datagram, answer).frame())
    assert director.counted() == {"forwarded": 1}
    return answer, read(frame)


def server_says(asked: Seen, flags: str = "SA", sequence: int = 90000, **fields: object) -> Datagram:
    """The real server's answer to the SYN that it got."""
    said = Datagram(
        asked.target,
        asked.source,
        asked.dport,
        asked.sport,
        TCP,
        flags,
        b"",
        sequence=sequence,
        acknowledged=(asked.sequence + 1) & 0xFFFFFFFF,
        source_mac=SERVER_MAC,
        target_mac=INSIDE_MAC,
    )
    return replace(said, **fields)  # type: ignore[arg-type]


def half_open(director: Director, family: int = 4) -> int:
    return int(director.tables.load_row(director.dest_number(RIP[family])).half_open)
