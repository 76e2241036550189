"""Bidirectional forwarding detection (RFC 5880), asynchronous mode without authentication: codec and session.

A session takes packets and the time in, and returns what is to be sent and what has changed. Times are
seconds of a clock that nobody sets; on the wire they are microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

PORT = 3784  # RFC 5881 4
SOURCE_PORTS = range(49152, 65536)  # RFC 5881 4
SLOW = 1.0  # the least interval of a session that is not up (RFC 5880 6.8.3)

_LAYOUT = struct.Struct("!BBBBIIIII")
_VERSION = 1
_MICROSECONDS = 1_000_000
_MOST = 0xFFFFFFFF
_POLL, _FINAL, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x04, 0x02, 0x01


class State(IntEnum):
    """RFC 5880 4.1."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(IntEnum):
    """Why a session went down (RFC 5880 4.1); only those that a session of ours has."""

    NONE = 0
    EXPIRED = 1
    NEIGHBOR_DOWN = 3
    ADMIN_DOWN = 7


class Malformed(ValueError):
    """No control packet, or one that RFC 5880 6.8.6 has discarded."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A control packet's mandatory section. ``min_tx`` and ``min_rx`` are in seconds."""

    state: State
    my: int
    your: int
    multiplier: int
    min_tx: float
    min_rx: float
    diagnostic: int = 0
    poll: bool = False
    final: bool = False
    demand: bool = False

    def pack(self) -> bytes:
        """The 24 bytes."""
        flags = _POLL * self.poll | _FINAL * self.final | _DEMAND * self.demand
        return _LAYOUT.pack(
            _VERSION << 5 | self.diagnostic,
            self.state << 6 | flags,
            self.multiplier,
            _LAYOUT.size,
            self.my,
            self.your,
            min(round(self.min_tx * _MICROSECONDS), _MOST),
            min(round(self.min_rx * _MICROSECONDS), _MOST),
            0,  # no echo packets
        )


