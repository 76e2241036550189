"""What hostile frames are made from: good ones of every flow, and ones that are wrong in their structure.

Single bytes are left to mutate.bpf.c. Everything here is drawn from one random.Random.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.packet.cookies import Offer, cookie_for
from tests.packet.director import INSIDE_MAC, SERVER_MAC
from tests.packet.frames import ICMP, ICMP6, TCP, UDP, Datagram, ethernet, icmp_error, ip
from tests.packet.handshake import KEY
from tests.packet.hostile.site import CLIENTS, KINDS, SCTP, SERVERS, VIP, Flow, version
from tests.packet.options import toa
from tests.packet.sctp import CHUNKS, Association

EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140, 253)
LONGEST = 1792
ERRORS = {
    4: ((3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0), (8, 0)),
    6: ((1, 4), (2, 0), (3, 0), (4, 1), (128, 0), (135, 0)),
}
FTP_LINES = (
    b"PASV\r\n",
    b"EPSV\r\n",
    b"EPSV 1\r\n",
    b"PORT 198,18,0,1,19,137\r\n",
    b"PORT 1,2,3,4,5",
    b"EPRT |1|198.18.0.1|5001|\r\n",
    b"EPRT |2|fd18::1|5001|\r\n",
    b"227 Entering Passive Mode (10,19,0,11,4,1)\r\n",
    b"227 (255,255,255,255,255,255)" + b"x" * 900,
    b"229 (|||1025|)\r\n",
    b"227 " + b"(" * 1000,
    b"EPRT |2|" + b":" * 40,
    b"227 0,0,0,0,0,0,",
    b"PORT " + b"9" * 1200,
)


class Corpus:
    """Frames of flows, varied in some ways or in all; cookies in them are of the given period."""

    def __init__(self, flows: Sequence[Flow], seed: int, period: int, ways: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)
        self._flows, self._period = flows, period
        chosen: Sequence[Callable[[], bytes]] = tuple(getattr(self, way) for way in ways)
        self._ways = chosen or (
            self.plain, self.plain, self.tower, self.options, self.fragment, self.extended, self.error,
            self.nonsense_error, self.lengths, self.long, self.shaky_tcp, self.ftp, self.chunks, self.ipsec,
            self.wrapped, self.new_client, self.noise, self.life, self.handshake, self.claim, self.new_client,
        )  # fmt: skip

    def frames(self, count: int) -> list[bytes]:
        """So many frames, every way in turn."""
        return [self._ways[n % len(self._ways)]()[:LONGEST] for n in range(count)]

    # -- pieces ----------------------------------------------------------------------------

    def message(self, *protocols: int, family: int = 0) -> Datagram | Association:
        """A packet of some flow, from either end."""
        while True:
            flow = self._random.choice(self._flows)
            chosen = flow.reply if flow.reply is not None and self._random.random() < 0.4 else flow.request
            protocol = chosen.protocol if isinstance(chosen, Datagram) else SCTP
            if (not protocols or protocol in protocols) and family in (0, flow.family):
                return chosen

    def datagram(self, *protocols: int, family: int = 0) -> Datagram:
        chosen = self.message(*(protocols or (TCP, UDP)), family=family)
        assert isinstance(chosen, Datagram)
        if chosen.protocol == TCP and self._random.random() < 0.5:
            flags = "".join(flag for flag in "FSRPA" if self._random.random() < 0.35)
            chosen = replace(chosen, flags=flags, sequence=self._random.getrandbits(32))
        return chosen

    def garbage(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randrange(most + 1))

    def link(self, packet: bytes, kind: int | None = None) -> bytes:
        some = self.message()
        return ethernet(packet, some.target_mac, some.source_mac, ethertype=kind)

    # -- ways ------------------------------------------------------------------------------

    def plain(self) -> bytes:
        return self.message().frame() + (bytes(30) if self._random.random() < 0.2 else b"")

    def new_client(self) -> bytes:
        """A flow's first packet from somebody else."""
        flow = self._random.choice(self._flows)
        source = self._random.choice([flow.request.source, "198.18.77.1" if flow.family == 4 else "fd18::77"])
        begin = replace(flow.request, sport=self._random.randrange(65536), source=source)
        if isinstance(begin, Datagram) and begin.protocol == TCP:
            begin = replace(begin, flags="S")
        return begin.frame()

    def handshake(self) -> bytes:
        """SYNPROXY's steps, in any order: few clients take them, so that some fit together."""
        kind = self._random.choice([k for k in KINDS if k.guarded and not k.tells])
        family = self._random.choice([4, 6])
        ends = CLIENTS[family].format(1 + self._random.randrange(2)), VIP[family]
        begin = Datagram(*ends, 50_000 + self._random.randrange(2), kind.port, TCP, "S", b"")
        offer = Offer(1460, 7, sack=True)
        cookie = cookie_for(KEY, begin, offer.within(family), self._period)
        following = begin.sequence + 1
        client = replace(begin, flags="A", sequence=following, acknowledged=cookie + 1 & 0xFFFFFFFF)
        server = replace(
            begin,
            source=SERVERS[family].format(11),
            target=begin.source,
            sport=kind.server_port,
            dport=begin.sport,
            flags="SA",
            acknowledged=following,
            source_mac=SERVER_MAC,
            target_mac=INSIDE_MAC,
        )
        steps = (
            replace(begin, tcp_options=offer.options()),
            client,
            replace(client, flags="PA", payload=b"data"),
            replace(client, flags="FA"),
            replace(client, flags="R"),
            server,
            replace(server, tcp_options=offer.options()),
            replace(server, flags="RA", sequence=0),
            replace(server, flags="A", acknowledged=4242),
        )
        return self._random.choice(steps).frame()

    def claim(self) -> bytes:
        """Options that say who the client is, from the client."""
        some = self.datagram(TCP)
        forged = [toa("192.0.2.66", 666), toa("192.0.2.66", 666, 200), toa("2001:db8::66", 666), b"\xfe\x08"]
        options = b"".join(self._random.choice([*forged, b"\x01", b"\x05\x0a" + bytes(8)]) for _ in range(3))
        options = options[: self._random.choice([8, 12, 20, 40])]
        return replace(some, tcp_options=options + b"\x01" * (-len(options) % 4)).frame()

    def life(self) -> bytes:
        """Times to live that end here, and bytes that say they are for nobody."""
        return replace(self.message(), ttl=self._random.choice([0, 1, 2, 255])).frame()

    def tower(self) -> bytes:
        frame = self.message().frame()
        tags = b"".join(
            struct.pack("!HH", self._random.choice([0x8100, 0x88A8, 0x9100]), self._random.getrandbits(16))
            for _ in range(self._random.randrange(1, 8))
        )
        return frame[:12] + tags + frame[12:]

    def options(self) -> bytes:
        """IPv4 options: of all lengths, sense and nonsense."""
        words = self._random.randrange(11)
        some = self._random.choice([b"\x01" * 4 * words, self._random.randbytes(4 * words)])
        return replace(self.datagram(family=4), options=some).frame()

    def fragment(self) -> bytes:
        """Firsts, later ones, overlapping, tiny and over-long ones; often of few datagrams."""
        offset = self._random.choice([0, 0, 0, 1, 2, 3, 8, 100, 8190, 8191, self._random.randrange(8192)])
        more = self._random.random() < 0.7
        number = self._random.randrange(8)
        some = self.message()
        body = some.segment()[offset * 8 :] if offset < 3 else some.segment()
        body += bytes(self._random.choice([0, 8, 64, 1000]))
        body = body[: self._random.choice([4, 7, 8, 16, 24, 800, 1400])]
        protocol = some.protocol if isinstance(some, Datagram) else SCTP
        if version(some.source) == 4:
            packet = ip(
                some.source,
                some.target,
                protocol,
                body,
                identity=number,
                fragment=more << 13 | offset & 0x1FFF,
            )
        else:
            head = struct.pack("!BBHI", protocol, 0, (offset & 0x1FFF) << 3 | more, number)
            packet = ip(some.source, some.target, 44, head + body)
        return ethernet(packet, some.target_mac, some.source_mac)

    def extended(self) -> bytes:
        """IPv6 with chains of extension headers, some of which lead nowhere."""
        some = self.message(family=6)
        protocol = some.protocol if isinstance(some, Datagram) else SCTP
        chain = [self._random.choice(EXTENSIONS) for _ in range(self._random.randrange(1, 12))]
        body = b""
        for at, kind in enumerate(chain):
            following = chain[at + 1] if at + 1 < len(chain) else protocol
            units = self._random.choice([0, 0, 0, 1, 2, 30, 255])
            size = 8 if kind == 44 else (units + 2) * 4 if kind == 51 else (units + 1) * 8
            filling = self._random.randbytes(size) if self._random.random() < 0.3 else bytes(size)
            if kind == 44:
                filling = bytes(2) + struct.pack("!HI", self._random.choice([0, 1, 8, 9, 0xFFF8]), at)
                body += bytes([following, 0]) + filling
            else:
                body += bytes([following, units]) + filling[2:size]
        packet = ip(some.source, some.target, chain[0], (body + some.segment())[:1600])
        return ethernet(packet, some.target_mac, some.source_mac)

    def error(self) -> bytes:
        """ICMP errors about packets that passed."""
        about = self.message()
        family = version(about.source)
        quote = about.packet()[: self._random.choice([20, 28, 40, 48, 60, 1280])]
        kind, code = self._random.choice(ERRORS[family])
        source = self._random.choice([about.target, "198.18.0.250" if family == 4 else "fd18::250"])
        return ethernet(
            icmp_error(source, about.source, kind, code, self._random.getrandbits(16), quote),
            about.source_mac,
            about.target_mac,
        )

    def nonsense_error(self) -> bytes:
        """ICMP errors that quote what cannot be."""
        family = self._random.choice([4, 6])
        about = self.message(family=family)
        quote = self._random.choice(
            [
                self.garbage(80),
                about.packet()[: self._random.randrange(50)],
                icmp_error(about.source, about.target, 3 if family == 4 else 1, 0, 0, about.packet()[:28]),
                self.extended()[14:] if family == 6 else self.options()[14:],
                self.fragment()[14:],
                self.message(family=10 - family).packet(),
            ]
        )
        kind, code = self._random.choice(ERRORS[family])
        return self.link(icmp_error(about.target, about.source, kind, code, 0, quote[:1200]))

    def lengths(self) -> bytes:
        """Lengths that do not fit, of IP and of UDP."""
        some = self.message()
        segment = bytearray(some.segment())
        protocol = some.protocol if isinstance(some, Datagram) else SCTP
        if protocol == UDP and self._random.random() < 0.5:
            segment[4:6] = self._random.choice([0, 7, 8, 9, 65535, len(segment) + 1]).to_bytes(2, "big")
        said = self._random.choice(
            [0, 19, 20, 27, 28, 39, 40, 41, 60, 65535, len(segment) + 21, len(segment) + 19]
        )
        packet = ip(some.source, some.target, protocol, bytes(segment), length=said)
        return ethernet(packet + self.garbage(40), some.target_mac, some.source_mac)

    def long(self) -> bytes:
        """Near and above what the next hop takes."""
        some = self.datagram(family=self._random.choice([4, 6]))
        size = self._random.choice([1300, 1400, 1432, 1440, 1452, 1460, 1472, 1500, 1650])
        return replace(some, payload=bytes(size), fragment=self._random.choice([0, 0x4000])).frame()

    def shaky_tcp(self) -> bytes:
        """TCP options and data offsets of all kinds."""
        some = self.datagram(TCP)
        wanted = self._random.randrange(0, 44, 4)
        kinds = [
            b"\x01",
            b"\x00",
            b"\x05\x0a" + self._random.randbytes(8),
            b"\x05" + self.garbage(3),
            b"\xfd\x00",
            b"\x02\x04\x05\xb4",
        ]
        area = b"".join(self._random.choice(kinds) for _ in range(20))[:wanted]
        frame = bytearray(replace(some, tcp_options=area.ljust(wanted, b"\x01")).frame())
        at = 14 + (20 if version(some.source) == 4 else 40) + 12
        if self._random.random() < 0.4:
            frame[at] = self._random.getrandbits(8)
        return bytes(frame)

    def ftp(self) -> bytes:
        """Lines of FTP, whole and cut, in either direction, with sums that hold."""
        while True:
            some = self.datagram(TCP)
            if 21 in (some.sport, some.dport):
                break
        line = self._random.choice(FTP_LINES)
        line = line[: self._random.randrange(1, len(line) + 1)] if self._random.random() < 0.4 else line
        return replace(some, payload=line, flags="PA").frame()

    def chunks(self) -> bytes:
        """SCTP with chunks of wrong lengths."""
        some = self.message(SCTP)
        assert isinstance(some, Association)
        pieces = b""
        for _ in range(self._random.randrange(6)):
            body = self.garbage(24)
            said = self._random.choice([4 + len(body), 0, 3, 65535, 4])
            kind = self._random.choice([*CHUNKS.values(), self._random.getrandbits(8)])
            pieces += struct.pack("!BBH", kind, self._random.getrandbits(2), said) + body
        return replace(some, chunks=pieces, sum=self._random.choice(["whole", "partial", "wrong"])).frame()

    def ipsec(self) -> bytes:
        """AH and ESP between all kinds of ends."""
        some = self.message()
        return self.link(ip(some.source, some.target, self._random.choice([50, 51]), self.garbage(60)))

    def wrapped(self) -> bytes:
        """Tunnelled packets, which are not the director's to open."""
        inner = self.message().packet()
        outer = self.message()
        protocol = self._random.choice([4, 41, 47, 17])
        return self.link(ip(outer.source, outer.target, protocol, self.garbage(8) + inner))

    def noise(self) -> bytes:
        """Anything behind a plausible beginning."""
        family = self._random.choice([4, 6])
        protocol = self._random.choice([ICMP, ICMP6, TCP, UDP, SCTP, 50, 51, 0, 255])
        client = "198.18.0.1" if family == 4 else "fd18::1"
        ends = [client, VIP[family]]
        self._random.shuffle(ends)
        kind = self._random.choice([None, None, None, 0x0806, 0x86DD, 0x0800, 0x8847])
        return self.link(ip(ends[0], ends[1], protocol, self.garbage(200)), kind)
