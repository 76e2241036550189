"""The sockets that checks ask with: bound, marked, and never waiting."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xlvs.daemon.checks.events import Events, Timer
from xlvs.health.answers import Answer
from xlvs.health.checks import NetworkCheck

_PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")
# What connect and send say when it is the director that lacks something, not the server.
_OURS = frozenset((errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))


class Unasked(Exception):
    """The director could not ask: no socket, or not from there."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.answer = Answer(False, f"cannot ask: {error.strerror}", asked=False)


def failure(error: int, text: str) -> Answer:
    """The answer that an error of connecting, sending or receiving is."""
    reason = f"{text} ({os.strerror(error)})"
    return Answer(False, reason, asked=error not in _OURS)


def prepared(check: NetworkCheck, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that does not block, from where the check says. Raises :class:`Unasked`."""
    family = socket.AF_INET if check.address.version == 4 else socket.AF_INET6
    try:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    except OSError as error:
        raise Unasked(error) from None
    try:
        if check.fwmark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, check.fwmark)
        if check.bind_interface:
            device = check.bind_interface.encode("utf-8", "surrogateescape") + b"\0"
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        if check.bind_address is not None or check.bind_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(_source(check))
    except OSError as error:
        made.close()
        raise Unasked(error) from None
    return made


def _source(check: NetworkCheck) -> tuple[str, int] | tuple[str, int, int, int]:
    if check.bind_address is None:
        return ("" if check.address.version == 4 else "::"), check.bind_port
    if check.bind_address.version == 6 and check.bind_address.is_link_local and check.bind_interface:
        scope = socket.if_nametoindex(check.bind_interface)
        return str(check.bind_address), check.bind_port, 0, scope
    return str(check.bind_address), check.bind_port


class Asking:
    """One attempt over a socket. ``done`` is called once, unless it is closed before; it never blocks."""

    __slots__ = ("_done", "_events", "_socket", "_timer")

    _socket: socket.socket
    _timer: Timer

    def __init__(self, events: Events, done: Callable[[Answer], None]) -> None:
        self._events, self._done = events, done

    def _opened(self, make: Callable[[], socket.socket]) -> bool:
        """Make the socket; where that fails, that is the answer, and soon."""
        try:
            self._socket = make()
        except Unasked as refusal:
            answer = refusal.answer
            self._timer = self._events.at(self._events.now(), lambda: self._done(answer))
            return False
        return True

    def close(self) -> None:
        """End it without an answer."""
        self._timer.cancel()
        if hasattr(self, "_socket") and self._socket.fileno() >= 0:
            self._events.forget(self._socket.fileno())
            self._socket.close()

    def _finish(self, answer: Answer) -> None:
        self.close()
        self._done(answer)

    def _finish_soon(self, answer: Answer) -> None:
        """Finish, but not before who asked has heard that it was asked."""
        self._timer.cancel()
        self._events.forget(self._socket.fileno())  # it is ready in a way, and would look connected
        self._timer = self._events.at(self._events.now(), lambda: self._finish(answer))


def echo_socket(check: NetworkCheck) -> socket.socket:
    """A socket for echo requests, which the kernel gives to the groups in a sysctl.

    By default that is no group at all: root's is let in then, as keepalived does.
    """
    protocol = socket.IPPROTO_ICMP if check.address.version == 4 else socket.IPPROTO_ICMPV6
    try:
        return prepared(check, socket.SOCK_DGRAM, protocol)
    except Unasked:
        with suppress(OSError):
            low, high = map(int, _PING_GROUPS.read_text().split())
            if low > high:
                _PING_GROUPS.write_text(f"{os.getegid()} {os.getegid()}")
    return prepared(check, socket.SOCK_DGRAM, protocol)


def allow_many(sockets: int) -> None:
    """Raise the limit of open files, as far as it may be, for this many at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
                return
            wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
