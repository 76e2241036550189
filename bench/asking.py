"""Asks a web server without pause, each time over a new connection; run by itself on a lab's client.

``asking.py HOST PORT`` prints a line for each request that succeeds: when it was answered, in
seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import socket
import sys
import time

EVERY = 0.01  # seconds from one request to the next
PATIENCE = 0.25  # seconds for an answer


def main(host: str, port: int) -> None:
    """Ask until killed."""
    while True:
        began = time.monotonic()
        try:
            with socket.create_connection((host, port), PATIENCE) as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(65536).startswith(b"HTTP/1.1 200"):
                    print(time.monotonic(), flush=True)
        except OSError:
            pass
        time.sleep(max(0.0, began + EVERY - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
