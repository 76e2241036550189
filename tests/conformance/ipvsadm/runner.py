"""The table's command lines through xlvs's own ipvsadm, against any engine."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from tests.conformance.ipvsadm.table import Answer, Section, Step
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.dataplane.port import DataPlane
from xlvs.ipvsadm import messages
from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.options import FIRST, FOLLOWING, following
from xlvs.ipvsadm.popt import ScanError, Scanner
from xlvs.ipvsadm.program import Program
from xlvs.ipvsadm.stream import command_lines
from xlvs.model import Timeouts

# The first line of listings says how big the connection table is, which is the engine's own affair.
_SIZE = re.compile(r"(?m)^(IP Virtual Server version [0-9.]+) \(size=\d+\)$")
# A deviation of docs/deviations.md: -S names thresholds and unsigned marks, so that -R does not lose them.
_THRESHOLDS = re.compile(r"(?m)^(-a .+ -w \d+)(?: -x \d+)?(?: -y \d+)?")
_MARK = re.compile(r"(?m)^(-[Aa] -f )(-\d+)")
_OWN_USAGE = messages.OWN_USAGE.replace("{0}", "ipvsadm")


class GuestNames(Names):
    """Names of hosts as the recording guest knows them; names of ports are everybody's."""

    def address(self, name: str) -> bytes | None:
        """See Names."""
        return bytes((127, 0, 0, 1)) if name == "localhost" else None

    def host_name(self, family: int, address: bytes) -> str | None:  # noqa: ARG002  as in Names
        """See Names."""
        return "localhost" if address == bytes((127, 0, 0, 1)) else None


def run_section(section: Section, make_plane: Callable[[], DataPlane]) -> Iterator[tuple[Step, Answer]]:
    """Run a section on the engine that ``make_plane`` gives, from an empty table on."""
    plane = make_plane()
    with plane.transaction() as transaction:
        transaction.flush()
        transaction.set_timeouts(Timeouts(900, 120, 300))
    for step in section.steps:
        yield step, run_step(step, lambda: plane)


def run_recorded(section: Section) -> Iterator[tuple[Step, Answer]]:
    """Run a section on the in-memory engine."""
    return run_section(section, MemoryDataPlane)


def run_step(step: Step, open_plane: Callable[[], DataPlane]) -> Answer:
    """Run one command line in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    program = Program(open_plane, lambda: step.stdin, stdout, stderr, GuestNames())
    name, *arguments = step.argv
    with without_deviation(arguments, step.stdin):
        if name == "ipvsadm-save":
            status = program.save(arguments)
        elif name == "ipvsadm-restore":
            status = program.restore()
        else:
            status = program.run(arguments)
    return Answer(stdout.getvalue(), stderr.getvalue(), status)


@contextmanager
def without_deviation(arguments: Sequence[str], stdin: str) -> Iterator[None]:
    """The one deviation on purpose, off for command lines that have it: ``-a ... -b`` is FULLNAT.

    The real program takes that ``-b`` with a value, and refuses it; all else that it says of
    such a line is compared.
    """
    lines = [arguments, *(words for _, words in command_lines(stdin))]
    if not any(_says_fullnat(words) for words in lines):
        yield
        return
    with patch.dict(FOLLOWING):
        del FOLLOWING["add-server"], FOLLOWING["edit-server"]
        yield


def _says_fullnat(words: Sequence[str]) -> bool:
    scanner = Scanner(words)
    try:
        for option, _ in scanner.options():
            if option.long == "fullnat":
                return True
            if scanner.vocabulary is FIRST:
                scanner.vocabulary = following(option.long)
    except ScanError:
        pass
    return False


def comparable(answer: Answer) -> Answer:
    """An answer without what may differ."""
    stdout = answer.stdout.replace(_OWN_USAGE, "")
    stdout = _THRESHOLDS.sub(r"\1", _SIZE.sub(r"\1 (size=N)", stdout))
    stdout = _MARK.sub(lambda found: f"{found[1]}{int(found[2]) & 0xFFFFFFFF}", stdout)
    return Answer(stdout, answer.stderr, answer.status)
