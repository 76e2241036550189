"""How long clients go without an answer when a master dies: xlvs beside the real keepalived.

Two labs stand side by side, each a pair of directors over the same XDP data plane; in one
``xlvs keepalived`` does the VRRP, in the other the real one. They take turns, and every plug is pulled
at the same moment after an advert that was seen on the wire: when a master's last word was decides
more than anything that the backup does.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise, product, repeat
from pathlib import Path

from bench.adverts import Wire
from xlvs.errors import XlvsError
from xlvs.lab import build, namespaces, pair
from xlvs.lab.topology import PORT, SWITCH, VIP4, Method

ADVERT = 1.0  # seconds: pair.configuration
SKEW = (256 - pair.PRIORITIES[1]) / 256 * ADVERT  # RFC 3768 6.1, of the backup
BOUND = 3 * ADVERT + SKEW  # seconds without an advertisement after which the backup is the master
PHASE = 0.5  # seconds after an advert that the plug is pulled
TURNS = 3
QUIET = 1.5  # seconds of answers that end a gap
SLACK = 0.1  # seconds beyond the protocol's that timers, addresses, neighbours and the next question may take
PATIENCE = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gap:
    """What happened to a master, by whose VRRP, and what it came to; all in seconds."""

    event: str
    program: str
    seconds: float  # the longest time that clients were without an answer
    bound: float  # what the protocol allows of that
    silence: float | None  # from the last advert of the old master to the first of the new; None: not silent
    answered: float | None  # from that first advert to the first answer
    both: float  # from the first advert of the new master to the last of the other: two masters


class Pair:
    """A lab of two directors, what is heard on its wire, and a client that asks all the time."""

    def __init__(self, lab: build.Lab, wire: Wire, log: Path) -> None:
        self.lab = lab
        self.wire = wire
        self._log = log

    def answers(self) -> list[float]:
        """When each answer came."""
        lines = self._log.read_text().split("\n")
        return [float(line) for line in lines[:-1]]

    def gap(self, begin: float, master: int) -> float:
        """Wait until director ``master`` has the VIP, and answers have come for a while.

        Returns the longest time without an answer since then.
        """
        return self._longest(begin, master)[0]

    def _longest(self, begin: float, master: int) -> tuple[float, float]:
        """That time, and when it ended."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._taken_over(master):
                came = self.answers()
                first = max(bisect_left(came, begin) - 1, 0)  # the last answer before counts as the begin
                pairs = pairwise(came[first:])
                longest, end = max(((after - before, after) for before, after in pairs), default=(0.0, begin))
                if came and came[-1] - max(end, begin) >= QUIET:
                    return longest, end
            time.sleep(0.1)
        raise XlvsError(f"director {master} did not take over: {pair.masters(self.lab)} are masters")

    def _taken_over(self, master: int) -> bool:
        # What was killed or cut off cannot take its address away; where it returns, one must give way.
        found = pair.masters(self.lab)
        return found == [master] if master == 0 else master in found

    def play(self, event: Event, program: str) -> list[Gap]:
        """The event, and the old master's return."""
        return [self.happen(event, program), self.repair(event, program)]

    def happen(self, event: Event, program: str) -> Gap:
        """The event, a moment after an advert of the master, until the other serves."""
        act = event.happen(self, 0)
        last = self._due(0)
        act()
        pulled = time.monotonic()
        longest, end = self._longest(last + PHASE, 1)
        heard = self.wire.read()
        spoken = [each.moment for each in heard if each.number == 0 and each.priority]
        before = max(moment for moment in spoken if moment <= pulled)
        since = [each for each in heard if each.moment > last]
        taken = next(each.moment for each in since if each.number == 1 and each.priority)
        said_so = any(each.number == 0 and each.priority == 0 for each in since)
        return Gap(
            event=event.name,
            program=program,
            seconds=longest,
            bound=BOUND - (pulled - before) if event.cuts else 0.0,
            silence=None if said_so else taken - before,
            answered=end - taken if event.cuts else None,
            both=0.0,
        )

    def repair(self, event: Event, program: str) -> Gap:
        """The old master returns, and is the master again."""
        act = event.repair(self, 0)
        began = self._due(1) + PHASE
        act()
        longest, _ = self._longest(began, 0)
        heard = [each for each in self.wire.read() if each.moment >= began and each.priority]
        first = next(each.moment for each in heard if each.number == 0)
        others = [each.moment for each in heard if each.number == 1]
        both = max(0.0, max(others, default=first) - first)
        return Gap(f"{event.name}: return", program, longest, ADVERT, None, None, both)

    def _due(self, number: int) -> float:
        """Wait until an advert of that director is as old as it has to be: when it came."""
        heard = self.wire.next_advert(number, 10 * ADVERT)
        time.sleep(max(0.0, heard + PHASE - time.monotonic()))
        return heard

    # -- what can happen ----------------------------------------------------------------

    def processes(self, number: int) -> list[int]:
        """The director's daemon and all its children."""
        folder, found = pair.folder(self.lab, number), []
        for pid in namespaces.process_ids(self.lab.namespace(self.lab.topology.directors[number].name)):
            with suppress(OSError):  # it has gone meanwhile
                if folder in Path("/proc", str(pid), "cmdline").read_text():
                    found.append(pid)
        return found

    def kill_daemon(self, number: int) -> None:
        """SIGKILL the director's daemon and all its children."""
        _kill(self.processes(number))

    def start_daemon(self, number: int) -> None:
        """Start it again."""
        for name in ("pid", "vrrp_pid", "checkers_pid"):
            Path(pair.folder(self.lab, number), f"{name}.pid").unlink(missing_ok=True)
        pair.launch(self.lab, number)

    def plug(self, number: int, state: str) -> None:
        """Pull the director's plugs out of the switch (``down``), or put them in (``up``)."""
        lines = [f"link set dev {port} {state}" for port in self._ports(number)]
        namespaces.batch(lines, self.lab.namespace(SWITCH))

    def isolate(self, number: int, alone: bool) -> None:
        """The switch forwards nothing of the director's, which does not see that; or everything again."""
        state = "0" if alone else "3"  # linux/if_bridge.h: BR_STATE_DISABLED, BR_STATE_FORWARDING
        for port in self._ports(number):
            command = ["bridge", "link", "set", "dev", port, "state", state]
            namespaces.run(namespaces.inside(self.lab.namespace(SWITCH), command))

    def _ports(self, number: int) -> list[str]:
        node = self.lab.topology.directors[number]
        return [f"{node.name}-{port.name}" for port in node.interfaces]

    def kill_node(self, number: int) -> None:
        """The whole machine stops: nothing of it runs, and its wires are dead."""
        self.plug(number, "down")
        self.kill_daemon(number)

    def start_node(self, number: int) -> None:
        """It has booted again."""
        self.plug(number, "up")
        self.start_daemon(number)


