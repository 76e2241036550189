"""FTP control connections: each way to announce another connection, and what only looks like one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from tests.conformance.traffic.packets import Address, Network, Segment, tcp_packet
from tests.conformance.traffic.scenarios.common import pair, service
from tests.conformance.traffic.stage import Scenario, Stage
from tests.conformance.traffic.world import INSIDE, NAMES, OUTSIDE, Frame

CONTROL, DATA = 21, 20
LISTED = ("-Ln", "-Lnc")
ISN, SERVER_ISN = 1000, 70000
DATA_PORT = 50001
MSS = bytes.fromhex("020405b4")
SACK_PERMITTED = MSS + bytes.fromhex("01010402")


@dataclass
class End:
    """One end of a TCP connection: what it sends next, and what it has got of the other's stream."""

    address: Address
    port: int
    sequence: int
    acknowledged: int = 0


@dataclass(frozen=True)
class _Got:
    """A segment as it came out of the director."""

    source: Address
    sport: int
    dport: int
    sequence: int
    end: int


def _read(content: bytes) -> _Got:
    packet = content[14:]
    if packet[0] >> 4 == 4:
        size, source, length = (packet[0] & 15) * 4, packet[12:16], int.from_bytes(packet[2:4], "big")
    else:
        size, source, length = 40, packet[8:24], 40 + int.from_bytes(packet[4:6], "big")
    sport, dport, sequence, _, offset, flags = struct.unpack("!HHIIBB", packet[size : size + 14])
    taken = length - size - (offset >> 4) * 4 + (flags & 1) + (flags >> 1 & 1)
    return _Got(ip_address(source), sport, dport, sequence, sequence + taken)


class Talk:
    """A TCP connection through the director, as both ends see it. Who opens it is up to the scenario."""

    def __init__(self, stage: Stage, client: End, vip: tuple[Address, int]) -> None:
        self.stage, self.client = stage, client
        self.vip = End(*vip, 0)  # what the client takes for the server
        self.server = End(vip[0], 0, SERVER_ISN)
        self.seen = (client.address, client.port)  # what the server takes for the client
        self.name = ""
        self.packets = 0

    def says(
        self, flags: str, data: bytes = b"", again: int = 0, options: bytes = b"", damage: int = 0
    ) -> None:
        """The client sends; ``again``: bytes to go back first (a retransmission)."""
        c = self.client
        segment = Segment(
            flags, c.sequence - again, c.acknowledged if "A" in flags else 0, 512, options, data, damage
        )
        ends = (c.address, c.port), (self.vip.address, self.vip.port)
        # What is replaced by a new connection is gone after the kernel's next timer tick.
        frames = self.stage.outside(tcp_packet(*ends, segment, self._network()), 0.05 if "S" in flags else 0)
        if not again:
            c.sequence += len(data) + sum(flag in flags for flag in "SF")
        self._arrive(frames, INSIDE)

    def hears(
        self, flags: str, data: bytes = b"", again: int = 0, options: bytes = b"", damage: int = 0
    ) -> None:
        """The server sends."""
        if not self.name:
            self.stage.lines.append("  no server has seen this client")
            return
        s = self.server
        segment = Segment(
            flags, s.sequence - again, s.acknowledged if "A" in flags else 0, 512, options, data, damage
        )
        frames = self.stage.inside(
            self.name, tcp_packet((s.address, s.port), self.seen, segment, self._network())
        )
        if not again:
            s.sequence += len(data) + sum(flag in flags for flag in "SF")
        self._arrive(frames, OUTSIDE)

    def _arrive(self, frames: list[Frame], side: str) -> None:
        for frame in frames:
            if frame.side != side or frame.content[14 + (9 if frame.content[14] >> 4 == 4 else 6)] != 6:
                continue
            got = _read(frame.content)
            if side == INSIDE:
                self.name = NAMES.get(frame.content[:6], "nobody")
                packet = frame.content[14:]
                target = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
                self.server.address, self.server.port = ip_address(target), got.dport
                self.server.acknowledged = max(self.server.acknowledged, got.end)
            else:
                self.vip.address, self.vip.port = got.source, got.sport
                self.client.acknowledged = max(self.client.acknowledged, got.end)

    def open(self, options: bytes = MSS) -> None:
        self.says("S", options=options)
        self.hears("SA", options=options)
        self.says("A")

    def closes(self) -> None:
        """The client closes first."""
        self.says("FA")
        self.hears("FA")
        self.says("A")

    def shuts(self) -> None:
        """The server closes first."""
        self.hears("FA")
        self.says("FA")
        self.hears("A")

    def asks(self, command: str, reply: str = "") -> None:
        self.says("PA", command.encode())
        self.hears("PA" if reply else "A", reply.encode())
        if reply:
            self.says("A")

    def _network(self) -> Network:
        self.packets += 1
        return Network(identity=self.packets)


