"""Conversations with one VRRP node: what it is told and when, for the real keepalived and for ours.

A dialogue's times are seconds from when the node began. The peers .1 and .3 have a lower and a higher
address than the node's .2; they are forged, frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from xlvs.vrrp.packet import GROUP4, GROUP6, Address, Advert
from xlvs.vrrp.settings import Announcements, GroupSettings, Settings, Track, TrackKind

LOWER, NODE, HIGHER = (IPv4Address(f"192.168.99.{number}") for number in (1, 2, 3))
LOWER6, NODE6, HIGHER6 = (IPv6Address(f"fe80::ff:fe00:{number}") for number in (1, 2, 3))
END = 22.0  # when every node is stopped
ONCE = Announcements(master_delay=0.0, master_repeat=1, lower_priority_delay=0.0, lower_priority_repeat=0)


@dataclass(frozen=True, slots=True)
class Tell:
    """An advert to the instance, as its twin on another node would send it, but for ``changes``."""

    at: float
    priority: int
    source: Address = LOWER
    instance: int = 0
    changes: tuple[tuple[str, object], ...] = ()
    ttl: int = 255
    spoil: str = ""  # "checksum", "tail": bytes behind the message, "short": some missing


@dataclass(frozen=True, slots=True)
class Write:
    """A number into the file that the instances track under this name."""

    at: float
    file: str
    value: int


@dataclass(frozen=True, slots=True)
class Dialogue:
    name: str
    instances: tuple[Settings, ...]
    events: tuple[Tell | Write, ...] = ()
    group: GroupSettings | None = None


def every(second: float, last: float, priority: int, step: float = 0.9, **more: object) -> tuple[Tell, ...]:
    """Adverts from about ``second`` to ``last``; the step shuns the moments when a node's own are due."""
    count = round((last - second) / step) + 1
    return tuple(Tell(second + i * step, priority, **more) for i in range(count))  # type: ignore[arg-type]


def address_of(router_id: int, family: int = 4) -> Address:
    return ip_address(f"10.99.0.{router_id}") if family == 4 else ip_address(f"2001:db8:99::{router_id:x}")


def node(**changes: object) -> Settings:
    return replace(Settings(name="", router_id=0, announcements=ONCE), **changes)  # type: ignore[arg-type]


def one(name: str, settings: Settings, *events: Tell | Write) -> Dialogue:
    return Dialogue(name, (settings,), events)


def tracked(name: str, weight: int, reverse: bool = False) -> tuple[Track, ...]:
    return (Track(TrackKind.FILE, name, weight, reverse),)


def refused(name: str, settings: Settings, **bad: object) -> Dialogue:
    """Three adverts of a higher priority that something is wrong with: heard, or not?"""
    return one(name, settings, *every(1.0, 3.0, 150, 0.9, **bad))


