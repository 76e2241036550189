"""What a single packet costs in nanoseconds, on the scales of BPF_PROG_TEST_RUN.

The programs weighed are those of a running director, with its rules, its tables and
its routes, next hops revalidated as usual. A wrapper restores the packet before each
repetition; the wrapper around an empty program is subtracted.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from bench import place
from bench.build import compiled
from bench.directors import xlvs
from bench.effort import Effort
from bench.frames import CLIENTS, FIRST_PORT, FLOWS, LENGTH, SYN, SYN_ACK, TCP, Load
from bench.road import (
    ACKS,
    ANSWERS,
    ANSWERS_TCP,
    CLOSED_UDP,
    CPU,
    FRAGMENTS,
    FRESH_STRANGERS,
    FRESH_TCP,
    FRESH_UDP,
    INSIDE,
    KNOWN,
    KNOWN_TCP,
    OUTSIDE,
    STRANGERS,
    VIP,
    VPORT,
    Road,
    Traffic,
)
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import swap16
from xlvs.dataplane.tables import Tables
from xlvs.errors import XlvsError

_CONTEXT = struct.Struct("=6I")  # struct xdp_md
_PACKET = bytes(LENGTH)


@dataclass(frozen=True)
class Weighing:
    """One line of the table: which packets, at which director, and what is asked.

    ``most`` are nanoseconds; ``like`` is another line, over which this may be a tenth.
    """

    name: str
    method: str  # ipvsadm's option
    load: Load
    interface: str = OUTSIDE
    outcome: str = "forwarded"
    most: float | None = None
    scheduler: str = "rr"
    servers: int = 1
    # What is typed on the director beforehand: commands of xlvs.
    typed: tuple[tuple[str, ...], ...] = ()
    like: str = ""


MANY = 500  # servers of one service
_SERVICE = f"{VIP}:{VPORT}"
_WEB = f"-t {_SERVICE}"
_CLIENTS = "198.18.0.0/15"  # all that new flows are from
_PROXIED = tuple(f"ipvsadm -E {_WEB} -s rr -j enable".split())
_STRICT = ("sysctl", "tcp_drop_entry=1")
_AMPLE = "--new 100000000 --per-source 1000000"

WEIGHINGS = (
    Weighing("DR, known flow", "-g", KNOWN, most=60),
    Weighing("NAT, known flow, in", "-m", KNOWN, most=80),
    Weighing("NAT, known flow, out", "-m", ANSWERS, INSIDE, most=80),
    Weighing("TUN, known flow", "-i", KNOWN, most=80),
    Weighing("NAT, known TCP flow, in", "-m", KNOWN_TCP, most=80),
    Weighing("NAT, known TCP flow, out", "-m", ANSWERS_TCP, INSIDE, most=80),
    Weighing("FULLNAT, known flow, in", "-b", KNOWN, like="NAT, known flow, in"),
    Weighing("FULLNAT, known flow, out", "-b", ANSWERS, INSIDE, like="NAT, known flow, out"),
    Weighing("FULLNAT, known TCP flow, in", "-b", KNOWN_TCP, like="NAT, known TCP flow, in"),
    Weighing("FULLNAT, known TCP flow, out", "-b", ANSWERS_TCP, INSIDE, like="NAT, known TCP flow, out"),
    Weighing("not ours", "-g", STRANGERS, outcome="not_ours"),
    Weighing("not ours, another each time", "-g", FRESH_STRANGERS, outcome="not_ours"),
    Weighing("DR, new UDP flow", "-g", FRESH_UDP),
    Weighing("DR, new TCP flow", "-g", FRESH_TCP),
    Weighing("NAT, new TCP flow", "-m", FRESH_TCP),
    Weighing("FULLNAT, new TCP flow", "-b", FRESH_TCP),
    *(
        Weighing(f"{name} of {MANY}, new UDP flow", "-m", FRESH_UDP, scheduler=name, servers=MANY)
        for name in ("rr", "wrr", "wlc", "mh")
    ),
    Weighing("SYN, answered by a cookie", "-m", FRESH_TCP, outcome="cookie_sent", typed=(_PROXIED,)),
    Weighing("ACK, no good cookie, dropped", "-m", ACKS, outcome="drop_cookie", typed=(_PROXIED, _STRICT)),
    *(
        Weighing(name, "-g", load, outcome=outcome, typed=(tuple(words.split()),))
        for name, load, outcome, words in (
            ("stray ACK, dropped", ACKS, "drop_stray_tcp", "sysctl tcp_drop_entry=1"),
            ("stray UDP, dropped", CLOSED_UDP, "drop_stray_udp", "sysctl udp_drop_entry=1"),
            ("fragment, dropped", FRAGMENTS, "drop_stray_fragment", "sysctl frag_drop_entry=1"),
            ("SYN of a denied client", FRESH_TCP, "drop_denied", f"defence deny {_WEB} {_CLIENTS}"),
            ("SYN over the limit", FRESH_TCP, "drop_service_limit", f"defence limit {_WEB} --new 1"),
            ("new flow within both limits", FRESH_TCP, "forwarded", f"defence limit {_WEB} {_AMPLE}"),
        )
    ),
    Weighing(
        "known flow, every packet checked",
        "-g",
        KNOWN,
        typed=(
            ("defence", "deny", "-u", _SERVICE, "10.0.0.0/8"),
            ("defence", "check", "-u", _SERVICE, "every-packet"),
        ),
    ),
)


class Scales:
    """The wrapper, loaded."""

    def __init__(self) -> None:
        self._object = libbpf.BpfObject(compiled("wrapper"))
        self._object.load()
        self._frames = libbpf.map_memory(self._object.map_fd("frames"))

    def close(self) -> None:
        """Put them away."""
        self._object.close()

    def load(self, load: Load) -> None:
        """Which packets to weigh with."""
        load.write(self._frames, 0)

    def weigh(self, program: int | None, interface: str, repeat: int) -> int:
        """Mean nanoseconds of a run around a program (None: the empty one)."""
        target = self._object.program_fd("empty") if program is None else program
        libbpf.update(self._object.map_fd("weighed"), bytes(4), target.to_bytes(4, "little"))
        size = len(_PACKET)
        context = _CONTEXT.pack(0, size, 0, socket.if_nametoindex(interface), 0, 0)
        run = libbpf.test_run(self._object.program_fd("weigh"), _PACKET, repeat=repeat, context=context)
        return run[2]


def weigh_all(
    road: Road, traffic: Traffic, effort: Effort, say: Callable[[str], None]
) -> list[tuple[Weighing, float]]:
    """What each line costs. Where something is asked of it: the median of several sittings.

    A director's maps lie elsewhere in memory each time it is made, which is worth some
    nanoseconds; and the machine may be busy for a while: lines that are compared take turns.
    """
    found: dict[Weighing, list[float]] = {weighing: [] for weighing in WEIGHINGS}
    compared = {weighing.like for weighing in WEIGHINGS}
    for sitting in range(effort.sittings):
        for weighing in WEIGHINGS:
            asked = weighing.most or weighing.like or weighing.name in compared
            if asked or not sitting:
                say(f"weighing {weighing.name}")
                found[weighing].append(_weigh(road, traffic, weighing, effort))
    return [(weighing, statistics.median(figures)) for weighing, figures in found.items()]


def _weigh(road: Road, traffic: Traffic, weighing: Weighing, effort: Effort) -> float:
    """Nanoseconds that the director adds to a packet: the median of the rounds' differences."""
    repeat = effort.fresh if weighing.load.fresh else effort.repeat
    rounds = effort.fresh_rounds if weighing.load.fresh else effort.cost_rounds
    director = xlvs(weighing.method, effort.slots, weighing.scheduler, weighing.servers)
    scales = Scales()
    try:
        with director(road, traffic), place.inside(road.director), place.on_cpu(CPU):
            for words in weighing.typed:
                road.xlvs(*words)
            entry = _entry_program()
            _acquaint(scales, entry, weighing)
            scales.load(_on_their_side(weighing))
            before = _outcome(weighing.outcome)
            results = []
            for _ in range(rounds):
                bare = scales.weigh(None, weighing.interface, repeat)
                results.append(scales.weigh(entry, weighing.interface, repeat) - bare)
            os.close(entry)
            counted = _outcome(weighing.outcome) - before
    finally:
        scales.close()
    if counted < 0.999 * rounds * repeat:
        raise XlvsError(
            f"{weighing.name}: of {rounds * repeat} packets only {counted} were {weighing.outcome}"
        )
    return statistics.median(results)