def client(stage: Stage, number: int = 0) -> Address:
    """A client that no other scenario has."""
    return stage.client(stage.own_client() + 60001 * number)


def control(stage: Stage, port: int = 40000, vport: int = CONTROL, options: bytes = MSS) -> Talk:
    """A control connection, opened and welcomed."""
    talk = Talk(stage, End(client(stage), port, ISN), (stage.vip, vport))
    talk.open(options)
    talk.hears("PA", b"220 ready\r\n")
    talk.says("A")
    talk.asks("USER ftp\r\n", "230 in\r\n")
    return talk


def commas(address: Address, port: int) -> str:
    return ",".join(map(str, [*address.packed, port >> 8, port & 255]))


def data(stage: Stage, of: Talk, sport: int, port: int, other: Address | None = None) -> Talk:
    """The client opens a data connection, and gets something."""
    talk = Talk(stage, End(other or of.client.address, sport, 5 * ISN), (stage.vip, port))
    talk.says("S", options=MSS)
    if not talk.name:
        return talk
    talk.hears("SA", options=MSS)
    talk.says("A")
    talk.hears("PA", b"drwxr-xr-x pub\r\n")
    talk.says("A")
    return talk


def called_back(stage: Stage, of: Talk, port: int) -> Talk:
    """The server opens a data connection to the client's port, and sends something."""
    talk = Talk(stage, End(of.client.address, port, 5 * ISN), (stage.vip, DATA))
    talk.name, talk.server.address, talk.server.port = of.name, of.server.address, of.server.port - 1
    talk.hears("S", options=MSS)
    talk.says("SA", options=MSS)
    talk.hears("A")
    talk.hears("PA", b"drwxr-xr-x pub\r\n")
    talk.says("A")
    return talk


def passive(stage: Stage) -> None:
    talk = control(stage)
    talk.asks("PASV\r\n", f"227 Entering Passive Mode ({commas(talk.server.address, DATA_PORT)}).\r\n")
    transfer = data(stage, talk, 41000, DATA_PORT)
    stage.listings("-Lnc")
    talk.asks("LIST\r\n", "150 here\r\n")
    transfer.shuts()
    talk.hears("PA", b"226 done\r\n")
    talk.says("A")
    talk.asks("PASV\r\n", f"227 Entering Passive Mode ({commas(talk.server.address, 1030)}).\r\n")
    transfer = data(stage, talk, 41001, 1030)
    transfer.closes()
    talk.asks("NOOP\r\n", "200 fine\r\n")
    talk.asks("QUIT\r\n", "221 bye\r\n")
    talk.shuts()


def passive_extended(stage: Stage) -> None:
    talk = control(stage)
    one = 1 if stage.family == 4 else 2
    for number, (command, reply) in enumerate(
        (
            ("EPSV\r\n", "229 Extended Passive Mode (|||{port}|)\r\n"),
            ("EPSV {one}\r\n", "229 Extended Passive Mode (|||{port}|)\r\n"),
            ("epsv\r\n", "229 Extended (|{one}|{server}|{port}|) with address\r\n"),
            ("EPSV\r\n", "229 Extended (!!!{port}!)\r\n"),
            ("EPSV {two}\r\n", "229 Extended (|||{port}|)\r\n"),
            ("EPSV ALL\r\n", "200 only EPSV now\r\n"),
            ("EPSV\r\n", "229 Extended |||{port}|\r\n"),
            ("EPSV\r\n", "229 Extended (|{two}|{server}|{port}|)\r\n"),
        )
    ):
        port = DATA_PORT + number
        words = {"port": port, "one": one, "two": 3 - one, "server": talk.server.address}
        talk.asks(command.format_map(words), reply.format_map(words))
        data(stage, talk, 41000 + number, port)
    stage.listings("-Lnc")