def _heard() -> Iterator[Dialogue]:
    yield one("alone", node())
    yield one("alone, priority 1", node(priority=1))
    yield one("alone, five adverts' patience", node(down_adverts=5))
    yield one("owner as master", node(priority=255, master=True))
    yield one("owner as backup", node(priority=255))
    yield one("higher for a while", node(), *every(1, 4, 150), *every(12, 14, 150))
    yield one("equal from below", node(), *every(5, 6, 100))
    yield one("equal from above", node(), *every(5, 6, 100, source=HIGHER))
    yield one("owner's equal from above", node(priority=255), *every(5, 6, 255, source=HIGHER))
    yield one("owner's equal from below", node(priority=255), *every(5, 6, 255))
    yield one("equal while backup", node(), *every(1, 4, 100))
    yield one("lower while master", node(), *every(5.5, 7.5, 50))
    yield one("lower while master, unanswered", node(lower_priority_no_advert=True), *every(5.5, 7.5, 50))
    yield one("higher while master, answered", node(higher_priority_send_advert=True), *every(5.5, 7.5, 150))
    yield one("farewell while master", node(), Tell(5.5, 0))
    yield one("farewell while backup", node(), *every(1, 2, 150), Tell(3, 0))
    yield one("farewell of a stranger", node(), *every(1, 2, 150), Tell(3, 0, HIGHER))
    yield one("farewell of a lower", node(), Tell(1, 50), Tell(2, 0))
    yield one("lower while backup", node(), *every(1, 6, 50))
    yield one("higher, then lower", node(), *every(1, 3, 150), *every(4, 10, 50))
    yield one("no preemption", node(preempt=False), *every(1, 6, 50))
    two = (*every(1, 3, 50), *every(1.5, 3.5, 60, source=HIGHER))
    yield one("no preemption, two lower", node(preempt=False), *two)
    yield one("no preemption, as master", node(preempt=False), *every(5.5, 7.5, 150), *every(9, 12, 50))
    yield one("preemption later", node(preempt_delay=5.5), *every(1, 14, 50))
    yield one("preemption later, alone", node(preempt_delay=5.5))
    late: tuple[Tell, ...] = (*every(1, 8, 150), *every(9, 18, 50))
    yield one("preemption later, higher first", node(preempt_delay=4.1), *late)
    waver = (*every(1, 4, 150), *every(5, 6, 50), *every(7, 8, 150), *every(9, 16, 50))
    yield one("preemption later, a waverer", node(preempt_delay=4.1), *waver)
    yield one("preemption later, farewell", node(preempt_delay=8.0), *every(1, 4, 50), Tell(5, 0))
    yield one("own packet", node(), *every(1, 3, 150, source=NODE))
    yield one("own packet while master", node(), *every(5.5, 6.5, 150, source=NODE))


def _version_3() -> Iterator[Dialogue]:
    v3 = node(version=3, advert=0.5)
    slow = (("interval", 2.0),)
    yield one("v3 alone", v3)
    yield one("v3 slower master", v3, *every(1, 3, 150, step=2.0, changes=slow))
    yield one("v3 slower lower", v3, *every(1, 7, 50, step=2.0, changes=slow))
    yield one("v3 slower, unpreempted", replace(v3, preempt=False), *every(1, 3, 50, step=2.0, changes=slow))
    yield one("v3 slower, farewell", v3, Tell(1, 150, changes=slow), Tell(3, 0, changes=slow))
    yield one("v3 slower while master", v3, *every(5, 7, 150, step=2.0, changes=slow))
    yield one("v3 lower while master", v3, *every(5.25, 6.25, 50))
    for name, source in (("below", LOWER6), ("above", HIGHER6)):
        six = node(version=3, family=6)
        yield one(f"v6 equal from {name}", six, *every(5.5, 6.5, 100, source=source))
    yield one("v6 higher", node(version=3, family=6), *every(1, 3, 150, source=LOWER6))


def _refused() -> Iterator[Dialogue]:
    v2, v3 = node(), node(version=3)
    PASS, AH = node(auth="PASS", key=b"secret"), node(auth="AH", key=b"secret")
    other = (ip_address("10.99.1.1"),)
    yield refused("control: v2", v2)
    yield refused("control: v3", v3)
    yield refused("control: PASS", PASS)
    yield refused("v2 TTL", v2, ttl=254)
    yield refused("v3 TTL", v3, ttl=254)
    yield refused("v2 checksum", v2, spoil="checksum")
    yield refused("v3 checksum", v3, spoil="checksum")
    yield refused("v2 longer", v2, spoil="tail")
    yield refused("v3 longer", v3, spoil="tail")
    yield refused("v2 shorter", v2, spoil="short")
    yield refused("v3 shorter", v3, spoil="short")
    yield refused("v2 told v3", v2, changes=(("version", 3),))
    yield refused("v3 told v2", v3, changes=(("version", 2),))
    yield refused("v2 slower", v2, changes=(("interval", 2.0),))
    yield refused("v2 no address", v2, changes=(("addresses", ()),))
    yield refused("v3 no address", v3, changes=(("addresses", ()),))
    yield refused("v2 another address", v2, changes=(("addresses", other),))
    yield refused("v3 another address", v3, changes=(("addresses", other),))
    yield refused("known master's addresses", replace(v2, skip_known_addresses=True))
    yield refused("none told PASS", v2, changes=(("auth", "PASS"), ("key", b"secret")))
    yield refused("none told AH", v2, changes=(("auth", "AH"), ("key", b"secret"), ("sequence", 5)))
    yield refused("PASS told none", PASS, changes=(("auth", ""),))
    yield refused("PASS wrong", PASS, changes=(("key", b"secret1"),))
    yield refused("AH told none", AH, changes=(("auth", ""),))
    yield refused("AH told PASS", AH, changes=(("auth", "PASS"),))
    yield refused("AH wrong", AH, changes=(("key", b"secret1"), ("sequence", 5)))
    yield refused("AH repeated", AH, changes=(("sequence", 5),))


