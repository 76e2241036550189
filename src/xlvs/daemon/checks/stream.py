"""Checks over TCP: a connection, TLS on it if wanted, and a dialogue if there is one."""

from __future__ import annotations

import errno
import socket
import ssl
import struct
from collections.abc import Callable

from xlvs.daemon.checks.events import READ, WRITE, Events
from xlvs.daemon.checks.sockets import Asking, failure, prepared
from xlvs.health.answers import PASSED, Answer, Dialogue
from xlvs.health.checks import NetworkCheck

_PIECE = 64 * 1024  # bytes read at a time
_AT_ONCE = 16  # pieces read before other checks have their turn again
_WHOLE = 10  # times the check's timeout: all that an attempt may take
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, no seconds


class Stream(Asking):
    """One attempt.

    The check's timeout is for the connection, and anew for each piece of what follows, as keepalived
    has it; but a server that goes on for ever is not waited for.
    """

    __slots__ = (
        "_check",
        "_context",
        "_dialogue",
        "_end",
        "_heard",
        "_name",
        "_phase",
        "_unsent",
    )

    def __init__(
        self,
        events: Events,
        check: NetworkCheck,
        done: Callable[[Answer], None],
        dialogue: Dialogue | None = None,
        context: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(events, done)
        self._check = check
        self._dialogue, self._context, self._name = dialogue, context, name
        self._unsent = b""
        self._phase = self._connected
        if not self._opened(lambda: prepared(check, socket.SOCK_STREAM)):
            return
        if check.bind_port:
            # The same port is needed again: no TIME_WAIT is to keep it.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        events.watch(self._socket.fileno(), WRITE, self._ready)
        self._heard = events.now()  # when something happened last
        self._end = self._heard + _WHOLE * check.timeout
        self._timer = events.at(self._heard + check.timeout, self._expired)
        error = self._socket.connect_ex((str(check.address), check.port))
        if error not in (0, errno.EINPROGRESS):
            self._finish_soon(failure(error, "connection failed"))

    def _ready(self) -> None:
        try:
            self._phase()
        except (ssl.SSLWantReadError, BlockingIOError):
            self._events.change(self._socket.fileno(), READ)
        except ssl.SSLWantWriteError:
            self._events.change(self._socket.fileno(), WRITE)
        except ssl.SSLError as error:
            self._finish(Answer(False, f"TLS: {error.reason or error}"))
        except OSError as error:
            self._finish(failure(error.errno or errno.EIO, "connection failed"))

    def _expired(self) -> None:
        due = min(self._heard + self._check.timeout, self._end)
        if self._events.now() < due:
            self._timer = self._events.at(due, self._expired)
            return
        texts = {"_connected": "Timeout connecting", "_shake_hands": "Timeout of the TLS handshake"}
        self._finish(Answer(False, texts.get(self._phase.__name__, "Timeout reading")))

    # -- phases, in order ---------------------------------------------------------------

    def _connected(self) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._finish(failure(error, "connection failed"))
        elif self._context is not None:
            self._events.forget(self._socket.fileno())
            # Bytes are sent as they are, as keepalived sends any virtualhost; a str must be a host's name.
            name = self._name.encode() if self._name and self._name.isascii() else self._name
            try:
                self._socket = self._context.wrap_socket(
                    self._socket, do_handshake_on_connect=False, server_hostname=name
                )
            except ValueError as error:
                self._finish(Answer(False, f"TLS: {error}"))
                return
            self._events.watch(self._socket.fileno(), WRITE, self._ready)
            self._phase = self._shake_hands
            self._heard = self._events.now()
            self._phase()
        else:
            self._open()

    def _shake_hands(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket.do_handshake()
        self._open()

    def _open(self) -> None:
        if self._dialogue is None:
            self._finish(PASSED)
            return
        self._phase = self._talk
        self._take(self._dialogue.opened())

    def _talk(self) -> None:
        """Send what is left to send, then read all there is."""
        assert self._dialogue is not None
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(_PIECE)
            except ConnectionError:
                self._finish(self._dialogue.ended(reset=True))
                return
            if not data:
                self._finish(self._dialogue.ended())
                return
            self._heard = self._events.now()
            if self._take(self._dialogue.received(data)):
                return

    def _take(self, step: bytes | Answer) -> bool:
        """What the dialogue says; True where that leaves nothing to read now."""
        if isinstance(step, Answer):
            self._finish(step)
            return True
        if step:
            self._unsent += step
            self._heard = self._events.now()
            self._events.change(self._socket.fileno(), WRITE)
            return True
        self._events.change(self._socket.fileno(), READ)
        return False