def active(stage: Stage) -> None:
    talk = control(stage)
    mine = talk.client.address
    if stage.family == 4:
        talk.asks(f"PORT {commas(mine, 5001)}\r\n", "200 PORT\r\n")
        stage.listings("-Lnc")
        transfer = called_back(stage, talk, 5001)
        transfer.shuts()
        talk.asks(f"port  {commas(mine, 5002)}\r\n", "200 PORT\r\n")
        called_back(stage, talk, 5002).shuts()
        talk.asks(f"PORT {commas(mine, 5003)}\n", "200 PORT\r\n")
        called_back(stage, talk, 5003)
        talk.asks(f"PORT{commas(mine, 5013)}\r\n", "500 what\r\n")
        talk.asks(f" PORT {commas(mine, 5014)}\r\n", "500 what\r\n")
        talk.asks(f"NOOP\r\nPORT {commas(mine, 5015)}\r\n", "500 what\r\n")
        talk.asks(f"PORT {commas(mine, 5016)}", "")
        talk.asks("PORT 1,2,3,4,5\r\n", "500 what\r\n")
        talk.asks("PORT 1,2,3,4,5,6,7\r\n", "500 what\r\n")
        talk.asks("PORT 300,2,3,4,5,6\r\n", "500 what\r\n")
        talk.asks("PO", "")
        talk.asks("RT 1,2,3,4,5,6\r\n", "500 what\r\n")
    one = 1 if stage.family == 4 else 2
    talk.asks(f"EPRT |{one}|{mine}|5004|\r\n", "200 EPRT\r\n")
    called_back(stage, talk, 5004)
    talk.asks(f"eprt  !{one}!{mine}!5005!\r\n", "200 EPRT\r\n")
    called_back(stage, talk, 5005)
    talk.asks(f"EPRT |{3 - one}|{mine}|5006|\r\n", "522 no\r\n")
    talk.asks(f"EPRT |{one}|{mine}|0|\r\n", "522 no\r\n")
    talk.asks(f"EPRT |{one}|{mine}|5007\r\n", "522 no\r\n")
    talk.asks(f"EPRT |{one}||5008|\r\n", "522 no\r\n")
    talk.asks(f"EPRT |{one}|{mine}|70000|\r\n", "522 no\r\n")
    talk.asks(f"EPRT |{one}|{mine}x|5009|\r\n", "522 no\r\n")
    stage.listings("-Lnc")


ODD4 = (
    "PORT ,,,,,\r\n",
    "PORT 1,,2,3,4,5\r\n",
    "PORT 0200,1,1,1,1,1\r\n",
    "PORT 1,1,1,1,1,256\r\n",
    "PORT 1,1,1,1,0,0\r\n",
    "PORT 1, 1,1,1,1,1\r\n",
    "PORT x1,1,1,1,1,2\r\n",
    "PORTx1,1,1,1,1,3 and more",
    "PORT 1,1,1,1,1,4,",
    "PORT 1,1,1,1,1,5x",
    "PORT 00000000001,1,1,1,1,6\r\n",
    "EPRT |1|1.2.3|5|\r\n",
    "EPRT |1|1.2.3.4.5|5|\r\n",
    "EPRT |1|1.2.3.4|005008|\r\n",
    "EPRT |1|01.2.3.4|6|\r\n",
    "EPRT |1|1.2.3.004|7|\r\n",
    "EPRT |1|1.2.3.256|8|\r\n",
    "EPRT |1|1.2.3.4|65536|\r\n",
    "EPRT |1|1.2.3.4|65535|",
    "EPRT x1x1.2.3.4x9xyz",
    "EPRT |11|1.2.3.4|10|\r\n",
    "EPRT    |1|1.2.3.4|11|\r\n",
    "EPRT|1|1.2.3.4|12|\r\n",
    "EPRT\t|1|1.2.3.4|13|\r\n",
    "EPRT what |1|1.2.3.4|14|\r\n",
    "eprt |1|1.2.3.4| 15|\r\n",
    "PASV\r\nPORT 1,1,1,1,2,1\r\n",
    "PORT 1,1,1,1,2,2\r\nPASV\r\n",
    "EPSV 2\r\nPORT 1,1,1,1,2,3\r\n",
    "PORT 1,1,1,1,2,4\r\nEPSV 2\r\n",
    "PORT 1,1,1,1,2,5\r\nEPRT |1|1.2.3.4|16|\r\n",
    "PORT 1,1,1,1,2\r\nEPRT |1|1.2.3.4|17|\r\n",
)
ODD6 = (
    "PORT 1,2,3,4,5,6\r\n",
    "EPRT |2|::1|5|\r\n",
    "EPRT |2|::|6|\r\n",
    "EPRT |2|1::|7|\r\n",
    "EPRT |2|1:2:3:4:5:6:7:8|8|\r\n",
    "EPRT |2|1:2:3:4:5:6:7|9|\r\n",
    "EPRT |2|1:2:3:4:5:6:7:8:9|10|\r\n",
    "EPRT |2|1::2::3|11|\r\n",
    "EPRT |2|:::1|12|\r\n",
    "EPRT |2|:1::2|13|\r\n",
    "EPRT |2|1::2:|14|\r\n",
    "EPRT |2|00001::2|15|\r\n",
    "EPRT |2|10000::2|16|\r\n",
    "EPRT |2|ABCD:ef01::2|17|\r\n",
    "EPRT |2|g::2|18|\r\n",
    "EPRT |2|::ffff:1.2.3.4|19|\r\n",
    "EPRT |2|1.2.3.4|20|\r\n",
    "EPRT |2|1:2:3:4:5:6:7::|21|\r\n",
    "EPRT |2|::1:2:3:4:5:6:7|22|\r\n",
    "EPRT |2|::1:2:3:4:5:6:7:8|23|\r\n",
    "EPRT |2|1:2:3:4:5:6:7:8::|24|\r\n",
    "EPRT |2|1:2:3:4::5:6:7:8|25|\r\n",
    "EPRT |2|1|26|\r\n",
    "EPRT |2|1:|27|\r\n",
    "EPRT |2|:|28|\r\n",
    "EPRT |2|::12345|29|\r\n",
    "EPRT |2|::1%eth0|30|\r\n",
    "PASV\r\nEPRT |2|::1|31|\r\n",
    "EPSV 1\r\nEPRT |2|::1|32|\r\n",
    "EPSV\r\nEPRT |2|::1|33|\r\n",
)


