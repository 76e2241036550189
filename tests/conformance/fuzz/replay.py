"""Our side: xlvs ipvsadm in this process, and what counts as the same answer."""

from __future__ import annotations

import io
import shlex
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from errno import EINVAL, ENETUNREACH
from ipaddress import ip_address, ip_interface

from tests.conformance.fuzz.commands import Command
from tests.conformance.fuzz.recording import LISTINGS, RESET, Step
from tests.conformance.fuzz.vocabulary import HOSTS, INTERFACES
from tests.conformance.ipvsadm.runner import comparable as without_own
from tests.conformance.ipvsadm.runner import without_deviation
from tests.conformance.ipvsadm.table import Answer
from xlvs.dataplane.host import BareHost
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.dataplane.port import DataPlane
from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.program import Program

_LISTED = "".join(f"{listing}\n" for listing in LISTINGS)


class HostsFile(Names):
    """Names as /etc/hosts has them where it is HOSTS, and no other source."""

    def __init__(self) -> None:
        super().__init__()
        self._by_name: dict[str, bytes] = {}
        self._by_address: dict[bytes, str] = {}
        for line in HOSTS.splitlines():
            text, *names = line.split()
            address = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
            self._by_address[address] = names[0]
            if len(address) == 4:
                self._by_name |= dict.fromkeys(names, address)

    def address(self, name: str) -> bytes | None:
        """See Names."""
        return self._by_name.get(name.lower())

    def host_name(self, family: int, address: bytes) -> str | None:  # noqa: ARG002  as in Names
        """See Names."""
        return self._by_address.get(address)


class GuestHost(BareHost):
    """The addresses and interfaces of the recording guest."""

    def __init__(self) -> None:
        self._networks = [ip_interface(text) for _, _, texts in INTERFACES.values() for text in texts]

    def is_local(self, address: bytes) -> bool:
        """See Host; 127.0.0.0/8 and ::1 are everybody's own."""
        own = ip_address(address)
        return own.is_loopback or any(own == network.ip for network in self._networks)

    def is_broadcast(self, address: bytes) -> bool:
        """See Host."""
        wanted = ip_address(address)
        return any(
            network.version == 4 and wanted == network.network.broadcast_address for network in self._networks
        )

    def interface_mtu(self, name: str) -> int | None:
        """See Host."""
        return 65536 if name == "lo" else INTERFACES[name][0] if name in INTERFACES else None

    def multicast_error(self, interface: str, group: bytes, *, sending: bool) -> int:
        """See Host: IPv6 needs an MTU of its own, and lo has no route to its groups."""
        mtu, state, _ = INTERFACES.get(interface, (65536, "up", ()))
        six = len(group) == 16
        if sending:
            return ENETUNREACH if state == "down" or (six and (mtu < 1280 or interface == "lo")) else 0
        return EINVAL if six and mtu < 1280 else 0


def memory_plane() -> MemoryDataPlane:
    """The in-memory engine on a machine like the recording guest."""
    return MemoryDataPlane(host=GuestHost())


def differences(steps: Iterable[Step], plane: DataPlane, names: Names) -> Iterator[str]:
    """Run one sequence's commands on ``plane``; what is not as recorded, in words with the history."""
    for words in RESET:
        _run(Command(tuple(words.split())), plane, names)
    history: list[str] = []
    saved = ""
    for step in steps:
        command = step.command
        if command.stdin is None:
            command = replace(command, stdin=saved)
        answer = _run(command, plane, names)
        listed = _run(Command(("-R",), _LISTED), plane, names)
        if command.save:
            saved = step.answer.stdout
        history.append(shown(command))
        ours = comparable(answer, command), comparable(listed).stdout
        real = comparable(step.answer, command), comparable(Answer(step.listings, "", 0)).stdout
        if ours != real:
            yield explain(history, *real, *ours)


def _run(command: Command, plane: DataPlane, names: Names) -> Answer:
    stdout, stderr = io.StringIO(), io.StringIO()
    program = Program(lambda: plane, lambda: command.stdin or "", stdout, stderr, names)
    with without_deviation(command.arguments, command.stdin or ""):
        status = program.run(command.arguments)
    return Answer(stdout.getvalue(), stderr.getvalue(), status)


def shown(command: Command) -> str:
    """A command as a shell would take it."""
    line = shlex.join(("ipvsadm", *command.arguments))
    return f"{line} <<< {shlex.quote(command.stdin)}" if command.stdin else line


def comparable(answer: Answer, command: Command | None = None) -> Answer:
    """An answer to ``command`` without what may differ."""
    answer = without_own(answer)
    if command and any("--nosort" in text for text in (*command.arguments, command.stdin or "")):
        return replace(answer, stdout=_services_sorted(answer.stdout))
    return answer


def _services_sorted(listing: str) -> str:
    """A listing with its services in one order: with --nosort the kernel's hash decides, seeded at boot."""
    blocks: list[list[str]] = [[]]
    for line in listing.splitlines(keepends=True):
        if line.startswith(("TCP ", "UDP ", "SCTP ", "FWM ")):
            blocks.append([])
        blocks[-1].append(line)
    return "".join(line for block in (blocks[0], *sorted(blocks[1:])) for line in block)


def explain(history: list[str], real: Answer, real_listed: str, ours: Answer, our_listed: str) -> str:
    """Commands up to the difference, and the difference."""
    parts = [*history, f"  real: {real}", f"  ours: {ours}"]
    if real_listed != our_listed:
        import difflib

        parts += difflib.unified_diff(
            real_listed.splitlines(), our_listed.splitlines(), "real", "ours", lineterm="", n=2
        )
    return "\n".join(parts)
