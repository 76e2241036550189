"""The state machine of one virtual router (RFC 3768 6, RFC 5798 6), as keepalived runs it.

Every method takes the time in seconds of any clock (best one that nobody sets) and returns what is to
be done. ``deadline`` is when ``tick`` is to be called next. Packets that have come are to be handed in
before time is: a process that was stopped for a while must first hear the master.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from xlvs.vrrp.check import check
from xlvs.vrrp.commands import (
    AddAddresses,
    Announce,
    Become,
    Command,
    Event,
    Log,
    Notify,
    RemoveAddresses,
    Send,
    State,
)
from xlvs.vrrp.packet import OWNER, STOPPING, Address, Advert, Fault, PacketError, Received
from xlvs.vrrp.settings import Settings

_AGAIN = 64  # announcements that may be waiting
_PEERS = 64  # whose numbers are remembered
_STEPS = 256  # of a priority, which the skew is measured in (RFC 5798 6.1)


@dataclass(slots=True)
class Counters:
    """What an instance has seen, for status and dumps."""

    received: int = 0
    sent: int = 0
    became_master: int = 0
    released_master: int = 0
    zero_received: int = 0
    zero_sent: int = 0
    refused: Counter[Fault] = field(default_factory=Counter)


class Machine:
    """One virtual router on this node.

    ``source`` is the address that its packets come from (None: it has none yet, and sends nothing);
    ``local`` holds all addresses of this node, whose packets are its own.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State.INIT
        self.priority = settings.priority
        self.source: Address | None = settings.source
        self.local: frozenset[Address] = frozenset()
        self.faults: frozenset[str] = frozenset()
        self.counters = Counters()
        self.since = 0.0  # when the state was entered
        self.master: Address | None = None  # whom we hear as master
        self.master_priority = 0
        self.master_interval = settings.advert
        self.reduced = False  # an owner that met another owner
        self.old_checksum = settings.old_checksum  # configured, or learnt of a peer
        self.wants_master = False  # its time is up, and a sync group may hold it back
        self._now = float("-inf")
        self._down: float | None = None  # when a backup takes over
        self._advert: float | None = None  # when a master speaks again
        self._again: list[tuple[float, int]] = []  # when its addresses are announced again, and how often
        self._refresh: float | None = None
        self._patient_until: float | None = None  # lower masters are put up with
        self._sequence = 0  # of AH: the last number that was sent or heard
        self._heard: dict[Address, int] = {}  # of AH: the last number of each sender

    # -- time ---------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When ``tick`` has something to do; None: never, as it stands."""
        timers = (self._down, self._advert, self._refresh, *(time for time, _ in self._again[:1]))
        return min((timer for timer in timers if timer is not None), default=None)

    @property
    def skew(self) -> float:
        """Seconds by which a backup's patience grows with its lack of priority."""
        whole = self.master_interval if self.settings.version == 3 else 1.0
        return (_STEPS - self.priority) * whole / _STEPS

    @property
    def down_interval(self) -> float:
        """Seconds of silence after which the master is taken for dead."""
        return self.settings.down_adverts * self.master_interval + self.skew

    def _advance(self, now: float) -> None:
        """A clock that is set back takes its deadlines along, lest it wait for the lost time."""
        if now < self._now:
            lost = self._now - now
            for name in ("_down", "_advert", "_refresh", "_patient_until"):
                timer = getattr(self, name)
                if timer is not None:
                    setattr(self, name, timer - lost)
            self._again = [(timer - lost, repeat) for timer, repeat in self._again]
        self._now = now

    def tick(self, now: float, allowed: bool = True) -> list[Command]:
        """What is due. ``allowed``: the rest of its sync group may be master too."""
        self._advance(now)
        commands: list[Command] = []
        if self._down is not None and now >= self._down:
            commands += self._time_is_up(now, allowed)
        while self._again and now >= self._again[0][0]:
            commands.append(Announce(self.settings.name, self._again.pop(0)[1]))
        if self._refresh is not None and now >= self._refresh:
            self._refresh = now + self.settings.announcements.master_refresh
            commands.append(Announce(self.settings.name, self.settings.announcements.master_refresh_repeat))
        if self._advert is not None and now >= self._advert:
            # Measured from when it was due, lest lateness add up; but what was missed is not made up.
            late = now - self._advert
            self._advert = now + self.settings.advert - (late if late < self.settings.advert else 0.0)
            commands += self._speak(self.priority)
        return commands

    def _time_is_up(self, now: float, allowed: bool) -> list[Command]:
        assert self._down is not None
        if now - self._down > self.down_interval:
            # The node was asleep, not the master: listen again before taking anything over.
            self._down = now + self.down_interval
            return [Log(f"({self.settings.name}) Time has jumped: listening again")]
        if not allowed:
            self.wants_master = True
            self._down = now + self.master_interval + self.skew
            return []
        return [Log(f"({self.settings.name}) Receive advertisement timeout", True), *self.become_master(now)]

    # -- coming and going ---------------------------------------------------------------

    def start(self, now: float) -> list[Command]:
        """Begins: as backup, or in fault if something is down already."""
        self._advance(now)
        commands: list[Command] = [RemoveAddresses(self.settings.name)]  # of a process before this one
        if self.faults:
            return [*commands, *self._enter(State.FAULT, now)]
        if self.settings.owner and self.settings.master and self.settings.auth != "AH":
            # An owner does not wait: nobody else may have its addresses (RFC 5798 6.4.1). But with AH
            # it has to hear first how far the others have counted.
            return [*commands, *self.become_master(now)]
        return [*commands, *self.become_backup(now, "(init)")]

    def stop(self, now: float) -> list[Command]:
        """Ends; a master says so, that the next one need not wait."""
        self._advance(now)
        return [*self._farewell(), *self._leave(), *self._enter(State.STOP, now)]

    def reload(self, settings: Settings, now: float) -> None:
        """Other settings of the same virtual router: its state stays, and no timer becomes longer."""
        self._advance(now)
        self.settings = settings
        self.old_checksum = settings.old_checksum or (self.old_checksum and settings.old_checksum_heard)
        if self.state is State.MASTER or settings.version == 2:
            self.master_interval = settings.advert
        if self._down is not None:
            self._down = min(self._down, now + self.down_interval)
        if self._advert is not None:
            self._advert = min(self._advert, now + settings.advert)
        refresh = settings.announcements.master_refresh
        if self.state is not State.MASTER or not refresh:
            self._refresh = None
        elif self._refresh is None or self._refresh > now + refresh:
            self._refresh = now + refresh

    def _farewell(self) -> list[Command]:
        if self.state is not State.MASTER:
            return []
        return [*self._speak(STOPPING), Log(f"({self.settings.name}) sent 0 priority", True)]

    def become_backup(self, now: float, why: str = "") -> list[Command]:
        """Gives way, or begins anew; the master's silence counts from here."""
        self._advance(now)
        commands = self._leave()
        self._down = now + self.down_interval
        commands.append(Log(f"({self.settings.name}) Entering BACKUP STATE {why}".rstrip()))
        return [*commands, *self._enter(State.BACKUP, now)]

    def yield_(self, now: float) -> list[Command]:
        """A master steps down of itself, and says so."""
        return [*self._farewell(), *self.become_backup(now)]

    def become_master(self, now: float) -> list[Command]:
        """Takes over: says so, then sets the addresses, then tells the segment where they are."""
        self._advance(now)
        if self.state is State.MASTER:
            return []
        name, announcements = self.settings.name, self.settings.announcements
        self._down = self._patient_until = None
        self.wants_master = False
        self.master = self.source
        self.master_priority = self.priority
        self.master_interval = self.settings.advert
        self._advert = now + self.settings.advert
        self._announce_again(now, announcements.master_delay, announcements.master_repeat)
        if announcements.master_refresh:
            self._refresh = now + announcements.master_refresh
        commands = self._speak(self.priority)
        commands += [Log(f"({name}) Entering MASTER STATE"), AddAddresses(name)]
        commands.append(Announce(name, announcements.master_repeat))
        return [*commands, *self._enter(State.MASTER, now)]

    def _announce_again(self, now: float, delay: float, repeat: int) -> None:
        """Every cause has its own second time, in a bounded number: a peer may be mad."""
        if delay and repeat and len(self._again) < _AGAIN:
            self._again = sorted([*self._again, (now + delay, repeat)])

    def _leave(self) -> list[Command]:
        """Out of whatever state it is in: timers off, a master's addresses away."""
        self._down = self._advert = self._refresh = None
        self._again = []
        self.wants_master = False
        if self.state is State.MASTER:
            self.counters.released_master += 1
            return [RemoveAddresses(self.settings.name)]
        return []

    def _enter(self, state: State, now: float) -> list[Command]:
        before, self.state = self.state, state
        if before is state:
            return []
        self.since = now
        if state is State.MASTER:
            self.counters.became_master += 1
        name = self.settings.name
        return [Become(name, state, before), Notify(name, Event(state.value), self.priority)]

    def _speak(self, priority: int) -> list[Command]:
        settings = self.settings
        self._sequence += 1
        self.counters.sent += 1
        self.counters.zero_sent += priority == STOPPING
        addresses, key = settings.addresses, settings.key
        advert = Advert(
            version=settings.version,
            router_id=settings.router_id,
            priority=priority,
            interval=settings.advert,
            addresses=addresses,
            auth=settings.auth,
            key=key,
            sequence=self._sequence,
        )
        return [Send(settings.name, advert, self.old_checksum)]

    # -- what it is told -----------------------------------------------------------------

    def set_faults(self, faults: frozenset[str], now: float) -> list[Command]:
        """What keeps it from serving (an interface, a script, a fellow of its group), by name."""
        self._advance(now)
        had, self.faults = bool(self.faults), faults
        if had == bool(faults) or self.state in (State.INIT, State.STOP):
            return []
        if not faults:
            return self.become_backup(now)
        commands: list[Command] = [Log(f"({self.settings.name}) Entering FAULT STATE"), *self._farewell()]
        return [*commands, *self._leave(), *self._enter(State.FAULT, now)]

    def set_priority(self, priority: int, now: float) -> list[Command]:
        """The priority in effect: the configured one, and what tracking makes of it."""
        self._advance(now)
        if self.reduced:
            priority = min(priority, OWNER - 1)
        if priority == self.priority:
            return []
        name = self.settings.name
        text = f"({name}) Changing effective priority from {self.priority} to {priority}"
        skew, self.priority = self.skew, priority
        if self._down is not None:
            self._down += self.skew - skew
        commands: list[Command] = [Log(text)]
        if self.settings.notify_priority and self.state in (State.MASTER, State.BACKUP):
            commands.append(Notify(name, Event(f"{self.state.value}_PRIORITY"), priority))
        return commands

    def receive(self, packet: Received, now: float) -> list[Command]:
        """A packet with this router's id, on its interface."""
        self._advance(now)
        if self.state not in (State.BACKUP, State.MASTER):
            return []
        try:
            check(self.settings, self.local, packet, self.master)
            self._count(packet)
        except PacketError as error:
            self.counters.refused[error.fault] += 1
            return [] if error.fault is Fault.OWN else [Log(f"({self.settings.name}) {error}")]
        self.counters.received += 1
        self.counters.zero_received += packet.priority == STOPPING
        commands: list[Command] = []
        if not packet.checksum_good and not self.old_checksum:
            # keepalived before 1.3.7 takes no other: it would be master beside us, for ever.
            self.old_checksum = True
            commands.append(Log(f"({self.settings.name}) Setting unicast VRRPv3 checksum to old version"))
        if self.state is State.MASTER:
            return [*commands, *self._as_master(packet, now)]
        return [*commands, *self._as_backup(packet, now)]

    def _count(self, packet: Received) -> None:
        """An AH sender's number climbs (RFC 2402 3.4.3), and whoever is the master next counts on.

        A master asks for a number above this sender's last, not above its own as keepalived does: two
        masters that count alike would each take the other for a replay, and stay masters for ever.
        """
        if self.settings.auth != "AH":
            return
        source, number = packet.source, packet.sequence
        last = self._heard.get(source, 0) if self.state is State.MASTER else self._sequence
        if number <= last:
            text = f"IPSEC-AH : sequence number {number} already processed. Packet dropped. Local({last})"
            raise PacketError(Fault.AUTH_FAILURE, text)
        self._sequence = max(self._sequence, number)
        if source not in self._heard and len(self._heard) >= _PEERS:
            self._heard.pop(next(iter(self._heard)))
        self._heard[source] = number

    def _as_backup(self, packet: Received, now: float) -> list[Command]:
        name = self.settings.name
        if packet.priority == STOPPING:
            self._down = now + self.skew
            return [Log(f"({name}) Backup received priority 0 advertisement")]
        commands = self._patience(packet, now)
        patient = self._patient_until is not None and now < self._patient_until
        if packet.priority < self.priority and self.settings.preempt and not patient:
            # Unheard: in time this node takes over.
            text = f"({name}) received lower priority ({packet.priority}) advert from {packet.source}"
            return [*commands, Log(f"{text} - discarding")]
        if self.settings.version == 3 and packet.interval != self.master_interval:
            commands.append(self._learn_interval(packet))
        self.master, self.master_priority = packet.source, packet.priority
        self.wants_master = False
        self._down = now + self.down_interval
        return commands

    def _learn_interval(self, packet: Received) -> Log:
        """A master of version 3 says how often it speaks (RFC 5798 6.1)."""
        ours, theirs = round(self.master_interval * 1000), round(packet.interval * 1000)
        self.master_interval = packet.interval
        text = f"advertisement interval updated from {ours}ms to {theirs}ms by master"
        return Log(f"({self.settings.name}) {text}", True)

    def _patience(self, packet: Received, now: float) -> list[Command]:
        """A lower master is put up with for ``preempt_delay`` from when it was first heard."""
        name, delay = self.settings.name, self.settings.preempt_delay
        if not delay or not self.settings.preempt:
            return []
        if packet.priority >= self.priority:
            going, self._patient_until = self._patient_until, None
            return [] if going is None else [Log(f"({name}) stop preempt delay")]
        if self._patient_until is None:
            self._patient_until = now + delay
            return [Log(f"({name}) start preempt delay ({delay:f})")]
        return []

    def _as_master(self, packet: Received, now: float) -> list[Command]:
        name, settings = self.settings.name, self.settings
        if packet.priority == STOPPING:
            self._advert = now + settings.advert
            return [Log(f"({name}) Master received priority 0 message", True), *self._speak(self.priority)]
        commands: list[Command] = []
        if packet.priority == OWNER and self.priority == OWNER:
            text = "CONFIGURATION ERROR: local instance and a remote instance are both configured as"
            commands.append(Log(f"({name}) {text} address owner, please fix - reducing local priority"))
            self.reduced = True
            commands += self.set_priority(OWNER - 1, now)
        mine = int(self.source) if self.source is not None else 0
        if (packet.priority, int(packet.source)) <= (self.priority, mine):
            return self._overrule(packet, now)
        text = f"({name}) Master received advert from {packet.source} with"
        if packet.priority == self.priority:
            text += f" same priority {packet.priority} but higher IP address than ours"
        else:
            text += f" higher priority {packet.priority}, ours {self.priority}"
        commands.append(Log(text))
        if settings.higher_priority_send_advert:
            commands += self._speak(self.priority)
        if settings.version == 3 and packet.interval != self.master_interval:
            commands.append(self._learn_interval(packet))
        self.master, self.master_priority = packet.source, packet.priority
        return [*commands, *self.become_backup(now)]

    def _overrule(self, packet: Received, now: float) -> list[Command]:
        """Somebody lower is master too: it is told, and the segment where the addresses really are."""
        name, again = self.settings.name, self.settings.announcements
        quiet = self.settings.lower_priority_no_advert
        text = f"({name}) Received advert from {packet.source} with lower priority {packet.priority}"
        text += f", ours {self.priority}{'' if quiet else ', forcing new election'}"
        commands: list[Command] = [Log(text)]
        if not quiet:
            commands += self._speak(self.priority)
            self._advert = now + self.settings.advert
        if again.lower_priority_repeat:
            commands.append(Announce(name, again.lower_priority_repeat))
            self._announce_again(now, again.lower_priority_delay, again.lower_priority_repeat)
        return [*commands, Notify(name, Event.MASTER_RX_LOWER_PRI, self.priority)]
