"""Labs for tests: built for a block, taken down after it whatever happens in it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from xlvs.lab import build
from xlvs.lab.topology import LOCAL_ADDRESSES, Encapsulation, Method

_numbers = itertools.count(1)


def fresh_name() -> str:
    """A lab name that nobody else on this machine uses."""
    return f"t{os.getpid()}_{next(_numbers)}"


@contextmanager
def lab(
    method: Method,
    real_servers: int = 2,
    *,
    ipv6: bool = False,
    rules: bool = True,
    tunnel: Encapsulation = Encapsulation.IPIP,
    local_addresses: int = LOCAL_ADDRESSES,
    toa: bool = True,
) -> Iterator[build.Lab]:
    """A whole lab, its director up."""
    made = build.Lab(
        fresh_name(),
        method,
        real_servers,
        ipv6,
        tunnel=tunnel,
        local_addresses=local_addresses,
        toa=toa,
    )
    build.up(made, rules=rules)
    try:
        yield made
    finally:
        troubles: list[str] = []
        build.down(made, say=troubles.append)
        assert not troubles, "\n".join(troubles)


@contextmanager
def machines(method: Method, real_servers: int = 2, *, ipv6: bool = False) -> Iterator[build.Lab]:
    """The machines of a lab without a director: for what happens on real servers alone."""
    made = build.Lab(fresh_name(), method, real_servers, ipv6)
    build.reserve(made)
    try:
        build.machines(made)
        yield made
    finally:
        build.down(made)


def xlvs(made: build.Lab, node: str, *arguments: str) -> str:
    """Type an xlvs command on a node; it must succeed. Gives its output."""
    return made.run(node, build.xlvs(*arguments))


def attempt(made: build.Lab, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type an xlvs command on a node, whatever becomes of it."""
    return typed(made, node, build.xlvs(*arguments))


def typed(made: build.Lab, node: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Type any command on a node, whatever becomes of it."""
    return subprocess.run(made.typed(node, command), capture_output=True, text=True, check=False)


def answers(made: build.Lab, count: int, *, ipv6: bool = False, node: str = "client") -> list[str]:
    """Type ``curl`` so many times, a connection each, and give what each printed."""
    return [
        made.run(node, ["curl", "-sS", "--max-time", "20", f"{made.topology.url(ipv6)}/"]).strip()
        for _ in range(count)
    ]
