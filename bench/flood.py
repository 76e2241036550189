"""Floods from random sources onto a lab's director, as fast as one processor makes frames."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench import place
from bench.build import compiled
from bench.frames import LENGTH, TCP, UDP, Load
from xlvs.dataplane import libbpf
from xlvs.lab import build
from xlvs.lab.topology import SWITCH, VIP4

_TOGETHER = 50_000  # frames in one call of the kernel
_BATCH = 64
SOURCES = "198.18.0.0/15"  # where they say that they come from
# What one frame is: protocol, port of the VIP, TCP's flags, the IP header's word of fragments.
KINDS = {
    "SYN": (TCP, 80, 0x02, 0x4000),
    "ACK": (TCP, 80, 0x10, 0x4000),
    "FIN": (TCP, 80, 0x11, 0x4000),
    "RST": (TCP, 80, 0x04, 0x4000),
    "UDP": (UDP, 9, 0, 0x4000),
    "fragments": (UDP, 9, 0, 1480 // 8),  # the last ones of datagrams
}


@contextmanager
def flooded(made: build.Lab, kind: str, target: str = VIP4) -> Iterator[None]:
    """Frames of this kind arrive at the director all the time, for the VIP or another address."""
    flood = _Flood(made, kind, target)
    worker = threading.Thread(target=flood.run)
    worker.start()
    try:
        assert flood.began.wait(60), "no flood"
        yield
    finally:
        flood.over.set()
        worker.join()
    assert not flood.trouble, flood.trouble


class _Flood:
    def __init__(self, made: build.Lab, kind: str, target: str) -> None:
        self._switch = made.namespace(SWITCH)
        addresses = json.loads(made.run("director", ["ip", "-j", "link", "show", "eth0"]))
        mac = bytes.fromhex(addresses[0]["address"].replace(":", ""))
        protocol, port, flags, fragment = KINDS[kind]
        source = bytes.fromhex("0200000000f1")
        self._load = Load(source, mac, target, port, protocol, fresh=True, flags=flags, fragment=fragment)
        self.began, self.over = threading.Event(), threading.Event()
        self.trouble: list[BaseException] = []

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.trouble.append(error)

    def _run(self) -> None:
        with libbpf.BpfObject(compiled("traffic")) as traffic, place.inside(self._switch):
            traffic.load()
            frames = libbpf.map_memory(traffic.map_fd("frames"))
            self._load.write(frames, socket.if_nametoindex("director-eth0"))
            while not self.over.is_set():
                libbpf.test_run(
                    traffic.program_fd("generate"),
                    bytes(LENGTH),
                    repeat=_TOGETHER,
                    live_frames=True,
                    batch=_BATCH,
                )
                self.began.set()