def _acquaint(scales: Scales, entry: int, weighing: Weighing) -> None:
    """The flows become known, the caches warm; those of TCP have been opened by both ends."""
    steps = [(KNOWN, OUTSIDE)]
    if weighing.load.protocol == TCP and not weighing.load.fresh:
        steps = [
            (replace(KNOWN_TCP, flags=SYN), OUTSIDE),
            (replace(ANSWERS_TCP, flags=SYN_ACK), INSIDE),
            (KNOWN_TCP, OUTSIDE),
            (ANSWERS_TCP, INSIDE),
            (KNOWN_TCP, OUTSIDE),
        ]
    for load, interface in steps:
        scales.load(_on_their_side(replace(weighing, load=load)))
        scales.weigh(entry, interface, 20 * FLOWS)


def _on_their_side(weighing: Weighing) -> Load:
    """The packets to weigh with: what answers FULLNAT goes to local addresses."""
    load = weighing.load
    if weighing.method != "-b" or not load.backwards:
        return load
    return replace(load, ends=tuple(_local_ends(load.protocol)))


def _local_ends(protocol: int) -> Iterator[tuple[str, int]]:
    """Local addresses and ports of the flows, in their order."""
    tables = Tables()
    rows = tables.row("conns", layout.ConnRow * tables.settings.slots, 0)
    found = {
        (bytes(row.caddr)[:4], swap16(row.cport)): (str(ip_address(bytes(row.laddr)[:4])), swap16(row.lport))
        for row in rows
        if row.phase & layout.PHASE == layout.LIVE and row.protocol == protocol
    }
    first = int(ip_address(CLIENTS))
    for flow in range(FLOWS):
        yield found[(first + flow).to_bytes(4, "big"), FIRST_PORT + flow]


def _outcome(name: str) -> int:
    """Packets of that outcome at the director in this namespace."""
    names = [each for each, _ in layout.OUTCOMES]
    return sum(Tables().outcome_counts()[names.index(name)])


def _entry_program() -> int:
    """The entry program of the director in this namespace."""
    return libbpf.get_pinned(f"{Tables().generation_folder()}/{layout.PROGRAMS[0]}")
