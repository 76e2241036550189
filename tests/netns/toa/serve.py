"""Servers that know nothing of TOA, and say whom they see: ``serve.py KIND ADDRESS PORT``.

Each answers a request with one line of JSON. Nothing here but the standard library, as if
somebody else had written it.
"""

from __future__ import annotations

import ctypes
import json
import resource
import selectors
import socket
import struct
import sys

# docs/toa.md: level and name of the option, and what it gives.
TOA_LEVEL, TOA_PEER = 0x786C, 1


def both_ends(connection: socket.socket) -> list[list[object]] | None:
    """The client's and the director's address and port; None where nobody told a client."""
    try:
        ends = connection.getsockopt(TOA_LEVEL, TOA_PEER, 40)
    except OSError:
        return None
    found: list[list[object]] = []
    for at in (0, 20):
        family, port = struct.unpack_from("=H", ends, at)[0], struct.unpack_from("!H", ends, at + 2)[0]
        size = 4 if family == socket.AF_INET else 16
        found.append([socket.inet_ntop(family, ends[at + 4 : at + 4 + size]), port])
    return found


def opened(kind: int, address: str, port: int, family: str = "") -> socket.socket:
    chosen = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(chosen, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if chosen == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if "udp" in family:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
    server.bind((address, port))
    return server


def tcp(address: str, port: int, *options: str) -> None:
    server = opened(socket.SOCK_STREAM, address, port)
    if "defer" in options:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    server.listen(1024)
    ready()
    while True:
        connection, accepted = server.accept()
        with connection:
            request = connection.recv(65536)
            seen = {"accept": accepted[:2], "getpeername": connection.getpeername()[:2]}
            answer = seen | {"asked": both_ends(connection), "request": request.decode()}
            connection.sendall(json.dumps(answer).encode())


def udp(address: str, port: int) -> None:
    server = opened(socket.SOCK_DGRAM, address, port, "udp")
    ready()
    while True:
        request, client = server.recvfrom(65536)
        server.sendto(json.dumps({"seen": client[:2], "request": request.decode()}).encode(), client)


def udp_message(address: str, port: int) -> None:
    """recvmsg and sendmsg with the local address as dnsmasq and others have it (IP_PKTINFO)."""
    server = opened(socket.SOCK_DGRAM, address, port, "udp")
    if ":" in address:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    ready()
    while True:
        request, ancillary, _, client = server.recvmsg(65536, 256)
        answer = json.dumps({"seen": client[:2], "request": request.decode()}).encode()
        server.sendmsg([answer], [item for item in ancillary if item[1] in (8, 50)], 0, client)


def udp_connected(address: str, port: int) -> None:
    """A socket for each client, connected to it, beside the one that hears of new clients."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = opened(socket.SOCK_DGRAM, address, port, "udp")
    chosen = selectors.DefaultSelector()
    chosen.register(listener, selectors.EVENT_READ)
    children: dict[object, socket.socket] = {}
    ready()
    while True:
        for key, _ in chosen.select():
            ready_one = key.fileobj
            assert isinstance(ready_one, socket.socket)
            request, client = ready_one.recvfrom(65536)
            child = children.get(client)
            if child is None:
                child = children[client] = opened(socket.SOCK_DGRAM, address, port, "udp")
                child.connect(client)
                chosen.register(child, selectors.EVENT_READ)
            answer = {
                "seen": client[:2],
                "getpeername": child.getpeername()[:2],
                "asked": both_ends(child),
                "by": "listener" if ready_one is listener else "child",
                "request": request.decode(),
            }
            child.send(json.dumps(answer).encode())


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


def udp_batch(address: str, port: int) -> None:
    """recvmmsg and sendmmsg: the answer is the request, sent to whom the kernel named."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = opened(socket.SOCK_DGRAM, address, port, "udp")
    count, size = 64, 2048
    buffers = [ctypes.create_string_buffer(size) for _ in range(count)]
    names = [ctypes.create_string_buffer(28) for _ in range(count)]
    vectors = [_IoVec(ctypes.addressof(each), size) for each in buffers]
    messages = (_Message * count)()
    ready()
    while True:
        for i, message in enumerate(messages):
            vectors[i].length = size
            message.header.name, message.header.name_length = ctypes.addressof(names[i]), 28
            message.header.vectors, message.header.vector_count = ctypes.pointer(vectors[i]), 1
        got = libc.recvmmsg(server.fileno(), messages, count, 0x10000, None)  # MSG_WAITFORONE
        for i in range(max(got, 0)):
            where = names[i].raw
            at, width = (4, 4) if where[:2] == struct.pack("=H", socket.AF_INET) else (8, 16)
            family = socket.AF_INET if width == 4 else socket.AF_INET6
            seen = [socket.inet_ntop(family, where[at : at + width]), int.from_bytes(where[2:4], "big")]
            request = buffers[i].raw[: messages[i].length].decode()
            answer = json.dumps({"seen": seen, "request": request}).encode()
            ctypes.memmove(buffers[i], answer, len(answer))
            vectors[i].length = len(answer)
        sent = 0
        while sent < got:
            step = libc.sendmmsg(server.fileno(), ctypes.byref(messages[sent]), got - sent, 0)
            sent += step if step > 0 else 1


def ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    kinds = {
        "tcp": tcp,
        "udp": udp,
        "udp-message": udp_message,
        "udp-connected": udp_connected,
        "udp-batch": udp_batch,
    }
    kinds[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