def _numbered(priority: int, first: float, sequences: tuple[int, ...]) -> tuple[Tell, ...]:
    pairs = enumerate(sequences)
    return tuple(Tell(first + i, priority, changes=(("sequence", number),)) for i, number in pairs)


def _sequences() -> Iterator[Dialogue]:
    AH = node(auth="AH", key=b"secret")
    yield one("AH in order", AH, *_numbered(150, 1, (10, 11, 12)))
    yield one("AH back to the past", AH, *_numbered(150, 1, (10, 11, 5, 6, 7, 8)))
    yield one("AH lower heard while master", AH, *_numbered(50, 5.5, (100, 101)))
    yield one("AH higher heard while master", AH, *_numbered(150, 5.5, (100, 101)))
    yield one("AH older while master", AH, *_numbered(150, 9.5, (1, 2, 3)))
    yield one("AH lower while backup", AH, *_numbered(50, 1, (20, 21, 22)))


def _announced() -> Iterator[Dialogue]:
    twice = Announcements(
        master_delay=3.0, master_repeat=2, lower_priority_repeat=3, lower_priority_delay=2.0
    )
    anew = replace(ONCE, master_refresh=4.0, master_refresh_repeat=2)
    yield one("announced twice", node(announcements=twice))
    yield one("announced anew", node(announcements=anew))
    yield one("announced against a lower", node(announcements=twice), Tell(9.5, 50))
    yield one("announced against two lower", node(announcements=twice), Tell(9.5, 50), Tell(10.5, 50))


def _tracked() -> Iterator[Dialogue]:
    def file(name: str, settings: Settings, *numbers: tuple[float, int]) -> Dialogue:
        writes = (Write(at, track.name, number) for at, number in numbers for track in settings.tracks)
        return one(name, settings, *writes)

    heard: tuple[Tell | Write, ...] = (*every(1, 9, 150), Write(3, "g0", 1), Write(6, "g0", 0))
    yield file("file of no weight", node(tracks=tracked("f0", 0)), (6, 1), (9, 0))
    yield one("file of no weight, as backup", node(tracks=tracked("g0", 0)), *heard)
    yield file("file of no weight, reverse", node(tracks=tracked("r0", 0, True)), (1, 1), (9, 0))
    yield one("file", node(tracks=tracked("f1", 1)), Write(6, "f1", 20), Write(9, "f1", -30))
    yield one("file, doubled", node(tracks=tracked("f2", 2)), Write(6, "f2", 20), Write(9, "f2", 1000))
    yield one("file, negative", node(tracks=tracked("n2", -2)), Write(6, "n2", 20), Write(9, "n2", -20))
    yield one("file, reverse", node(tracks=tracked("r1", 1, True)), Write(6, "r1", 20), Write(9, "r1", 1000))
    limits = [Write(4 + i * 2.0, "f3", value) for i, value in enumerate((-253, -254, -253, 253, 254, 90))]
    yield one("file to its limits", node(tracks=tracked("f3", 1)), *limits)
    both = tracked("a1", 1) + tracked("b1", 1)
    yield one("two files", node(tracks=both), Write(6, "a1", 200), Write(8, "b1", -150))
    yield file("owner's file", node(priority=255, tracks=tracked("o0", 0)), (6, 1), (9, 0))
    rise: tuple[Tell | Write, ...] = (*every(1, 12, 150), Write(5.5, "up", 100))
    yield one("raised as backup", node(tracks=tracked("up", 1), notify_priority=True), *rise)
    fall: tuple[Tell | Write, ...] = (*every(7, 12, 120), Write(6.5, "down", -100), Write(9.5, "down", 0))
    yield one("lowered as master", node(tracks=tracked("down", 1), notify_priority=True), *fall)


