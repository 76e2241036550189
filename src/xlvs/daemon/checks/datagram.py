"""Checks by datagrams: one is sent, and what comes back, be it an ICMP error, is judged."""

from __future__ import annotations

import socket
from collections.abc import Callable

from xlvs.daemon.checks.events import READ, Events
from xlvs.daemon.checks.sockets import Asking, echo_socket, failure, prepared
from xlvs.health.answers import Answer
from xlvs.health.checks import NetworkCheck, PingCheck
from xlvs.health.datagrams import Exchange

_LONGEST = 65536
_AT_ONCE = 16  # datagrams that are no answer, before other checks have their turn again


class Datagram(Asking):
    """One attempt."""

    __slots__ = ("_exchange",)

    def __init__(
        self, events: Events, check: NetworkCheck, done: Callable[[Answer], None], exchange: Exchange
    ) -> None:
        super().__init__(events, done)
        self._exchange = exchange
        ping = isinstance(check, PingCheck)
        if not self._opened(lambda: echo_socket(check) if ping else prepared(check, socket.SOCK_DGRAM)):
            return
        events.watch(self._socket.fileno(), READ, self._ready)
        self._timer = events.at(events.now() + check.timeout, lambda: self._finish(exchange.silence))
        try:
            self._socket.connect((str(check.address), 0 if ping else check.port))
            self._socket.send(exchange.request)
        except OSError as error:
            self._finish_soon(failure(error.errno or 0, "cannot send"))

    def _ready(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                datagram = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError as error:
                self._finish(failure(error.errno or 0, "connection failed"))
                return
            answer = self._exchange.received(datagram)
            if answer is not None:
                self._finish(answer)
                return