def _kill(processes: Sequence[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# What happens to a director, in two steps: everything that takes time, and what that returns, at the moment.
Action = Callable[[Pair, int], Callable[[], None]]


@dataclass(frozen=True)
class Event:
    """What happens to the first director, the master, and how it is repaired.

    ``cuts``: clients are without an answer until the other director takes over; else the data plane
    serves on.
    """

    name: str
    happen: Action
    repair: Action
    cuts: bool = True


def _kill_daemon(each: Pair, number: int) -> Callable[[], None]:
    processes = each.processes(number)
    return lambda: _kill(processes)


def _kill_parent(each: Pair, number: int) -> Callable[[], None]:
    process = int(Path(pair.folder(each.lab, number), "pid.pid").read_text())
    return lambda: _kill([process])


def _kill_node(each: Pair, number: int) -> Callable[[], None]:
    processes = each.processes(number)

    def act() -> None:
        each.plug(number, "down")
        _kill(processes)

    return act


EVENTS = (
    Event(
        "kill -9 of all its processes",
        _kill_daemon,
        lambda each, number: lambda: each.start_daemon(number),
        cuts=False,
    ),
    Event(
        "kill -9 of the parent",
        _kill_parent,
        lambda each, number: lambda: each.start_daemon(number),
        cuts=False,
    ),
    Event(
        "link",
        lambda each, number: lambda: each.plug(number, "down"),
        lambda each, number: lambda: each.plug(number, "up"),
    ),
    Event(
        "link, unseen by the master",
        lambda each, number: lambda: each.isolate(number, True),
        lambda each, number: lambda: each.isolate(number, False),
    ),
    Event("node", _kill_node, lambda each, number: lambda: each.start_node(number)),
)


@contextmanager
def paired(program: str, method: Method = Method.DR) -> Iterator[Pair]:
    """A lab with a pair of directors by that program, asked all the time."""
    lab = build.Lab(f"gap{os.getpid()}{program}", method, 2, False, pair=program)
    build.up(lab)
    log = Path(lab.folder, "answers")
    try:
        with open(log, "w") as file:
            command = [sys.executable, "-P", str(Path(__file__).with_name("asking.py")), VIP4, str(PORT)]
            asking = subprocess.Popen(
                namespaces.inside(lab.namespace("client"), command),
                stdout=file,
                start_new_session=True,  # Ctrl-C is for whoever takes the lab down
            )
        wire = Wire(lab)
        try:
            yield Pair(lab, wire, log)
        finally:
            wire.close()
            asking.kill()
            asking.wait()
    finally:
        build.down(lab)


def measure(
    turns: int = TURNS,
    events: Sequence[Event] = EVENTS,
    say: Say = lambda _: None,
    together: bool = False,
) -> Iterator[Gap]:
    """Each event and the old master's return, in both labs by turns; who is first changes each time.

    ``together``: in both at once, which takes half the time, and leaves each half a machine.
    """
    with build.sigterm_interrupts(), ExitStack() as stack:
        pairs = {}
        for program in pair.PROGRAMS:
            say(f"a lab with a pair of directors by {program}")
            pairs[program] = stack.enter_context(paired(program))
        for each in pairs.values():
            each.gap(time.monotonic(), 0)

        for turn, event in product(range(turns), events):
            order = sorted(pairs, reverse=turn % 2 == 0)
            for program in order:
                say(f"turn {turn + 1} of {turns}: {event.name}, {program}")
                if not together:
                    yield from pairs[program].play(event, program)
            if together:
                with ThreadPoolExecutor() as pool:
                    for found in pool.map(Pair.play, pairs.values(), repeat(event), pairs):
                        yield from found


def lines(found: Sequence[Gap]) -> list[str]:
    """Two tables, xlvs beside keepalived: medians, and the worst in brackets."""
    heads = "".join(f"{program:>16}" for program in pair.PROGRAMS)
    rows = [f"{'seconds without an answer: median (worst)':<44}{heads}{'allowed':>10}{'ratio':>8}"]
    names = list(dict.fromkeys(each.event for each in found))
    for name in names:
        took = {program: _of(found, name, program, "seconds") for program in pair.PROGRAMS}
        mine = statistics.median(took["xlvs"])
        bound = max(each.bound for each in found if each.event == name)
        shown = "".join(f"{_middle(values, 1, 2):>16}" for values in took.values())
        # Where the data plane serves on there is nothing to compare but the machine's mood.
        ratio = f"{mine / statistics.median(took['keepalived']):.2f}" if bound > ADVERT else ""
        rows.append(f"{name:<44}{shown}{bound:>10.2f}{ratio:>8}".rstrip())
    rows.append("")
    rows.append(f"{'milliseconds: median (worst)':<44}{heads}{'allowed':>10}")
    for text, field, bound in (
        ("old master's last advert to new one's first", "silence", BOUND),
        ("new master's first advert to first answer", "answered", SLACK),
        ("return: first advert to the other's last", "both", ADVERT),
    ):
        shown = ""
        for program in pair.PROGRAMS:
            values = [value for name in names for value in _of(found, name, program, field)]
            shown += f"{_middle(values, 1000, 0):>16}"
        rows.append(f"{text:<44}{shown}{1000 * bound:>10.0f}")
    rows.append("")
    rows.append("xlvs checks its real servers, too: after a dead link unseen, the next check puts them back.")
    return rows


def _of(found: Sequence[Gap], name: str, program: str, field: str) -> list[float]:
    mine = [getattr(each, field) for each in found if (each.event, each.program) == (name, program)]
    return [value for value in mine if value is not None]


def _middle(values: Sequence[float], times: int, digits: int) -> str:
    if not values:
        return "-"
    return f"{times * statistics.median(values):.{digits}f} ({times * max(values):.{digits}f})"


def main(as_json: bool, quick: bool, say: Say) -> int:
    """Measure and print; 1 where xlvs, by its median, took longer than the protocol allows."""
    found = list(measure(1 if quick else TURNS, say=say))
    say("")
    print(json.dumps([asdict(each) for each in found], indent=2) if as_json else "\n".join(lines(found)))
    mine = [each for each in found if each.program == "xlvs"]
    beyond: dict[str, list[float]] = {each.event: [] for each in mine}
    for each in mine:
        beyond[each.event].append(each.seconds - each.bound)
    return int(not quick and any(statistics.median(values) > SLACK for values in beyond.values()))
