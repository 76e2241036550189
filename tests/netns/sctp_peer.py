"""Both ends of SCTP associations, by the kernel's own SCTP (in the guest; this machine's may have none).

serve ADDRESS PORT NAME: answers each association with the name and a digest of what came.
ask ADDRESS PORT COUNT SIZE: so many associations after each other; prints the answers' names.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys

IPPROTO_SCTP = 132


def stream(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM, IPPROTO_SCTP)


def serve(address: str, port: int, name: str) -> None:
    with stream(address) as listener:
        listener.bind((address, port))
        listener.listen()
        print("listening", flush=True)
        while True:
            association, _ = listener.accept()
            with association:
                size = int.from_bytes(received(association, 4), "big")
                digest = hashlib.sha256(received(association, size)).hexdigest()
                association.sendall(f"{name} {digest}".encode().ljust(100))
                association.recv(1)  # until the client has gone


def ask(address: str, port: int, count: int, size: int) -> None:
    for _ in range(count):
        content = os.urandom(size)
        with stream(address) as association:
            association.settimeout(30)
            association.connect((address, port))
            association.sendall(size.to_bytes(4, "big"))
            for start in range(0, size, 4000):  # a message may not be larger than the send buffer
                association.sendall(content[start : start + 4000])
            name, digest = received(association, 100).decode().split()
        assert digest == hashlib.sha256(content).hexdigest()
        print(name, flush=True)


def received(association: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = association.recv(size - len(content))
        if not part:
            raise EOFError(f"{len(content)} of {size} bytes")
        content += part
    return content


if __name__ == "__main__":
    what, where, at, *rest = sys.argv[1:]
    if what == "serve":
        serve(where, int(at), rest[0])
    else:
        ask(where, int(at), int(rest[0]), int(rest[1]))
