"""Asks a web server without pause, each time over a new connection; run by itself on a lab's client.

``asking.py HOST PORT`` prints a line for each request that succeeds: when it was answered, in
seconds of the monotonic clock, which all processes of a machine share. Nobody waits for an answer
before the next is asked: what is lost in a gap must not hide the gap's end.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from contextlib import suppress

EVERY = 0.02  # seconds from one request to the next
PATIENCE = 0.9  # seconds for an answer: less than TCP waits before it repeats a SYN


class Asker:
    """All connections that are open."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, float] = {}  # when each was begun, oldest first

    def ask(self) -> None:
        """Begin another connection, and give up on those that are too old."""
        now = time.monotonic()
        for connection in [one for one, begun in self._open.items() if now - begun > PATIENCE]:
            self._end(connection)
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self._place)
        self._open[connection] = now
        self._selector.register(connection, selectors.EVENT_WRITE)

    def wait(self, until: float) -> None:
        """Talk to whoever answers until then."""
        while (left := until - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    self._go_on(connection, events)
                except OSError:
                    self._end(connection)

    def _go_on(self, connection: socket.socket, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self._selector.modify(connection, selectors.EVENT_READ)
            return
        if connection.recv(65536).startswith(b"HTTP/1.1 200"):
            print(time.monotonic(), flush=True)
        self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(connection)
        self._open.pop(connection, None)
        connection.close()


def main(host: str, port: int) -> None:
    """Ask until killed."""
    asker = Asker(host, port)
    due = time.monotonic()
    while True:
        asker.ask()
        due = max(due + EVERY, time.monotonic())
        asker.wait(due)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
