"""UDP datagrams of any length, whole or cut into fragments in any order, and who answers them.

Run as a program it is one side: ``serve ADDRESS PORT`` sends back what it hears, after
its sum; ``ask ADDRESS PORT SIZE [ORDER [FROM]]`` prints what came of one datagram. ORDER is
``whole`` (the kernel cuts it), ``forward`` or ``reversed`` (fragments by raw socket).
"""

from __future__ import annotations

import hashlib
import socket
import sys

SUM = 32
PATIENCE = 15.0
PIECE = 1400  # bytes of data in a fragment, a multiple of eight


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def content(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(size))


def serve(address: str, port: int) -> None:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as heard:
        heard.bind((address, port))
        print("ready", flush=True)
        while True:
            data, sender = heard.recvfrom(65536)
            heard.sendto(hashlib.sha256(data).digest() + data, sender)


def send_in_pieces(heard: socket.socket, address: str, port: int, data: bytes, backwards: bool) -> None:
    from tests.packet.frames import Datagram
    from tests.packet.pieces import cut

    source, sport = heard.getsockname()[:2]
    packet = Datagram(source, address, sport, port, payload=data, fragment=0).packet()
    sizes = [PIECE] * ((len(data) + 7) // PIECE)
    pieces = cut(packet, *sizes, identity=sport)
    with socket.socket(family_of(address), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for piece in reversed(pieces) if backwards else pieces:
            raw.sendto(piece, (address, 0))


def ask(address: str, port: int, size: int, order: str) -> str:
    data = content(size)
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as heard:
        heard.settimeout(PATIENCE)
        heard.connect((address, port))
        try:
            if order == "whole":
                heard.send(data)
            else:
                send_in_pieces(heard, address, port, data, order == "reversed")
            answer = heard.recv(65536)
        except OSError as error:
            return type(error).__name__
    right = answer[SUM:] == data and answer[:SUM] == hashlib.sha256(data).digest()
    return "right" if right else "wrong"


if __name__ == "__main__":
    side, host, number, *rest = sys.argv[1:]
    if side == "serve":
        serve(host, int(number))
    else:
        print(ask(host, int(number), int(rest[0]), rest[1] if len(rest) > 1 else "whole"))