def odd_commands(stage: Stage) -> None:
    talk = control(stage)
    for command in ODD4 if stage.family == 4 else ODD6:
        talk.asks(command)


def again(stage: Stage) -> None:
    """The same client port again, after the end of the connection."""
    talk = control(stage)
    talk.closes()
    for _ in range(2):
        anew = Talk(stage, End(talk.client.address, talk.client.port, 9 * ISN), (stage.vip, CONTROL))
        anew.says("S", options=MSS)
    anew.hears("SA")
    anew.says("A")
    anew.asks("PASV\r\n", f"227 ({commas(anew.server.address, DATA_PORT)})\r\n")
    anew.closes()
    anew = Talk(stage, End(talk.client.address, talk.client.port, 9 * ISN), (stage.vip, CONTROL))
    anew.says("S", options=MSS)
    anew.says("S", options=MSS)


def odd_replies(stage: Stage) -> None:
    talk = control(stage)
    server = talk.server.address
    replies = (
        ("PASV\r\n", "227 Entering Passive Mode {p}\r\n"),  # without parentheses
        ("PASV\r\n", "227 ={p}\r\n"),
        ("PASV\r\n", "227 2nd ({p})\r\n"),
        ("PASV\r\n", "227 Entering Passive Mode (({p}))\r\n"),
        ("PASV\r\n", "227-Entering Passive Mode ({p})\r\n"),
        ("PASV\r\n", "200 first\r\n227 Entering Passive Mode ({p})\r\n"),
        ("PASV\r\n", "227 Entering Passive Mode ({p}"),
        ("PASV\r\n", ")\r\n227 Entering Passive Mode ({p})\r\n"),
        ("pasv\r\n", "227 lower ({p}). and what follows 227 (1,2,3,4,5,6)\r\n"),
        ("PASV\n", "227 no CR ({p})\r\n"),
        ("NOOP\r\nPASV\r\n", "227 Entering ({p})\r\n"),
        ("NOOP\r\n", "227 not asked for ({p})\r\n"),
        ("PA", "227 half asked for ({p})\r\n"),
        ("SV\r\n", "227 half asked for ({p})\r\n"),
        ("PASV\r\n", "227 elsewhere (10,19,0,12,195,{n})\r\n"),
        ("PASV\r\n", "229 Extended Passive Mode (|||{port}|)\r\n"),
        ("XPASV\r\n", "227 Entering ({p})\r\n"),
    )
    for number, (command, reply) in enumerate(replies):
        port = DATA_PORT + number
        talk.asks(command, reply.format(p=commas(server, port), n=number, port=port))
    stage.listings("-Lnc")