def _together() -> Iterator[Dialogue]:
    def pair(name: str, *events: Tell | Write, group: tuple[Track, ...] = (), **more: object) -> Dialogue:
        members = (node(), node(**more))
        return Dialogue(name, members, events, GroupSettings(name="", members=(), tracks=group))

    both = (*every(10.5, 12.5, 150, instance=0), *every(10.5, 12.5, 150, instance=1))
    yield pair("group alone")
    yield pair("group, one heard", *every(1, 12, 150, instance=1))
    yield pair("group, one heard for long", *every(1, 20, 150, instance=1))
    yield pair("group, one sent home", *every(8.5, 12.5, 150, instance=1))
    yield pair("group, both sent home", *both)
    yield pair("group of two speeds", advert=2.0)
    yield pair("group's fault", Write(8, "gf", 1), Write(11, "gf", 0), tracks=tracked("gf", 0))
    yield pair("group tracks", Write(8, "gt", 1), Write(11, "gt", 0), group=tracked("gt", 0))
    yield pair("group member's weight", Write(6, "gm", 20), Write(9, "gm", 0), tracks=tracked("gm", 1))
    yield pair("group tracks a weight", Write(6, "gw", 20), Write(9, "gw", -30), group=tracked("gw", 1))
    lower = (*every(1, 8, 50, instance=0), *every(1, 8, 50, instance=1))
    yield pair("group preempts", *lower)
    yield pair("group's farewell", *every(1, 3, 150, instance=1), Tell(4, 0, instance=1))


def _named(dialogue: Dialogue, first: int) -> Dialogue:
    """With names and router ids of its own: all dialogues are held at once, on one segment."""
    instances = tuple(
        replace(
            settings,
            name=f"v{first + i}",
            router_id=first + i,
            addresses=(
                *((ip_address(f"fe80::99:{first + i:x}"),) if settings.family == 6 else ()),
                address_of(first + i, settings.family),
            ),
        )
        for i, settings in enumerate(dialogue.instances)
    )
    members = tuple(settings.name for settings in instances)
    group = dialogue.group and replace(dialogue.group, name=f"g{first}", members=members)
    return replace(dialogue, instances=instances, group=group)


def dialogues() -> list[Dialogue]:
    """All of them, in the recording's order."""
    parts = (_heard, _version_3, _refused, _sequences, _announced, _tracked, _together)
    made: list[Dialogue] = []
    number = 1
    for dialogue in (dialogue for part in parts for dialogue in part()):
        made.append(_named(dialogue, number))
        number += len(dialogue.instances)
    assert number <= 256, "router ids have run out"
    return made


def advert(dialogue: Dialogue, tell: Tell, sequence: int = 1) -> Advert:
    """What ``tell`` puts on the wire, before it is spoilt."""
    settings = dialogue.instances[tell.instance]
    made = Advert(
        version=settings.version,
        router_id=settings.router_id,
        priority=tell.priority,
        interval=settings.advert,
        addresses=settings.addresses,
        auth=settings.auth,
        key=settings.key,
        sequence=sequence,
    )
    return replace(made, **dict(tell.changes))  # type: ignore[arg-type]


def group_address(settings: Settings) -> Address:
    return GROUP4 if settings.family == 4 else GROUP6
