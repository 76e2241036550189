"""The ``bfd`` child: BFD sessions over UDP (RFC 5881), whose ups and downs the other children hear of."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from xlvs.daemon.keepalived.child import Context, Event
from xlvs.errors import XlvsError
from xlvs.health.bfd import (
    PORT,
    SOURCE_PORTS,
    Changed,
    Command,
    Diagnostic,
    Malformed,
    Packet,
    Session,
    Standing,
    State,
    Timing,
    parse,
)
from xlvs.keepalived.config import Bfd, Config

REPEAT = 2.0  # seconds: a sibling that was started anew hears of every session within that
TTLS = {4: 255, 6: 64}  # what keepalived sends where no ttl or hoplimit is given
ANY_HOPS = 255  # max_hops that accepts every packet
_AT_ONCE = 64  # datagrams read before the loop gets its turn again
_INT = struct.Struct("i")
# linux/in.h, linux/in6.h: what Python's socket module has no names for, and what they come back as
_IP_RECVTTL = 12
_HOPS = ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, 52))

log = logging.getLogger(__name__)


def timing_of(bfd: Bfd) -> Timing:
    """The session's part of a bfd_instance."""
    return Timing(bfd.min_tx, bfd.min_rx, bfd.idle_tx, bfd.multiplier, bfd.passive)


def _ends(bfd: Bfd) -> tuple[object, ...]:
    """What a session cannot change while it goes on."""
    return bfd.neighbor, bfd.source, bfd.ttl, bfd.passive


def _named_ends(bfd: Bfd) -> list[str]:
    """The same for JSON."""
    return [str(end) for end in _ends(bfd)]