def parse(data: bytes) -> Packet:
    """The checks of RFC 5880 6.8.6 that need no session. Raises Malformed."""
    if len(data) < _LAYOUT.size:
        raise Malformed(f"{len(data)} bytes")
    first, second, multiplier, length, my, your, min_tx, min_rx, _ = _LAYOUT.unpack_from(data)
    if first >> 5 != _VERSION:
        raise Malformed(f"version {first >> 5}")
    if length < _LAYOUT.size or length > len(data):
        raise Malformed(f"length {length} of {len(data)}")
    if second & _AUTHENTICATED:
        raise Malformed("authenticated")
    if second & _MULTIPOINT:
        raise Malformed("multipoint")
    if not multiplier or not my:
        raise Malformed("no multiplier" if not multiplier else "no discriminator")
    state = State(second >> 6)
    if not your and state not in (State.DOWN, State.ADMIN_DOWN):
        raise Malformed(f"{state.name} without our discriminator")
    return Packet(
        state=state,
        my=my,
        your=your,
        multiplier=multiplier,
        min_tx=min_tx / _MICROSECONDS,
        min_rx=min_rx / _MICROSECONDS,
        diagnostic=first & 0x1F,
        poll=bool(second & _POLL),
        final=bool(second & _FINAL),
        demand=bool(second & _DEMAND),
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """The session's state has changed."""

    state: State
    before: State
    diagnostic: Diagnostic


Command = Packet | Changed


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session that is up must know to go on in another process; JSON-able by its fields.

    ``my`` is ours, ``your`` the neighbour's discriminator; the neighbour's times are in seconds, ``heard`` is
    when its last packet came.
    """

    my: int
    your: int
    multiplier: int
    min_tx: float
    min_rx: float
    heard: float

    def lasts(self, min_rx: float, now: float, told_every: float) -> bool:
        """Whether the neighbour may still count on us; this was told every so often while all went well."""
        return now - self.heard <= told_every + self.multiplier * max(min_rx, self.min_tx)


@dataclass(frozen=True, slots=True)
class Timing:
    """A session's parameters, in seconds. ``idle_tx`` is the interval while it is not up, at least 1 s."""

    min_tx: float = 0.010
    min_rx: float = 0.010
    idle_tx: float = 1.0
    multiplier: int = 5
    passive: bool = False


class Session:
    """One session (RFC 5880 6.8). ``discriminator`` is ours, not 0 and no other session's.

    ``chance`` gives numbers of [0, 1) for the jitter that keeps sessions apart.
    """

    def __init__(self, timing: Timing, discriminator: int, chance: Callable[[], float]) -> None:
        self.timing = timing
        self.discriminator = discriminator
        self.state = State.DOWN
        self.diagnostic = Diagnostic.NONE
        self.remote: Packet | None = None  # the last that was believed
        self.polling = False
        self.sent = self.received = self.went_down = 0
        self._chance = chance
        self._tx = self._told_tx = max(timing.idle_tx, SLOW)
        self._rx = timing.min_rx
        self._next: float | None = None
        self._expires: float | None = None
        self._heard = 0.0

    @property
    def standing(self) -> Standing | None:
        """What :meth:`resume` takes, or None while it is not up."""
        if self.state is not State.UP or self.remote is None:
            return None
        theirs = self.remote
        return Standing(
            self.discriminator, theirs.my, theirs.multiplier, theirs.min_tx, theirs.min_rx, self._heard
        )

    def resume(self, standing: Standing, now: float) -> list[Command]:
        """Begin as a session that was up in a process that died: the neighbour need not notice.

        It has its patience from now on; a poll tells the neighbour what our times are.
        """
        self.discriminator, self._heard = standing.my, standing.heard
        self.remote = Packet(
            State.UP,
            standing.your,
            standing.my,
            standing.multiplier,
            standing.min_tx,
            standing.min_rx,
        )
        self._become(State.UP, Diagnostic.NONE)
        self._expires = now + self.detection
        return self._speak(now)

    # -- time ---------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When ``tick`` has something to do."""
        times = [time for time in (self._next, self._expires) if time is not None]
        return min(times, default=None)

    @property
    def interval(self) -> float:
        """Between our packets: no faster than the neighbour takes them (6.8.7), before jitter."""
        return max(self._tx, self.remote.min_rx if self.remote else 0.0)

    @property
    def detection(self) -> float:
        """Of silence after which the neighbour counts as lost (6.8.4)."""
        if self.remote is None:
            return 0.0
        return self.remote.multiplier * max(self._rx, self.remote.min_tx)

    def start(self, now: float) -> list[Command]:
        """Begins to speak; a passive one waits to be spoken to."""
        if self.timing.passive:
            return []
        return self._speak(now)

    def stop(self) -> list[Command]:
        """Ends: tells the neighbour that nothing is wrong but somebody wanted it so."""
        commands = self._become(State.ADMIN_DOWN, Diagnostic.ADMIN_DOWN)
        self._next = self._expires = None
        if self.remote is None and self.timing.passive:
            return commands
        return [*commands, self._packet()]

    def change(self, timing: Timing, now: float) -> list[Command]:
        """Other parameters while it goes on; a neighbour that is up is asked to follow by a poll."""
        self.timing = timing
        if self.state is not State.UP:
            self._tx = self._told_tx = max(timing.idle_tx, SLOW)
            self._rx = timing.min_rx
            return []
        # Slower sending and faster hearing wait until the neighbour has heard of it (6.8.3).
        self._tx = min(self._tx, timing.min_tx)
        self._rx = max(self._rx, timing.min_rx)
        self._told_tx = timing.min_tx
        self.polling = True
        return self._speak(now)

    def tick(self, now: float) -> list[Command]:
        """What is due: our next packet, or the end of our patience."""
        commands: list[Command] = []
        if self._expires is not None and now >= self._expires:
            self._expires = None
            if self.state in (State.INIT, State.UP):
                commands += self._become(State.DOWN, Diagnostic.EXPIRED)
                self.remote = None
                commands += self._speak(now)
            else:
                self.remote = None  # its discriminator means nothing any more (6.8.1)
                if self.timing.passive:
                    self._next = None
        if self._next is not None and now >= self._next:
            commands += self._speak(now)
        return commands

    # -- packets ------------------------------------------------------------------------

    def receive(self, packet: Packet, now: float) -> list[Command]:
        """A packet that is for this session (6.8.6)."""
        if self.state is State.ADMIN_DOWN or packet.your not in (0, self.discriminator):
            return []
        self.received += 1
        first = self.remote is None
        slower = first or packet.min_rx != (self.remote.min_rx if self.remote else 0.0)
        self.remote = packet
        if packet.final and self.polling:
            self.polling = False
            self._tx, self._rx = self._told_tx, self.timing.min_rx
            slower = True
        commands = self._follow(packet.state)
        self._heard = now
        self._expires = now + self.detection
        if packet.poll:
            commands.append(self._packet(final=True))
        if commands and isinstance(commands[0], Changed):
            # The neighbour need not wait for the news.
            commands += self._speak(now)
        elif packet.demand and packet.state is State.UP and self.state is State.UP and not self.polling:
            self._next = None  # it does not want to be told periodically (6.8.7)
        elif slower or self._next is None:
            self._schedule(now)
        return commands

    def _follow(self, theirs: State) -> list[Command]:
        if theirs is State.ADMIN_DOWN:
            lost = self.state is not State.DOWN
            return self._become(State.DOWN, Diagnostic.NEIGHBOR_DOWN) if lost else []
        if self.state is State.DOWN:
            if theirs is State.DOWN:
                return self._become(State.INIT, self.diagnostic)
            return self._become(State.UP, Diagnostic.NONE) if theirs is State.INIT else []
        if self.state is State.INIT:
            return [] if theirs is State.DOWN else self._become(State.UP, Diagnostic.NONE)
        return self._become(State.DOWN, Diagnostic.NEIGHBOR_DOWN) if theirs is State.DOWN else []

    def _become(self, state: State, diagnostic: Diagnostic) -> list[Command]:
        before, self.state, self.diagnostic = self.state, state, diagnostic
        if before is state:
            return []
        if state is State.UP:
            # Faster from now on, and the neighbour is told so by a poll (6.8.3).
            self._tx = self._told_tx = self.timing.min_tx
            self.polling = True
        elif before is State.UP:
            self.went_down += 1
            self._tx = self._told_tx = max(self.timing.idle_tx, SLOW)
            self._rx = self.timing.min_rx
            self.polling = False
        return [Changed(state, before, diagnostic)]

    def _packet(self, final: bool = False) -> Packet:
        self.sent += 1
        return Packet(
            state=self.state,
            my=self.discriminator,
            your=self.remote.my if self.remote else 0,
            multiplier=self.timing.multiplier,
            min_tx=self._told_tx,
            min_rx=self.timing.min_rx,
            diagnostic=self.diagnostic,
            poll=self.polling and not final,  # both bits are never set at once (6.8.7)
            final=final,
        )

    def _speak(self, now: float) -> list[Command]:
        self._schedule(now)
        return [self._packet()]

    def _schedule(self, now: float) -> None:
        if self.remote is not None and not self.remote.min_rx:
            self._next = None  # it wants no packets at all (6.8.7)
            return
        # A quarter is taken off at most, and of a single packet at least a tenth (6.8.7).
        least, most = 0.75, 0.9 if self.timing.multiplier == 1 else 1.0
        self._next = now + self.interval * (least + (most - least) * self._chance())
