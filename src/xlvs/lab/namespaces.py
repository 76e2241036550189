"""Network namespaces through ``ip`` and ``nsenter``: made, wired, entered, deleted.

Commands of the lab itself run under ``nsenter --net``, which leaves the mount
namespace alone and is quick; what an operator would type runs under
``ip netns exec``, as an operator would run it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO

from xlvs.errors import XlvsError

FOLDER = "/run/netns"


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` in a namespace, in this mount namespace."""
    return ["nsenter", f"--net={FOLDER}/{namespace}", "--", *command]


def typed_inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` as ``ip netns exec`` does, with a /sys of its own."""
    return ["ip", "netns", "exec", namespace, *command]


def run(command: Sequence[str], text: str | None = None) -> str:
    """Run a command that must succeed, with ``text`` as its input, and return its output."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise XlvsError(f"the program {command[0]} is missing: see packages.txt") from error
    if done.returncode:
        raise failure(command, done.stderr or done.stdout)
    return done.stdout


def run_all(commands: Iterable[Sequence[str]]) -> None:
    """Run commands side by side; all must succeed, and none is left running when one does not."""
    with _side_by_side(commands) as running:
        for process, trouble in running:
            if process.wait():
                raise trouble()


def try_all(commands: Iterable[Sequence[str]]) -> list[str]:
    """Run commands side by side, and say what went wrong with those that failed."""
    with _side_by_side(commands) as running:
        return [str(trouble()) for process, trouble in running if process.wait()]


@contextmanager
def _side_by_side(
    commands: Iterable[Sequence[str]],
) -> Iterator[list[tuple[subprocess.Popen[bytes], Callable[[], XlvsError]]]]:
    running: list[tuple[subprocess.Popen[bytes], Callable[[], XlvsError]]] = []
    with ExitStack() as stack:
        try:
            for command in commands:
                # A file, not a pipe: a daemon that keeps its stderr would hold the reader.
                words = stack.enter_context(tempfile.TemporaryFile())
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT
                )
                running.append((process, partial(_trouble, command, words)))
            yield running
        finally:
            for process, _ in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _trouble(command: Sequence[str], words: IO[bytes]) -> XlvsError:
    words.seek(0)
    return failure(command, words.read().decode(errors="replace"))


def failure(command: Sequence[str], output: str) -> XlvsError:
    """The error that names a command that failed, and its own last words."""
    words = output.strip().splitlines()
    # What xlvs says of itself is one line with its name; of other programs the last line tells most.
    telling = next((line for line in words if line.startswith("xlvs: ")), words[-1] if words else "")
    return XlvsError(f"'{' '.join(command)}' failed" + (f": {telling}" if telling else ""))


def exists(namespace: str) -> bool:
    """Whether there is a namespace of that name."""
    return os.path.exists(f"{FOLDER}/{namespace}")


def batch(lines: Iterable[str], namespace: str | None = None) -> None:
    """Feed ``ip -batch``: one process for any number of ``ip`` commands."""
    where = ["-n", namespace] if namespace else []
    run(["ip", *where, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def set_sysctls(namespace: str, values: dict[str, str]) -> None:
    """Set sysctls of a namespace."""
    run(inside(namespace, ["sysctl", "-q", "-w", *(f"{name}={value}" for name, value in values.items())]))


def process_ids(namespace: str) -> list[int]:
    """The processes whose network namespace this is."""
    return [int(word) for word in run(["ip", "netns", "pids", namespace]).split()]


def kill_processes(namespaces: Iterable[str], patience: float = 2.0) -> None:
    """End every process in the namespaces: SIGTERM, and SIGKILL when ``patience`` seconds are over."""
    names = list(namespaces)
    deadline = time.monotonic() + patience
    chosen, sent = signal.SIGTERM, set[tuple[int, int]]()
    while left := [pid for name in names for pid in process_ids(name)]:
        if time.monotonic() > deadline:
            chosen = signal.SIGKILL
        for pid in left:
            # Once each: nginx's master answers a second SIGTERM no faster.
            if (pid, chosen) not in sent and pid != os.getpid():
                sent.add((pid, chosen))
                try:
                    os.kill(pid, chosen)
                except ProcessLookupError:
                    continue
        if left == [os.getpid()] or time.monotonic() > deadline + patience:
            return
        time.sleep(0.02)


def delete(namespace: str) -> None:
    """Delete a namespace that has no processes; its devices go with it."""
    if exists(namespace):
        run(["ip", "netns", "del", namespace])
