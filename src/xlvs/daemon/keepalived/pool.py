"""One virtual server at work: which real servers it shall have, and what is to be told. Pure.

It hears what becomes of its real servers and answers with what is to be done besides, in
keepalived's order: messages, scripts, lines for the fifo, mail. The rules themselves are
always :meth:`Pool.wanted`, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xlvs.daemon.keepalived import services
from xlvs.health.checks import Address, Script
from xlvs.health.quorum import Quorum
from xlvs.health.verdict import Health
from xlvs.keepalived.config import RealServer, VirtualServer
from xlvs.reconcile import Wanted

# A real server of a virtual server: its address and its port as written (0: the virtual server's).
ServerKey = tuple[Address, int]

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class Say:
    """A message for the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A script to run; nobody but the next one of the same ``whose`` waits for it."""

    script: Script
    whose: str


@dataclass(frozen=True, slots=True)
class Tell:
    """A line for the notify fifo."""

    line: str


@dataclass(frozen=True, slots=True)
class Mail:
    """An alert to send."""

    subject: str
    body: str


Action = Say | Call | Tell | Mail


@dataclass(slots=True)
class Member:
    """A real server as it stands. ``order`` is an operator's: "", "drain" or "disable"."""

    real: RealServer
    healthy: bool
    weight: int
    order: str = ""
    idle_since: float | None = None  # when it began to be at weight 0, unless configured so

    @property
    def alive(self) -> bool:
        """Whether it takes part: its checks say so, and no operator took it out."""
        return self.healthy and self.order != "disable"

    @property
    def effective(self) -> int:
        """Its weight, were it alive."""
        return 0 if self.order == "drain" else self.weight


