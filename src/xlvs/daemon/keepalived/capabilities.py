"""Capabilities: every process of the daemon keeps those that its work takes, and no others.

Scripts that run as root have to do whatever their operator wants (``ip``, ``systemctl``, ``ipvsadm``).
They get back by exec what the bounding set has, as root's programs do: so that is left alone where
scripts are run. Capabilities are a thread's own: they are dropped before there is a second thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import IntEnum

from xlvs.dataplane import thread
from xlvs.keepalived.config import Config


class Capability(IntEnum):
    """Those of linux/capability.h that anything here needs."""

    DAC_OVERRIDE = 1
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_NICE = 23
    SYS_RESOURCE = 24
    PERFMON = 38
    BPF = 39


_C = Capability
# Files of anybody (fifos, tracked files, logs), and scripts as other users.
_SCRIPTS = frozenset((_C.DAC_OVERRIDE, _C.KILL, _C.SETGID, _C.SETUID))
_PACKETS = frozenset((_C.NET_ADMIN, _C.NET_RAW))
_XDP = frozenset((_C.BPF, _C.PERFMON))
# SYS_PTRACE is the way to /run/xlvs in the outermost mount namespace (/proc/PID/root).
_WORK: Mapping[str, frozenset[Capability]] = {
    "": _SCRIPTS | {_C.SYS_PTRACE},
    "vrrp": _SCRIPTS | _PACKETS,
    "checkers": _SCRIPTS | _PACKETS | {_C.NET_BIND_SERVICE, _C.SYS_PTRACE, _C.SYS_RESOURCE},
    "bfd": frozenset(),
}
_NO_SCRIPTS = frozenset(("bfd",))


def needed(process: str, config: Config, engine: str = "xdp") -> frozenset[Capability]:
    """What a process needs once it has begun; "" is the parent."""
    found = set(_WORK[process])
    prefix = "checker" if process == "checkers" else process
    if process and f"{prefix}_no_swap" in config.globals.others:
        found.add(_C.IPC_LOCK)  # whatever it allocates later is locked, too
    if process == "vrrp" and "max_auto_priority" in config.globals.others:
        found.add(_C.SYS_NICE)
    if process == "checkers":
        found |= _XDP if engine == "xdp" else frozenset()
    if process in ("vrrp", "checkers") and config.globals.net_namespace_ipvs is not None:
        found |= {_C.SYS_ADMIN, _C.SYS_PTRACE}  # to find it, to go there and back
    return frozenset(found)


def drop(process: str, keep: Iterable[Capability]) -> None:
    """Give up, for ever, what this thread has beyond ``keep``; without scripts its children's, too.

    Who is not root keeps all: exec would give nothing back to scripts and to children started anew.
    Raises :class:`OSError` where the kernel refuses, which it never does for less than there is.
    """
    if os.geteuid():
        return
    wanted = sum(1 << number for number in keep)
    there = thread.capabilities()
    if process in _NO_SCRIPTS and there.effective >> Capability.SETPCAP & 1:
        thread.limit_bounding_set(wanted)
    kept = there.permitted & wanted
    thread.set_capabilities(thread.Capabilities(kept, kept, there.inheritable & wanted))
