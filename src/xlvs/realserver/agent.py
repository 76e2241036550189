"""``xlvs realserver agent``: tells directors how much this machine can take.

HAProxy's agent-check protocol: whoever connects gets one line (``75%``, ``drain``, ``down #why``) and
the end of the connection. AGENT_CHECK of ``xlvs keepalived`` asks, and so does HAProxy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_FRESH = 0.2  # seconds an answer is good for: many directors may ask at once
_LONGEST = 512  # bytes of a command's line that are passed on
_PATIENCE = 5.0  # seconds for a client to take its line


@dataclass(frozen=True, slots=True)
class Sources:
    """What an answer is made from: the lowest per cent of those chosen.

    ``command`` is run without a shell; its first line is the answer as it stands. ``drain_file``:
    while it exists the answer is drain.
    """

    load: bool = False
    memory: bool = False
    command: tuple[str, ...] = ()
    timeout: float = 2.0  # seconds for the command
    drain_file: str = ""


def load_share() -> int:
    """Per cent of the processors that the load average of a minute leaves: at least 1, at most 100."""
    processors = len(os.sched_getaffinity(0))
    return min(max(round(100 * (1 - os.getloadavg()[0] / processors)), 1), 100)


def memory_share(meminfo: str | None = None) -> int:
    """Per cent of the memory that is available: at least 1. ``meminfo`` is /proc/meminfo's text."""
    text = _MEMINFO.read_text() if meminfo is None else meminfo
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if ":" in line}
    return max(round(100 * sizes["MemAvailable"] / max(sizes["MemTotal"], 1)), 1)


def line(sources: Sources) -> str:
    """The answer now, without an end of line; a command may take its time."""
    if sources.drain_file and Path(sources.drain_file).exists():
        return "drain"
    if sources.command:
        return _commanded(sources.command, sources.timeout)
    shares = [load_share()] if sources.load else []
    if sources.memory:
        shares.append(memory_share())
    # up and ready end whatever was said before this machine, or this agent, was started anew.
    return f"up ready {min(shares, default=100)}%"


def _commanded(command: Sequence[str], timeout: float) -> str:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return f"fail #{command[0]}: {error.strerror}"
    with process:
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
            return f"fail #{command[0]} took longer than {timeout:g} seconds"
    if process.returncode:
        return f"fail #{command[0]} ended with status {process.returncode}"
    first = said[:_LONGEST].decode("ascii", "replace").splitlines()
    return first[0] if first else f"fail #{command[0]} said nothing"


async def serve(sources: Sources, addresses: Sequence[str], port: int) -> None:
    """Answer on that port, until SIGTERM or SIGINT. No address: on all of them."""
    loop = asyncio.get_running_loop()
    lock = asyncio.Lock()
    last = ("", -_FRESH)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        try:
            async with lock:
                if loop.time() - last[1] >= _FRESH:
                    # In a thread: asyncio's own subprocesses (3.11) never end where one is cancelled early.
                    last = (await loop.run_in_executor(None, line, sources), loop.time())
            writer.write(last[0].encode() + b"\n")
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), _PATIENCE)
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _PATIENCE)

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await asyncio.start_server(answer, list(addresses) or None, port)
    async with server:
        await ended.wait()