def retransmitted(stage: Stage) -> None:
    talk = control(stage, options=SACK_PERMITTED)
    reply = f"227 Entering Passive Mode ({commas(talk.server.address, DATA_PORT)}).\r\n".encode()
    talk.says("PA", b"PASV\r\n")
    talk.hears("PA", reply)
    talk.says("PA", b"PASV\r\n", again=6)
    talk.says("A")
    talk.hears("PA", b"150 one\r\n")
    talk.hears("PA", b"226 two\r\n")
    known = talk.client.acknowledged
    block = struct.pack("!BBBBII", 1, 1, 5, 10, known - 9, known)
    talk.client.acknowledged -= 18
    talk.says("A", options=block)
    old = talk.client.acknowledged
    talk.client.acknowledged -= 10  # within the rewritten reply
    talk.says("A", options=struct.pack("!BBBBII", 1, 1, 5, 10, old - 5, old))
    talk.client.acknowledged = known
    talk.hears("PA", b"150 one\r\n", again=18)
    talk.says("A")
    talk.asks("PASV\r\n", reply.decode())
    talk.asks("PASV\r\n", reply.decode())
    data(stage, talk, 41000, DATA_PORT)


def strangers(stage: Stage) -> None:
    """Who else may use what was announced."""
    talk = control(stage)
    reply = f"227 Entering Passive Mode ({commas(talk.server.address, DATA_PORT)}).\r\n"
    talk.asks("PASV\r\n", reply)
    data(stage, talk, 41000, DATA_PORT, client(stage, 2))
    data(stage, talk, 41000, DATA_PORT + 1)
    data(stage, talk, 41000, DATA_PORT)
    data(stage, talk, 41001, DATA_PORT)
    other = control(stage, 40001)
    other.asks("PASV\r\n", f"227 Entering Passive Mode ({commas(other.server.address, DATA_PORT)}).\r\n")
    talk.asks("PASV\r\n", reply)
    data(stage, talk, 41002, DATA_PORT)
    data(stage, talk, 41003, DATA_PORT)
    if stage.family == 4:
        talk.asks(f"PORT {commas(client(stage, 3), 5001)}\r\n", "200 PORT\r\n")
        third = Talk(stage, End(talk.client.address, 40000, ISN), (stage.vip, CONTROL))
        third.client.address = client(stage, 3)
        third.name, third.server = talk.name, talk.server
        called_back(stage, third, 5001)


def late(stage: Stage) -> None:
    """Commands in segments that move the state, or are damaged."""
    talk = control(stage)
    talk.says("PA", b"PASV\r\n", damage=1)
    talk.says("PA", b"PASV\r\n", again=6)
    reply = f"227 Entering Passive Mode ({commas(talk.server.address, DATA_PORT)}).\r\n".encode()
    talk.hears("PA", reply, damage=1)
    talk.hears("PA", reply, again=len(reply))
    talk.hears("A", damage=1)
    talk.says("A", damage=1)
    talk.says("A")
    talk.says("FPA", b"PASV\r\n")
    talk.hears("FPA", reply)
    talk.says("A")
    other = control(stage, 40002)
    other.says("PA", b"PASV\r\n")
    other.hears("FPA", f"227 ({commas(other.server.address, 1044)})\r\n".encode())
    other.says("A")
    data(stage, other, 41005, 1044)


PLAYS: dict[str, tuple[Callable[[Stage], None], tuple[int, ...]]] = {
    "passive": (passive, (4,)),
    "extended passive": (passive_extended, (4, 6)),
    "active": (active, (4, 6)),
    "odd commands": (odd_commands, (4, 6)),
    "odd replies": (odd_replies, (4,)),
    "repeated segments": (retransmitted, (4,)),
    "strangers": (strangers, (4,)),
    "damaged or late": (late, (4,)),
    "an old port again": (again, (4,)),
}


def scenarios() -> Iterator[Scenario]:
    for name, (play, families) in PLAYS.items():
        for family in families:
            rules = service("-t", CONTROL)
            yield Scenario(
                f"nat{family} ftp lines: {name}", family, rules, play, "-m", listed=LISTED, world="ftp"
            )
    for name, play in (("passive", passive), ("active", active)):
        rules = pair("-t", CONTROL, "-m", 2121)
        text = f"nat4 ftp lines: {name} on another port"
        yield Scenario(text, 4, rules, play, "-m", listed=LISTED, world="ftp")
    rules = service("-t", CONTROL, options="-p 100")
    yield Scenario("nat4 ftp lines: passive, persistent", 4, rules, passive, "-m", listed=LISTED, world="ftp")
