"""How long clients go without an answer when a master dies: xlvs beside the real keepalived.

Two labs stand side by side, each a pair of directors over the same XDP data plane; in one
``xlvs keepalived`` does the VRRP, in the other the real one. Every plug is pulled in both at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from xlvs.errors import XlvsError
from xlvs.lab import build, namespaces, pair
from xlvs.lab.topology import PORT, SWITCH, VIP4, Method

ADVERT = 1.0  # seconds: pair.configuration
SKEW = (256 - pair.PRIORITIES[1]) / 256 * ADVERT  # RFC 3768 6.1, of the backup
BOUND = 3 * ADVERT + SKEW  # seconds without an advertisement after which the backup is the master
QUIET = 2.0  # seconds of answers that end a gap
PATIENCE = 60.0


@dataclass(frozen=True)
class Gap:
    """Seconds without an answer to clients while something happened, by whose VRRP."""

    event: str
    program: str
    seconds: float
    bound: float  # what the protocol allows


class Pair:
    """A lab of two directors, and a client that asks all the time."""

    def __init__(self, lab: build.Lab, asking: subprocess.Popen[bytes], log: Path) -> None:
        self.lab = lab
        self._asking = asking
        self._log = log

    def answers(self) -> list[float]:
        """When each answer came."""
        lines = self._log.read_text().split("\n")
        return [float(line) for line in lines[:-1]]

    def gap(self, begin: float, master: int) -> float:
        """Wait until director ``master`` alone has the VIP, and answers have come for a while.

        Returns the longest time without an answer since then.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._taken_over(master):
                came = self.answers()
                since = [begin, *(moment for moment in came if moment >= begin)]
                longest, end = max((after - before, after) for before, after in pairwise([*since, since[-1]]))
                if since[-1] - end >= QUIET:
                    return longest
            time.sleep(0.2)
        raise XlvsError(f"director {master} did not take over: {pair.masters(self.lab)} are masters")

    def _taken_over(self, master: int) -> bool:
        # What was killed or cut off cannot take its address away; where it returns, one must give way.
        found = pair.masters(self.lab)
        return found == [master] if master == 0 else master in found

    def kill_daemon(self, number: int) -> None:
        """SIGKILL the director's daemon and all its children."""
        folder = pair.folder(self.lab, number)
        for pid in namespaces.process_ids(self.lab.namespace(self.lab.topology.directors[number].name)):
            with suppress(OSError):  # it has gone meanwhile
                if folder in Path("/proc", str(pid), "cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
        for name in ("pid", "vrrp_pid", "checkers_pid"):
            Path(folder, f"{name}.pid").unlink(missing_ok=True)

    def start_daemon(self, number: int) -> None:
        """Start it again."""
        pair.launch(self.lab, number)

    def plug(self, number: int, state: str) -> None:
        """Pull the director's plugs out of the switch (``down``), or put them in (``up``)."""
        node = self.lab.topology.directors[number]
        lines = [f"link set dev {node.name}-{port.name} {state}" for port in node.interfaces]
        namespaces.batch(lines, self.lab.namespace(SWITCH))

    def kill_node(self, number: int) -> None:
        """The whole machine stops: nothing of it runs, and its wires are dead."""
        self.plug(number, "down")
        self.kill_daemon(number)

    def start_node(self, number: int) -> None:
        """It has booted again."""
        self.plug(number, "up")
        self.start_daemon(number)


@contextmanager
def paired(program: str, method: Method = Method.DR) -> Iterator[Pair]:
    """A lab with a pair of directors by that program, asked all the time."""
    lab = build.Lab(f"gap{os.getpid()}{program}", method, 2, False, pair=program)
    build.up(lab)
    log = Path(lab.folder, "answers")
    try:
        with open(log, "w") as file:
            command = [sys.executable, "-P", str(Path(__file__).with_name("asking.py")), VIP4, str(PORT)]
            asking = subprocess.Popen(namespaces.inside(lab.namespace("client"), command), stdout=file)
        try:
            yield Pair(lab, asking, log)
        finally:
            asking.kill()
            asking.wait()
    finally:
        build.down(lab)


# What happens to the first director, the master, and how it is repaired, each with what is allowed
# until the other answers: a plug pulled out is noticed by nobody but the backup's clock.
Action = Callable[[Pair, int], None]
EVENTS: tuple[tuple[str, Action, Action], ...] = (
    ("kill -9 of the daemon", Pair.kill_daemon, Pair.start_daemon),
    ("link", lambda pair, number: pair.plug(number, "down"), lambda pair, number: pair.plug(number, "up")),
    ("node", Pair.kill_node, Pair.start_node),
)


def measure(programs: Sequence[str] = pair.PROGRAMS, method: Method = Method.DR) -> Iterator[Gap]:
    """Each event in all labs at once, and the old master's return."""
    with ExitStack() as stack:
        pairs = {program: stack.enter_context(paired(program, method)) for program in programs}
        for each in pairs.values():
            each.gap(time.monotonic(), 0)
        for event, happen, repair in EVENTS:
            for name, action, master, bound in (
                (event, happen, 1, BOUND),
                (f"{event}: the old master returns", repair, 0, ADVERT),
            ):
                began = {}
                for program, each in pairs.items():
                    began[program] = time.monotonic()
                    action(each, 0)
                for program, each in pairs.items():
                    yield Gap(name, program, each.gap(began[program], master), bound)


def lines(found: Sequence[Gap]) -> list[str]:
    """A table, xlvs beside keepalived."""
    heads = "".join(f"{program:>14}" for program in pair.PROGRAMS)
    rows = [f"{'seconds without an answer':<48}{heads}{'allowed':>10}{'ratio':>8}"]
    for event in dict.fromkeys(each.event for each in found):
        mine = {each.program: each for each in found if each.event == event}
        took = [mine[program].seconds for program in pair.PROGRAMS]
        shown = "".join(f"{seconds:>14.2f}" for seconds in took)
        rows.append(f"{event:<48}{shown}{mine['xlvs'].bound:>10.2f}{took[0] / took[1]:>8.2f}")
    return rows


def main(as_json: bool) -> int:
    """Measure and print; 1 where xlvs took longer than the protocol allows."""
    found = list(measure())
    print(json.dumps([asdict(each) for each in found], indent=2) if as_json else "\n".join(lines(found)))
    return int(any(each.seconds > each.bound + 0.1 for each in found if each.program == "xlvs"))
