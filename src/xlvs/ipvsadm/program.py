"""Running one ipvsadm command line against a data plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from errno import ESRCH
from typing import Protocol

from xlvs.dataplane.port import DataPlane, Transaction
from xlvs.errors import IpvsError, NotCarried
from xlvs.ipvsadm import messages
from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.order import sorted_services
from xlvs.ipvsadm.parser import parse
from xlvs.ipvsadm.request import Quit, Request, fail
from xlvs.ipvsadm.stream import command_lines
from xlvs.model import Forward, LocalEntry, ServiceEntry, ServiceKey

_SHOWING = ("list", "save", "get-laddr")
_BLOCK = 1 << 16  # characters written at once


class Output(Protocol):
    """As much of a text stream as is needed here."""

    def write(self, text: str, /) -> object:
        """Write a text."""


class Program:
    """ipvsadm with its surroundings.

    ``open_plane`` gives the data plane and is called once at most, only by command
    lines that need one. ``read_input`` gives all of standard input, for ``-R``.
    """

    def __init__(
        self,
        open_plane: Callable[[], DataPlane],
        read_input: Callable[[], str],
        stdout: Output,
        stderr: Output,
        names: Names | None = None,
    ) -> None:
        self._open_plane = open_plane
        self._plane: DataPlane | None = None
        self._read_input = read_input
        self._stdout = stdout
        self._stderr = stderr
        self._names = names or Names()
        self._watched: set[ServiceKey] = set()

    def run(self, arguments: Sequence[str]) -> int:
        """Run ``ipvsadm ARGUMENTS`` and give its exit status."""
        try:
            request = parse(arguments, self._names) if arguments else Request("list")
            if request.command == "restore":
                return self._restore(request)
            return self._run(request)
        except Quit as quit_:
            return self._quit(quit_)

    def save(self, arguments: Sequence[str]) -> int:
        """Run ``ipvsadm-save``, which knows no option but ``-n``."""
        if any(argument.startswith("-") and argument != "-n" for argument in arguments):
            self._stderr.write(messages.SAVE_HELP)
            return 1
        return self.run(["-S", "-n"] if "-n" in arguments else ["-S"])

    def restore(self) -> int:
        """Run ``ipvsadm-restore``: the rules on standard input take the place of those there are.

        It reads no argument. Lines that begin with ``#`` are remarks here. Unlike the script
        of that name this is one change: nobody sees the empty table in between.
        """
        text = "".join(f"{line}\n" for line in self._read_input().split("\n") if line[:1] != "#")
        try:
            return self._apply(text, Request("clear"))
        except Quit as quit_:
            return self._quit(quit_)

    def _plane_now(self) -> DataPlane:
        if self._plane is None:
            self._plane = self._open_plane()
        return self._plane

    def _run(self, request: Request) -> int:
        """Show or change something; not for ``-R``."""
        if request.command in _SHOWING:
            self._show(request)
            return 0
        with self._plane_now().transaction() as transaction:
            status = self._change(transaction, request)
        self._warn()
        return status

    def _change(self, transaction: Transaction, request: Request) -> int:
        """Apply one change, and say what was wrong with it where it was refused."""
        try:
            apply(transaction, request)
        except IpvsError as error:
            self._stderr.write(f"{messages.refusal(request.command, error)}\n")
            return 255
        except NotCarried as error:
            self._stderr.write(f"xlvs: {error}\n")
            return 1
        self._watch(request)
        return 0

    def _watch(self, request: Request) -> None:
        """Remember a service that may need local addresses now."""
        destination = request.destination
        fullnat = destination is not None and destination.forward == Forward.FULLNAT
        if request.key is not None and (fullnat or request.command == "del-laddr"):
            self._watched.add(request.key)

    def _warn(self) -> None:
        """Name the services changed just now whose FULLNAT servers have no local address of their family."""
        if not self._watched:
            return
        from xlvs.ipvsadm.listing import pool_gaps

        plane = self._plane_now()
        found = map(plane.service, self._watched) if len(self._watched) == 1 else plane.services()
        for entry in found:
            if entry is not None and entry.service.key in self._watched:
                for gap in pool_gaps(entry):
                    self._stderr.write(f"xlvs: {gap}\n")
        self._watched.clear()

    def _restore(self, request: Request) -> int:
        if request.has("atomic"):
            return self._apply_atomically(self._read_input())
        return self._apply(self._read_input())

    def _apply(self, text: str, first: Request | None = None) -> int:
        """Run the lines of ``-R`` as one transaction; wrong ones are reported, the rest goes in.

        As in the real program some mistakes end it, with what came before them done. A
        line that shows something ends the transaction, so that it shows what was done.
        """
        lines = command_lines(text)
        status = 0
        while True:
            showing: Request | None = None
            ending: Quit | None = None
            with self._plane_now().transaction() as transaction:
                if first is not None:
                    apply(transaction, first)
                    first = None
                for _, arguments in lines:
                    try:
                        request = self._parse_line(arguments)
                    except Quit as quit_:
                        if quit_.ends_restore:
                            ending = quit_
                            break
                        status = self._quit(quit_)
                        continue
                    if request.command in _SHOWING:
                        showing = request
                        break
                    status = self._change(transaction, request)
            if ending is not None:
                raise ending
            if showing is None:
                self._warn()
                return status
            self._show(showing)
            status = 0

    def _apply_atomically(self, text: str) -> int:
        """Run the lines of ``-R --atomic``: all of them, or none and say which one was wrong."""
        try:
            with self._plane_now().transaction() as transaction:
                for number, arguments in command_lines(text):
                    try:
                        request = self._parse_line(arguments)
                        if request.command in _SHOWING:
                            raise fail(f"Illegal '{request.command}' command with the 'atomic' option")
                        apply(transaction, request)
                    except Quit as quit_:
                        raise _Undone(number, quit_.stderr or quit_.stdout, quit_.status or 2) from None
                    except IpvsError as error:
                        reason = messages.refusal(request.command, error)
                        raise _Undone(number, reason, 255) from None
                    except NotCarried as error:
                        raise _Undone(number, str(error), 1) from None
                    self._watch(request)
        except _Undone as undone:
            self._stderr.write(f"line {undone.line}: {undone.reason}; nothing was changed\n")
            return undone.status
        self._warn()
        return 0

    def _parse_line(self, arguments: list[str]) -> Request:
        request = parse(arguments, self._names)
        if request.command == "restore":
            raise Quit(255, stderr=messages.try_help("ipvsadm"))
        return request

    def _show(self, request: Request) -> None:
        self._write(self._lines(request))

    def _lines(self, request: Request) -> Iterator[str]:
        """What a listing prints, in pieces that are complete with their line ends."""
        # Listings are imported where they are made: a restore of rules needs none of them.
        plane = self._plane_now()
        names = None if request.has("numeric") else self._names
        if request.has("json"):
            yield from self._document(request)
        elif request.command == "get-laddr":
            from xlvs.ipvsadm.listing import pool_lines

            yield from _ended(pool_lines(self._pools(request)))
        elif request.command == "save":
            from xlvs.ipvsadm.listing import rule_lines

            yield from _ended(rule_lines(sorted_services(plane.services()), names))
        elif request.has("connection"):
            from xlvs.ipvsadm.connections import connection_pieces

            blocks = plane.connection_blocks()
            persistent, local = request.has("persistent-conn"), request.has("local")
            yield from connection_pieces(blocks, persistent, names, local=local)
        elif request.has("timeout"):
            timeouts = plane.timeouts()
            yield f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"
        elif request.has("daemon"):
            from xlvs.ipvsadm.listing import daemon_line

            yield from _ended(daemon_line(daemon) for daemon in plane.daemons())
        else:
            from xlvs.ipvsadm.listing import header, service_lines

            entries = self._entries(request)
            if request.key is None:
                yield f"{header(plane.info())}\n"
            yield from _ended(service_lines(entries, request, names))

    def _document(self, request: Request) -> Iterator[str]:
        from xlvs.ipvsadm import document

        plane = self._plane_now()
        if request.command == "get-laddr":
            return document.pools_document(self._pools(request))
        if request.has("connection"):
            return document.connections_document(plane.connections())
        if request.has("timeout"):
            return document.timeouts_document(plane.timeouts())
        if request.has("daemon"):
            return document.daemons_document(plane.daemons())
        return document.services_document(plane.info(), self._entries(request))

    def _entries(self, request: Request) -> list[ServiceEntry]:
        """The services that a listing is about, in its order."""
        plane = self._plane_now()
        if request.key is not None:
            entry = plane.service(request.key)
            if entry is None:
                raise Quit(1, stderr=f"{messages.reason(request.command, ESRCH)}\n")
            return [entry]
        entries = plane.services()
        return entries if request.has("nosort") else sorted_services(entries)

    def _pools(self, request: Request) -> list[tuple[ServiceKey, list[LocalEntry]]]:
        """Local addresses of the services that -G is about: the one named, or all of FULLNAT."""
        pools = self._plane_now().local_addresses()
        return [
            (entry.service.key, pools.get(entry.service.key, []))
            for entry in self._entries(request)
            if request.key is not None or entry.local_addresses or uses_fullnat(entry)
        ]

    def _write(self, pieces: Iterable[str]) -> None:
        waiting: list[str] = []
        length = 0
        for piece in pieces:
            waiting.append(piece)
            length += len(piece)
            if length >= _BLOCK:
                self._stdout.write("".join(waiting))
                waiting.clear()
                length = 0
        self._stdout.write("".join(waiting))

    def _quit(self, quit_: Quit) -> int:
        if quit_.stdout:
            self._stdout.write(quit_.stdout)
        if quit_.stderr:
            self._stderr.write(quit_.stderr)
        return quit_.status


class _Undone(Exception):
    """Leaves a transaction so that it is undone."""

    def __init__(self, line: int, reason: str, status: int) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason.rstrip("\n")
        self.status = status


def apply(transaction: Transaction, request: Request) -> None:
    """Make the change that a request asks for; raises what the transaction raises."""
    command, key = request.command, request.key
    if request.service is not None:
        if command == "add-service":
            transaction.add_service(request.service)
        else:
            transaction.edit_service(request.service)
    elif request.destination is not None:
        assert key is not None
        if command == "add-server":
            transaction.add_destination(key, request.destination)
        elif command == "edit-server":
            transaction.edit_destination(key, request.destination)
        else:
            transaction.delete_destination(key, request.destination.key)
    elif request.local_addresses is not None:
        assert key is not None
        if command == "add-laddr":
            transaction.add_local_addresses(key, request.local_addresses)
        else:
            transaction.delete_local_addresses(key, request.local_addresses)
    elif request.timeouts is not None:
        transaction.set_timeouts(request.timeouts)
    elif command == "delete-service":
        assert key is not None
        transaction.delete_service(key)
    elif command == "clear":
        transaction.flush()
    elif command == "zero":
        transaction.zero(key)
    elif request.daemon is not None:
        if command == "start-daemon":
            transaction.start_daemon(request.daemon)
        else:
            transaction.stop_daemon(request.daemon.role)
    else:
        raise AssertionError(command)


def uses_fullnat(entry: ServiceEntry) -> bool:
    """Whether a service has destinations of FULLNAT."""
    return any(each.destination.forward == Forward.FULLNAT for each in entry.destinations)


def _ended(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)
