"""What the kernel keeps for this thread, and Python has no words for: capabilities, its name, locked memory.

A set of capabilities is a number with a bit for each. All raise :class:`OSError` where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits a set
_WORD = 0xFFFFFFFF
# linux/prctl.h
_PR_SET_NAME, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 15, 23, 24
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # asm-generic/mman.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_HERE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The three sets of a thread that it may make smaller."""

    effective: int
    permitted: int
    inheritable: int


def capabilities() -> Capabilities:
    """What this thread has."""
    words = (_Words * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), words))
    low, high = words
    return Capabilities(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_capabilities(wanted: Capabilities) -> None:
    """Have these from now on; what is not permitted now cannot come back."""
    words = (_Words * 2)()
    for at, word in enumerate(words):
        word.effective = wanted.effective >> 32 * at & _WORD
        word.permitted = wanted.permitted >> 32 * at & _WORD
        word.inheritable = wanted.inheritable >> 32 * at & _WORD
    _check(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), words))


def limit_bounding_set(wanted: int) -> None:
    """Take the others out of what exec may give root's programs; takes CAP_SETPCAP."""
    number = 0
    while (there := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:  # else there is none
        if there and not wanted >> number & 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1


def set_name(name: str) -> None:
    """Its name for ps and pidof; the kernel keeps 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, os.fsencode(name), 0, 0, 0))


def lock_memory() -> None:
    """Keep all pages of the process, and those to come, from being swapped."""
    _check(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE))


def enter_network(namespace: int) -> None:
    """Go to the network namespace that a descriptor stands for; takes CAP_SYS_ADMIN."""
    _check(_libc.setns(namespace, _CLONE_NEWNET))


@contextmanager
def in_network(path: str) -> Iterator[None]:
    """Be in the network namespace of that path for a block."""
    with open(_HERE, "rb") as here:
        with open(path, "rb") as there:
            enter_network(there.fileno())
        try:
            yield
        finally:
            enter_network(here.fileno())


def _check(answer: int) -> None:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