class _Line:
    """A session with the socket that it sends from."""

    def __init__(self, bfd: Bfd, discriminator: int) -> None:
        self.bfd = bfd
        self.port = 0  # that it sends from, 0 before it does
        self.session = Session(timing_of(bfd), discriminator, random.random)
        self.timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None

    @property
    def ttl(self) -> int:
        return TTLS[self.bfd.neighbor.version] if self.bfd.ttl is None else self.bfd.ttl

    def near(self, hops: int | None) -> bool:
        """The packet has not come further than it may (RFC 5881 5)."""
        return self.bfd.max_hops >= ANY_HOPS or (hops is not None and self.ttl - hops <= self.bfd.max_hops)

    def send(self, packet: Packet) -> None:
        """A packet that cannot be sent is a packet lost: the neighbour's silence says the rest."""
        try:
            if self._socket is None:
                self._socket = self._open()
            self._socket.sendto(packet.pack(), (str(self.bfd.neighbor), PORT))
        except OSError as error:
            log.debug("(%s) cannot send: %s", self.bfd.name, error.strerror)
            # The address may not be there yet, or have gone.
            if self._socket is not None and not isinstance(error, BlockingIOError | ConnectionRefusedError):
                self._socket.close()
                self._socket = None

    def _open(self) -> socket.socket:
        six = self.bfd.neighbor.version == 6
        made = socket.socket(
            socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        try:
            if six:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, self.ttl)
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xC0)
            else:
                made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self.ttl)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xC0)
            source = str(self.bfd.source or ("::" if six else "0.0.0.0"))  # noqa: S104 - to send from
            for attempt in range(16):
                port = self.port if self.port and not attempt else random.choice(SOURCE_PORTS)
                try:
                    made.bind((source, port))
                    self.port = port
                    break
                except OSError:
                    if attempt == 15:
                        raise
        except OSError:
            made.close()
            raise
        return made

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class BfdChild:
    """:class:`xlvs.daemon.keepalived.child.Child` for BFD."""

    def __init__(self, context: Context) -> None:
        self._emit = context.emit
        self._lines: dict[str, _Line] = {}
        self._listening: dict[int, socket.socket] = {}
        self._again: asyncio.TimerHandle | None = None
        self._left: dict[str, dict[str, Any]] = {}  # sessions that a process before this one had

    def recall(self, events: Iterable[Event]) -> None:
        """Sessions of a process that died go on, unless that is too long ago."""
        told = (
            (str(event.get("name")), event.get("left")) for event in events if event.get("event") == "bfd"
        )
        self._left = {name: left for name, left in told if isinstance(left, dict)}

    async def start(self, config: Config) -> None:
        """Begin all sessions."""
        await self.reload(config)
        self._repeat()

    async def reload(self, config: Config) -> None:
        """Sessions that are the same go on; other times are agreed with the neighbour."""
        wanted = {bfd.name: bfd for bfd in config.bfds}
        for name, line in list(self._lines.items()):
            if name not in wanted or _ends(wanted[name]) != _ends(line.bfd):
                self._end(self._lines.pop(name))
        self._listen({bfd.neighbor.version for bfd in wanted.values()})
        for name, bfd in wanted.items():
            if name not in self._lines:
                line = self._lines[name] = _Line(bfd, self._discriminator())
                if not self._resumed(line):
                    self._run(line, line.session.start(self._now))
                self._tell(line)
            else:
                line = self._lines[name]
                changed, line.bfd = timing_of(bfd) != timing_of(line.bfd), bfd
                if changed:
                    self._run(line, line.session.change(timing_of(bfd), self._now))
        self._left.clear()

    async def stop(self) -> None:
        """End all sessions, and say that it is wanted."""
        if self._again is not None:
            self._again.cancel()
        for line in self._lines.values():
            self._end(line)
        self._lines.clear()
        self._listen(set())

    def post(self, event: Event) -> None:
        """Nothing of the others' is BFD's business."""

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer ``status``, ``sessions``, ``data`` and ``stats``."""
        match request.get("command"):
            case "status":
                up = sum(line.session.state is State.UP for line in self._lines.values())
                return {"sessions": len(self._lines), "up": up}
            case "sessions":
                return {"sessions": [_shown(line) for line in self._lines.values()]}
            case "data" | "stats":
                return {"text": "".join(_text(line) for line in self._lines.values())}
        raise XlvsError(f"bfd knows no command {request.get('command')}")

    # -- sessions -----------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _resumed(self, line: _Line) -> bool:
        """Go on where a process that died left, while the neighbour may not have missed it yet."""
        left = self._left.get(line.bfd.name)
        if left is None or left["ends"] != _named_ends(line.bfd):
            return False
        standing = Standing(**left["standing"])
        line.port = left["port"]
        if not standing.lasts(line.bfd.min_rx, self._now, REPEAT):
            return False
        log.info("(%s) Going on with the session of the process that died", line.bfd.name)
        self._run(line, line.session.resume(standing, self._now))
        return True

    def _discriminator(self) -> int:
        taken = {line.session.discriminator for line in self._lines.values()}
        while (made := random.randrange(1, 1 << 32)) in taken:
            pass
        return made

    def _end(self, line: _Line) -> None:
        for command in line.session.stop():
            if isinstance(command, Packet):
                line.send(command)
        line.close()

    def _run(self, line: _Line, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Packet):
                line.send(command)
            else:
                self._note(line, command)
        if line.timer is not None:
            line.timer.cancel()
        due = line.session.deadline
        loop = asyncio.get_running_loop()
        line.timer = None if due is None else loop.call_at(due, self._tick, line)

    def _tick(self, line: _Line) -> None:
        line.timer = None
        # What has come is heard before time is up: a process that was stopped finds nobody dead for that.
        for listening in tuple(self._listening.values()):
            self._read(listening)
        due = line.session.deadline
        if due is not None and due <= self._now:
            self._run(line, line.session.tick(self._now))
        elif line.timer is None:
            self._run(line, [])

    def _note(self, line: _Line, change: Changed) -> None:
        why = ""
        if change.state is State.DOWN:
            remote = line.session.remote.diagnostic if line.session.remote else 0
            why = f" (Local diagnostic - {_named(change.diagnostic)}, Remote diagnostic - {_named(remote)})"
        log.info("(%s) Entering %s state%s", line.bfd.name, change.state.name.capitalize(), why)
        if State.UP in (change.state, change.before):
            self._tell(line)

    def _tell(self, line: _Line) -> None:
        up = line.session.state is State.UP
        event: dict[str, object] = {"event": "bfd", "name": line.bfd.name, "up": up}
        if standing := line.session.standing:
            event["left"] = {"standing": asdict(standing), "port": line.port, "ends": _named_ends(line.bfd)}
        self._emit(event)

    def _repeat(self) -> None:
        for line in self._lines.values():
            self._tell(line)
        self._again = asyncio.get_running_loop().call_later(REPEAT, self._repeat)

    # -- what comes in ------------------------------------------------------------------

    def _listen(self, versions: set[int]) -> None:
        loop = asyncio.get_running_loop()
        for version in self._listening.keys() - versions:
            loop.remove_reader(self._listening[version])
            self._listening.pop(version).close()
        for version in versions - self._listening.keys():
            made = _listening(version)
            self._listening[version] = made
            loop.add_reader(made, self._read, made)

    def _read(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, more, _, source = listening.recvmsg(512, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.debug("cannot receive: %s", error.strerror)
                return
            found = (_INT.unpack(value[:4])[0] for level, kind, value in more if (level, kind) in _HOPS)
            hops: int | None = next(found, None)
            self._received(data, str(source[0]).partition("%")[0], hops)

    def _received(self, data: bytes, source: str, hops: int | None) -> None:
        try:
            packet = parse(data)
        except Malformed as error:
            log.debug("Discarding packet from %s (%s)", source, error)
            return
        line = self._find(packet, source)
        if line is None:
            log.debug("Discarding packet from %s (session is not found)", source)
        elif not line.near(hops):
            log.debug("(%s) Discarding packet from %s (ttl %s)", line.bfd.name, source, hops)
        else:
            self._run(line, line.session.receive(packet, self._now))

    def _find(self, packet: Packet, source: str) -> _Line | None:
        """By our discriminator; before the neighbour knows it, by the neighbour's address alone."""
        address = ip_address(source)
        for line in self._lines.values():
            if line.bfd.neighbor == address and packet.your in (0, line.session.discriminator):
                return line
        return None


