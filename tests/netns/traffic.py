"""Conversations that notice everything: a byte lost, repeated, out of order or from somebody else.

Run as a program it is one side of them: ``traffic.py serve NAME PORT`` answers,
``traffic.py talk ADDRESS PORT`` keeps connections of numbered records running until its
input ends, and prints what it saw. It imports nothing of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

RECORD = struct.Struct("!QQ48s")  # conversation, number, filling
NAME = 16  # bytes of a server's name, sent first
PATIENCE = 60.0  # seconds for what is still on its way at the end


@dataclass
class Conversation:
    """One connection or UDP flow, as its client saw it."""

    protocol: str
    server: str = ""
    sent: int = 0
    received: int = 0
    wrong: int = 0  # records that were not the expected ones, or from another server
    longest_gap: float = 0.0  # seconds between two answers
    error: str = ""

    def heard(self, now: float, last: float) -> None:
        self.received += 1
        self.longest_gap = max(self.longest_gap, now - last)


def record(conversation: int, number: int) -> bytes:
    filling = (conversation * 2654435761 + number * 40503) % (1 << 384)
    return RECORD.pack(conversation, number, filling.to_bytes(48, "big"))


# -- serving -----------------------------------------------------------------------


class EchoDatagrams(asyncio.DatagramProtocol):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._name + data, address)


async def serve(name: str, port: int, hosts: list[str]) -> None:
    greeting = name.encode().ljust(NAME)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.bind((host, port))
        await loop.create_datagram_endpoint(lambda: EchoDatagrams(greeting), sock=datagrams)
        await asyncio.start_server(answer, host, port, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


# -- talking -----------------------------------------------------------------------


async def talk_tcp(
    target: tuple[str, int], number: int, seen: Conversation, pause: float, stop: asyncio.Event
) -> None:
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*target), PATIENCE)
        seen.server = (await asyncio.wait_for(reader.readexactly(NAME), PATIENCE)).decode().strip()

        async def listen() -> None:
            last = time.monotonic()
            while not (stop.is_set() and seen.received == seen.sent):
                content = await reader.readexactly(RECORD.size)
                now = time.monotonic()
                seen.wrong += content != record(number, seen.received)
                seen.heard(now, last)
                last = now

        listening = asyncio.create_task(listen())
        while not stop.is_set() and not listening.done():
            writer.write(record(number, seen.sent))
            seen.sent += 1
            await writer.drain()
            await asyncio.sleep(pause)
        if seen.received == seen.sent:
            listening.cancel()
        await asyncio.wait_for(listening, PATIENCE)
        writer.close()
        await writer.wait_closed()
    except asyncio.CancelledError:
        pass
    except (OSError, EOFError, TimeoutError) as error:
        seen.error = f"{type(error).__name__}: {error} after {seen.received} of {seen.sent}"


class TalkDatagrams(asyncio.DatagramProtocol):
    def __init__(self, number: int, seen: Conversation) -> None:
        self._number, self._seen, self._last = number, seen, time.monotonic()

    def datagram_received(self, data: bytes, _: tuple[str, int]) -> None:
        seen, server = self._seen, data[:NAME].decode().strip()
        conversation, number, _ = RECORD.unpack(data[NAME:])
        seen.server = seen.server or server
        wrong = server != seen.server or data[NAME:] != record(self._number, number)
        seen.wrong += wrong or conversation != self._number
        now = time.monotonic()
        seen.heard(now, self._last)
        self._last = now

    def error_received(self, exc: Exception) -> None:
        self._seen.error = f"{type(exc).__name__}: {exc}"


async def talk_udp(
    target: tuple[str, int], number: int, seen: Conversation, pause: float, stop: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: TalkDatagrams(number, seen), remote_addr=target
    )
    while not stop.is_set():
        transport.sendto(record(number, seen.sent))
        seen.sent += 1
        await asyncio.sleep(pause)
    deadline = time.monotonic() + 3
    while seen.received < seen.sent and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    transport.close()


async def talk(target: tuple[str, int], tcp: int, udp: int, pause: float) -> list[Conversation]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    seen, tasks = [], []
    for number in range(tcp + udp):
        seen.append(Conversation("tcp" if number < tcp else "udp"))
        talker = talk_tcp if number < tcp else talk_udp
        tasks.append(asyncio.create_task(talker(target, number, seen[-1], pause, stop)))
        await asyncio.sleep(0.005)
    deadline = time.monotonic() + PATIENCE / 3
    while not all(each.received or each.error for each in seen) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.gather(*tasks)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("serve", "talk"))
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("--hosts", default="0.0.0.0,::")
    parser.add_argument("--tcp", type=int, default=10)
    parser.add_argument("--udp", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.02)
    chosen = parser.parse_args()
    if chosen.side == "serve":
        asyncio.run(serve(chosen.name, chosen.port, chosen.hosts.split(",")))
        return
    seen = asyncio.run(talk((chosen.name, chosen.port), chosen.tcp, chosen.udp, chosen.pause))
    print(json.dumps([asdict(each) for each in seen]), flush=True)


if __name__ == "__main__":
    main()
