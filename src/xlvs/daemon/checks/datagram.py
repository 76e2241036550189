"""Checks by datagrams: one is sent, and what comes back, be it an ICMP error, is judged."""

from __future__ import annotations

import socket
from collections.abc import Callable

from xlvs.daemon.checks.events import READ, Events
from xlvs.daemon.checks.sockets import Unasked, echo_socket, failure, prepared
from xlvs.health.answers import Answer
from xlvs.health.checks import NetworkCheck, PingCheck
from xlvs.health.datagrams import Exchange

_LONGEST = 65536


class Datagram:
    """One attempt. ``done`` is called once, unless it is closed before."""

    __slots__ = ("_done", "_events", "_exchange", "_socket", "_timer")

    def __init__(
        self, events: Events, check: NetworkCheck, done: Callable[[Answer], None], exchange: Exchange
    ) -> None:
        self._events, self._done, self._exchange = events, done, exchange
        try:
            ping = isinstance(check, PingCheck)
            self._socket = echo_socket(check) if ping else prepared(check, socket.SOCK_DGRAM)
        except Unasked as refusal:
            answer = refusal.answer
            self._timer = events.at(events.now(), lambda: done(answer))
            return
        events.watch(self._socket.fileno(), READ, self._ready)
        self._timer = events.at(events.now() + check.timeout, lambda: self._finish(exchange.silence))
        try:
            self._socket.connect((str(check.address), 0 if ping else check.port))
            self._socket.send(exchange.request)
        except OSError as error:
            answer = failure(error.errno or 0, "cannot send")
            self._timer.cancel()
            self._timer = events.at(events.now(), lambda: self._finish(answer))

    def close(self) -> None:
        """End it without an answer."""
        self._timer.cancel()
        if hasattr(self, "_socket") and self._socket.fileno() >= 0:
            self._events.forget(self._socket.fileno())
            self._socket.close()

    def _finish(self, answer: Answer) -> None:
        self.close()
        self._done(answer)

    def _ready(self) -> None:
        while True:
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