def _listening(version: int) -> socket.socket:
    six = version == 6
    family = socket.AF_INET6 if six else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        made.bind(("::" if six else "0.0.0.0", PORT))  # noqa: S104 - BFD is heard on every address
    except OSError as error:
        made.close()
        raise XlvsError(f"bfd: cannot listen at UDP port {PORT}: {error.strerror}") from None
    return made


def _named(diagnostic: int) -> str:
    names = {
        Diagnostic.NONE: "No Diagnostic",
        Diagnostic.EXPIRED: "Control Detection Time Expired",
        Diagnostic.NEIGHBOR_DOWN: "Neighbor Signaled Session Down",
        Diagnostic.ADMIN_DOWN: "Administratively Down",
    }
    return next((name for number, name in names.items() if number == diagnostic), str(diagnostic))


def _shown(line: _Line) -> dict[str, object]:
    session, remote = line.session, line.session.remote
    return {
        "name": line.bfd.name,
        "neighbor": str(line.bfd.neighbor),
        "state": session.state.name,
        "diagnostic": _named(session.diagnostic),
        "discriminator": session.discriminator,
        "remote_discriminator": remote.my if remote else 0,
        "interval": session.interval,
        "detection": session.detection,
        "sent": session.sent,
        "received": session.received,
        "went_down": session.went_down,
    }


def _text(line: _Line) -> str:
    lines = (f"   {name} = {value}" for name, value in _shown(line).items() if name != "name")
    return "\n".join((f" BFD Instance = {line.bfd.name}", *lines, ""))
