"""Packets of the same few thousand flows, over and over, straight into the pinned program.

Run as a program in the director's namespace: ``hammer.py CPU SECONDS VIPS SERVERS PORT
FILE``. Two of these on two CPUs make, use and end the same connections at the same moments: the flows
come back at random about when their time is up, and SYN follows FIN on the same ports.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
import time
from ipaddress import ip_address

from xlvs.dataplane import libbpf
from xlvs.dataplane.tables import Tables

FLOWS = 6000
SYN, FIN, RST, ACK = 0x02, 0x11, 0x14, 0x10
TCP_FLAGS = (SYN, SYN, ACK, FIN, FIN, RST)


def frame(source: bytes, sport: int, target: bytes, dport: int, flags: int | None) -> bytes:
    """An Ethernet frame without checksums: nobody looks at them here. No flags: UDP."""
    if flags is None:
        transport = struct.pack("!HHHH", sport, dport, 12, 0) + bytes(4)
    else:
        transport = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 1000, 0, 0)
    protocol = 17 if flags is None else 6
    if len(source) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 0, 0, 64, protocol, 0)
        kind = b"\x08\x00"
    else:
        head = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64)
        kind = b"\x86\xdd"
    return bytes(12) + kind + head + source + target + transport


def packets(vips: list[str], servers: list[str], port: int) -> list[list[bytes]]:
    """For every flow the packets that it may consist of, answers of every server included."""
    flows = []
    for number in range(FLOWS):
        vip = ip_address(vips[number % len(vips)]).packed
        base = "198.18.0.0" if len(vip) == 4 else "2001:db8:2::"
        client = (ip_address(base) + 1 + number // 64).packed
        sport = 1024 + number % 64
        choices = (None,) * 4 if number % 2 else TCP_FLAGS
        flow = [frame(client, sport, vip, port, flags) for flags in choices]
        for server in servers:
            rip = ip_address(server).packed
            if len(rip) == len(vip):
                flow.append(frame(rip, port, client, sport, None if number % 2 else SYN | ACK))
        flows.append(flow)
    return flows


class Step:
    """Two processes in step, to within a microsecond: only so do they meet where it hurts."""

    def __init__(self, path: str, mine: int) -> None:
        with open(path, "r+b") as file:
            self._places = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
        self._mine, self._other = 8 * mine, 8 * (1 - mine)

    def wait(self, number: int) -> None:
        self._places[self._mine] = number
        while self._places[self._other] < number:
            pass

    def leave(self) -> None:
        self._places[self._mine] = 1 << 62


def main(cpu: int, seconds: float, vips: list[str], servers: list[str], port: int, path: str) -> None:
    os.sched_setaffinity(0, {cpu})
    program = libbpf.get_pinned(f"{Tables().generation_folder()}/xlvs_known")
    flows, same, own = packets(vips, servers, port), random.Random(0), random.Random(cpu)
    print("ready", flush=True)
    step, count = Step(path, cpu), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(500):
            flow = same.choice(flows)
            frame = own.choice(flow)
            count += 1
            step.wait(count)
            libbpf.test_run(program, frame)
    step.leave()
    print(count)


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        float(sys.argv[2]),
        sys.argv[3].split(","),
        sys.argv[4].split(","),
        int(sys.argv[5]),
        sys.argv[6],
    )
