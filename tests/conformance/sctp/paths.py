"""Ways into every state, one chunk a step, and every chunk that may come there.

A step is "in CHUNK" (from the client) or "out CHUNK" (from the real server). Under NAT both
pass the director; under DR only what comes in does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

METHODS = {"nat": ("in", "out"), "dr": ("in",)}
# One chunk for each line of the kernel's table of states.
EVENTS = (
    "DATA",
    "INIT",
    "INIT_ACK",
    "COOKIE_ECHO",
    "COOKIE_ACK",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "SHUTDOWN_COMPLETE",
    "ERROR",
    "ABORT",
)
# Chunks that only stand for another one's line.
OTHERS = ("SACK", "HEARTBEAT", "HEARTBEAT_ACK", "ECNE", "CWR", "AUTH", "ASCONF")

Path = tuple[str, ...]


def paths(method: str, state_after: Callable[[Path], str]) -> Iterator[Path]:
    """Breadth first, as a director that tells the state after a path leads on."""
    steps = [f"{side} {event}" for side in METHODS[method] for event in EVENTS]
    first = [f"in {event}" for event in (*EVENTS, *OTHERS) if event != "ABORT"]
    level: list[Path] = [(step,) for step in first]
    seen: set[str] = set()
    while level:
        yield from level
        found = {state_after(path): path for path in reversed(level)}
        fresh = {state: path for state, path in found.items() if state not in seen}
        seen |= set(fresh)
        level = [(*path, step) for path in fresh.values() for step in steps]
