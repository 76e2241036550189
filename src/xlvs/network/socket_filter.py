"""Classic BPF programs on sockets: the kernel hands over what they let through."""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h: Python's socket module has no name for it
# linux/filter.h: the instructions that filters here are made of
_INSTRUCTION = struct.Struct("=HBBI")
LDX_MSH, LDB_IND, LDB_ABS, LDH_ABS, JEQ, RET = 0xB1, 0x50, 0x30, 0x28, 0x15, 0x06
ALL = 0xFFFFFFFF  # what RET lets through whole; 0 is nothing


def attach(to: socket.socket, code: Sequence[tuple[int, int, int, int]]) -> None:
    """Put a program of instructions (operation, jump if true, jump if false, operand) on a socket."""
    text = array("B", b"".join(_INSTRUCTION.pack(*one) for one in code))
    program = struct.pack("@HP", len(code), text.buffer_info()[0])  # struct sock_fprog
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
