"""Giving frames to the data plane as if they had just come in by an interface.

BPF_PROG_TEST_RUN with live frames runs the entry program of the current generation, and
the kernel carries out its verdict. A frame for a device in generic mode is received by the
kernel's stack instead, where generic XDP sees it as any other.
"""

from __future__ import annotations

import ctypes
import os
import struct

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.attach import ENTRY
from xlvs.dataplane.tables import Tables

_RECEIVE = "xlvs_receive"


class Injector:
    """The way into the data plane of the current network namespace."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._generation = 0
        self._programs: dict[str, int] = {}

    def inject(self, frame: bytes, ifindex: int) -> None:
        """Put a frame (from the link header on) in; BpfError where the device is gone or refuses it."""
        context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)  # struct xdp_md, linux/bpf.h
        program = self._program(_RECEIVE if self._is_generic(ifindex) else ENTRY)
        libbpf.test_run(program, frame, context=context, live_frames=True, batch=1)

    def inject_anywhere(self, frame: bytes) -> None:
        """The same for a frame that may come in by any interface; nothing where there is none."""
        for key in libbpf.keys(self._tables.fd("ports"), 4):
            ifindex = int.from_bytes(key, "little")
            if self._flags(ifindex) & layout.PORT_XDP:
                self.inject(frame, ifindex)
                return

    def close(self) -> None:
        """Let the programs go."""
        for fd in self._programs.values():
            os.close(fd)
        self._programs.clear()

    def _program(self, name: str) -> int:
        """The program of the generation that counts now."""
        generation = self._tables.settings.generation
        if generation != self._generation:
            self.close()
            self._generation = generation
        if name not in self._programs:
            self._programs[name] = libbpf.get_pinned(f"{self._tables.generation_folder()}/{name}")
        return self._programs[name]

    def _is_generic(self, ifindex: int) -> bool:
        return bool(self._flags(ifindex) & layout.PORT_GENERIC)

    def _flags(self, ifindex: int) -> int:
        size = ctypes.sizeof(layout.PortRow)
        row = libbpf.lookup(self._tables.fd("ports"), ifindex.to_bytes(4, "little"), size)
        return layout.PortRow.from_buffer_copy(row).flags if row else 0
