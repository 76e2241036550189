"""An ipvsadm in this process, with its streams in hand."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.program import Program


class NoNames(Names):
    """A resolver that knows nobody, so that no test asks a name server."""

    def address(self, _name: str) -> bytes | None:
        """See Names."""
        return None

    def host_name(self, _family: int, _address: bytes) -> str | None:
        """See Names."""
        return None


@dataclass
class Console:
    """What a command said last: ``out``, ``err``, and the exit status that ``run`` returns."""

    plane: MemoryDataPlane = field(default_factory=MemoryDataPlane)
    out: str = ""
    err: str = ""

    def run(self, command: str, stdin: str = "") -> int:
        """Run an ipvsadm command line, cut at its blanks."""
        return self.run_words(command.split(), stdin)

    def run_words(self, words: list[str], stdin: str = "") -> int:
        """Run an ipvsadm command line of arbitrary arguments."""
        stdout, stderr = io.StringIO(), io.StringIO()
        status = Program(lambda: self.plane, lambda: stdin, stdout, stderr, NoNames()).run(words)
        self.out, self.err = stdout.getvalue(), stderr.getvalue()
        return status