class Pool:
    """A virtual server with its real servers. ``states`` are what checks say at the beginning."""

    def __init__(self, server: VirtualServer, states: Mapping[ServerKey, Health]) -> None:
        self.server = server
        self.members = {key_of(real): _member(real, states) for real in server.servers}
        self.quorum = Quorum(server.quorum, server.hysteresis)
        self.begun = False

    # -- what happens ---------------------------------------------------------------

    def begin(self) -> list[Action]:
        """At the start: quorum is gained or lacking, and scripts are told which."""
        self.begun = True
        if self.quorum.heard(self._weight()):
            return self._gained()
        text = f"{self.quorum.quorum}-{self.quorum.hysteresis}={self._lack()} > {self._weight()}"
        return self._lost("Starting with quorum down", text)

    def heard(self, key: ServerKey, health: Health, now: float, *, first: bool = False) -> list[Action]:
        """What the checks of a server come to now. ``first``: one of them has just answered at all.

        A server that begins as down is told of when that is confirmed, as if it had gone down then.
        """
        member = self.members[key]
        was, weight = member.alive, member.effective
        member.healthy, member.weight = health.up, health.weight
        if member.alive == was and first and not health.up:
            self._note_idle(member, now)
            return self._notify(member)
        return self._moved(member, was, weight, now)

    def ordered(self, key: ServerKey, order: str, now: float) -> list[Action]:
        """An operator drains ("drain") or disables a server, or lets it be ("")."""
        member = self.members[key]
        was, weight = member.alive, member.effective
        member.order = order
        return self._moved(member, was, weight, now)

    def reconfigured(
        self, server: VirtualServer, states: Mapping[ServerKey, Health], now: float
    ) -> list[Action]:
        """The same virtual server after a reload: servers that stay keep their state."""
        actions: list[Action] = []
        old, self.server = self.members, server
        kept = {key_of(real) for real in server.servers}
        for key, member in old.items():
            if key not in kept:
                actions += self._taken_away(member)
        self.members = {}
        for real in server.servers:
            key = key_of(real)
            self.members[key] = member = old.get(key) or _member(real, states)
            was, weight, known = member.alive, member.effective, key in old
            member.real = real
            if key in states:
                member.healthy, member.weight = states[key].up, states[key].weight
            if known and was == member.alive and weight != member.effective:
                actions.append(self._reweighed(member, weight))
            elif known and was != member.alive:
                actions += self._told(member)
            self._note_idle(member, now)
        self.quorum.reconfigured(server.quorum, server.hysteresis)
        return actions + self._count()

    def end(self, *, removed: bool = False) -> list[Action]:
        """It goes, with the daemon or (``removed``) alone. With ``omega``, or removed, scripts are told."""
        actions: list[Action] = []
        if removed:
            actions.append(Say(f"Removing Virtual Server {self.label}"))
        word = "Removing" if removed else "Shutting down"
        tell = removed or self.server.omega
        for member in self.members.values():
            was = member.alive
            actions.append(Say(f"{word} service {self.name(member.real)} from VS {self.label}"))
            member.healthy = False
            if was and tell:
                actions += self._notify(member, f"=> {word} <=")
        if tell and self.quorum.up:
            actions += self._quorum_told(up=False, body=f"=> {word} <=")
        self.quorum.up = False
        return actions

    # -- what is wanted -------------------------------------------------------------

    def wanted(self, now: float) -> list[Wanted]:
        """The services with the destinations that they shall have now."""
        addresses = services.local_addresses(self.server)
        real = self._destinations(now)
        return [
            Wanted(
                services.service_of(self.server, vip),
                tuple(services.destination_of(each, vip, weight) for each, weight in real),
                addresses,
            )
            for vip in self.server.vips
        ]

    def deadline(self, now: float) -> float | None:
        """When :meth:`wanted` changes by itself next: a drained server's time is up."""
        limit = self.server.drain_limit
        due = [
            member.idle_since + limit
            for member in self.members.values()
            if limit and member.idle_since is not None and member.idle_since + limit > now
        ]
        return min(due, default=None)

    def drained(self, member: Member, now: float) -> bool:
        """Whether a server at weight 0 has had all the time it gets."""
        limit = self.server.drain_limit
        return bool(limit) and member.idle_since is not None and now >= member.idle_since + limit

    def _destinations(self, now: float) -> list[tuple[RealServer, int]]:
        found = []
        serving = self.serving
        for member in self.members.values():
            if self.drained(member, now) or member.order == "disable":
                continue
            if member.alive and serving:
                found.append((member.real, member.effective))
            elif member.real.inhibit_on_failure:
                found.append((member.real, 0))
        sorry = self.server.sorry
        if sorry and not self.quorum.up:
            found.append((sorry, sorry.weight))
        elif sorry and sorry.inhibit_on_failure:
            found.append((sorry, 0))
        return found

    @property
    def serving(self) -> bool:
        """Whether the real servers that are alive are the ones to serve, not the sorry server."""
        return self.quorum.up or self.server.sorry is None

    # -- names ----------------------------------------------------------------------

    @property
    def label(self) -> str:
        """The virtual server in messages."""
        return label(self.server)

    def name(self, real: RealServer) -> str:
        """A real server in messages."""
        return server_label(self.server, real)

    # -- the parts ------------------------------------------------------------------

    def _weight(self) -> int:
        return sum(member.effective for member in self.members.values() if member.alive)

    def _lack(self) -> int:
        return self.quorum.quorum - self.quorum.hysteresis

    def _moved(self, member: Member, was: bool, weight: int, now: float) -> list[Action]:
        self._note_idle(member, now)
        actions: list[Action] = []
        if member.alive != was:
            actions += self._told(member)
        elif member.effective != weight and member.alive:
            actions.append(self._reweighed(member, weight))
        return actions + self._count()

    def _note_idle(self, member: Member, now: float) -> None:
        drained = member.order == "drain" or (member.effective == 0 and member.real.weight > 0)
        idle = drained or not member.alive
        member.idle_since = (now if member.idle_since is None else member.idle_since) if idle else None

    def _told(self, member: Member) -> list[Action]:
        name, inhibit = self.name(member.real), member.real.inhibit_on_failure
        if member.alive:
            text = f"Enabling service {name} of VS" if inhibit else f"Adding service {name} to VS"
        else:
            text = f"Disabling service {name} of VS" if inhibit else f"Removing service {name} from VS"
        return [Say(f"{text} {self.label}"), *self._notify(member)]

    def _taken_away(self, member: Member) -> list[Action]:
        was, member.healthy = member.alive, False
        name = self.name(member.real)
        actions: list[Action] = [
            Say(f"service {name} no longer exist"),
            Say(f"Removing service {name} from VS {self.label}"),
        ]
        return actions + (self._notify(member, "=> Removing <=") if was else [])

    def _notify(self, member: Member, body: str = "") -> list[Action]:
        real, name, up = member.real, self.name(member.real), member.alive
        word = "UP" if up else "DOWN"
        script = real.notify_up if up else real.notify_down
        actions: list[Action] = [Call(script, f"{name} {self.label}")] if script else []
        actions.append(Tell(f"RS {name} {self.label} {word}"))
        if real.smtp_alert:
            text = body or f"=> CHECK {'succeed' if up else 'failed'} on service <="
            actions.append(Mail(f"Realserver {name} of virtual server {self.label} - {word}", text))
        return actions

    def _reweighed(self, member: Member, before: int) -> Action:
        kind = "" if member.alive else "in"
        return Say(
            f"Changing weight from {before} to {member.effective} for {kind}active service"
            f" {self.name(member.real)} of VS {self.label}"
        )

    def _count(self) -> list[Action]:
        """Whether quorum was gained or lost by what happened."""
        if not self.begun or not self.quorum.heard(self._weight()):
            return []
        if self.quorum.up:
            return self._gained()
        text = f"{self.quorum.quorum}-{self.quorum.hysteresis}={self._lack()} > {self._weight()}"
        return self._lost("Lost quorum", text)

    def _gained(self) -> list[Action]:
        least = self.quorum.quorum + self.quorum.hysteresis
        text = f"{self.quorum.quorum}+{self.quorum.hysteresis}={least} <= {self._weight()}"
        actions: list[Action] = [Say(f"Gained quorum {text} for VS {self.label}")]
        sorry = self.server.sorry
        if sorry:
            word = "Disabling" if sorry.inhibit_on_failure else "Removing"
            actions.append(Say(f"{word} sorry server {self.name(sorry)} from VS {self.label}"))
            actions.append(Say(f"Adding alive servers to the pool for VS {self.label}"))
        return actions + self._quorum_told(up=True, body=f"=> Gained quorum {text} <=")

    def _lost(self, what: str, text: str) -> list[Action]:
        actions: list[Action] = [Say(f"{what} {text} for VS {self.label}")]
        sorry = self.server.sorry
        if sorry:
            word = "Enabling" if sorry.inhibit_on_failure else "Adding"
            actions.append(Say(f"{word} sorry server {self.name(sorry)} to VS {self.label}"))
            actions.append(Say(f"Removing alive servers from the pool for VS {self.label}"))
        return actions + self._quorum_told(up=False, body=f"=> {what} {text} <=")

    def _quorum_told(self, *, up: bool, body: str) -> list[Action]:
        word = "UP" if up else "DOWN"
        script = self.server.quorum_up if up else self.server.quorum_down
        actions: list[Action] = [Call(script, self.label)] if script else []
        actions.append(Tell(f"VS {self.label} {word}"))
        if self.server.smtp_alert:
            actions.append(Mail(f"Virtualserver {self.label} - {word}", body))
        return actions


def key_of(real: RealServer) -> ServerKey:
    """What a real server is known by in its virtual server."""
    return real.address, real.port


def label(server: VirtualServer) -> str:
    """A virtual server as keepalived's messages, fifos and mails name it."""
    if server.group is not None:
        return f"[{server.group}]:0"
    vip = server.vips[0]
    if vip.fwmark:
        return f"FWM {vip.fwmark}"
    return f"[{vip.address}]:{_PROTOCOLS.get(server.protocol, 'none')}:{vip.port}"


def server_label(server: VirtualServer, real: RealServer) -> str:
    """A real server as they name it."""
    port = real.port or (server.vips[0].port if server.vips else 0)
    return f"[{real.address}]:{_PROTOCOLS.get(server.protocol, 'none')}:{port}"


def _member(real: RealServer, states: Mapping[ServerKey, Health]) -> Member:
    health = states.get(key_of(real), Health(up=True, weight=real.weight))
    return Member(real, health.up, health.weight)
