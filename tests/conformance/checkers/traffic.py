"""A client of the guest and its real server: ``traffic.py serve``, ``traffic.py ask ADDRESS FILE``.

The client keeps one connection for ever and begins another each time; the file says how often it was
answered and how often not.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

_PATIENCE = 10.0  # seconds for an answer: the guest is slow, TCP repeats what was lost


class Echo(StreamRequestHandler):
    """Answers each line with itself."""

    def handle(self) -> None:
        """One connection."""
        for line in self.rfile:
            self.wfile.write(line)


def ask(address: str, report: Path) -> None:
    """Ask until killed; a report is whole at any time."""
    answered = lost = broken = 0
    kept = socket.create_connection((address, 80), _PATIENCE)
    while True:
        try:
            with socket.create_connection((address, 80), _PATIENCE) as fresh:
                exchange(fresh)
            answered += 1
        except OSError:
            lost += 1
        try:
            exchange(kept)
        except OSError:
            broken += 1
            kept = socket.create_connection((address, 80), _PATIENCE)
        whole = report.with_suffix(".new")
        whole.write_text(f"{answered} {lost} {broken}\n")
        whole.rename(report)
        time.sleep(0.05)


def exchange(connection: socket.socket) -> None:
    """Send a line and get it back; raises OSError."""
    connection.sendall(b"hello\n")
    if connection.recv(6) != b"hello\n":
        raise ConnectionError


def main() -> None:
    """Be one of both."""
    if sys.argv[1] == "ask":
        ask(sys.argv[2], Path(sys.argv[3]))
    ThreadingTCPServer.daemon_threads = True
    ThreadingTCPServer(("", 80), Echo).serve_forever()


main()
