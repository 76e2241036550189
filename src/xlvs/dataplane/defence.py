"""What IPVS does when memory runs short, or is told to: update_defense_level of ip_vs_ctl.c.

The sysctls drop_entry, drop_packet and secure_tcp have four modes: 0 never, 1 and 2
automatic (off or on by now), 3 always. :func:`decide` is pure; the engine asks it when
a sysctl changes, the helper once a second while a mode is automatic.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

NEVER, WAITING, DEFENDING, ALWAYS = range(4)


@dataclass(frozen=True, slots=True)
class Levels:
    """The sysctls that matter, in the kernel's units (amemthresh: pages)."""

    amemthresh: int
    am_droprate: int
    drop_entry: int
    drop_packet: int
    secure_tcp: int

    @property
    def automatic(self) -> bool:
        """Whether memory decides anything."""
        return any(
            mode in (WAITING, DEFENDING) for mode in (self.drop_entry, self.drop_packet, self.secure_tcp)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Modes as they are now, and what they come to.

    ``drop_rate``: one packet in so many of those that would make a connection is dropped,
    0 none; ``restart`` says that the count to the next one begins anew.
    """

    drop_entry: int
    drop_packet: int
    secure_tcp: int
    drop_entries: bool
    drop_rate: int
    restart: bool
    secure_states: bool


def decide(levels: Levels, available: int) -> Decision:
    """The defence with so many pages of memory available."""
    short = available < levels.amemthresh
    drop_packet = _mode(levels.drop_packet, short)
    if drop_packet == ALWAYS:
        rate = levels.am_droprate
    elif drop_packet == DEFENDING:
        rate = levels.amemthresh // (levels.amemthresh - available)
    else:
        rate = 0
    drop_entry, secure_tcp = _mode(levels.drop_entry, short), _mode(levels.secure_tcp, short)
    return Decision(
        drop_entry,
        drop_packet,
        secure_tcp,
        drop_entries=drop_entry >= DEFENDING,
        drop_rate=rate,
        restart=drop_packet == DEFENDING,
        secure_states=secure_tcp >= DEFENDING,
    )


def _mode(mode: int, short: bool) -> int:
    if mode in (WAITING, DEFENDING):
        return DEFENDING if short else WAITING
    return mode


def available_pages() -> int:
    """Free and buffered memory, which is what the kernel's IPVS counts."""
    with open("/proc/meminfo") as text:
        found = dict(re.findall(r"^(MemFree|Buffers):\s+(\d+) kB$", text.read(), re.MULTILINE))
    return (int(found["MemFree"]) + int(found["Buffers"])) * 1024 // os.sysconf("SC_PAGE_SIZE")
