"""What the real keepalived makes of a configuration of VRRP: the lines of what it dumps at SIGUSR1.

Its vrrp process and its BFD process write a file each. They answer signals in order, so that a file is
whole when SIGUSR2, sent later, is answered too. All runs in namespaces with the links of the bench.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.keepalived.real import CONFIG_ID, KEEPALIVED, LINKS
from tests.conformance.keepalived.services.dump import SOURCE

PATIENCE = 30.0  # seconds
_LOG = "xlvs-dump.log"
_START = f"""
mount -t tmpfs none /run && mount -t tmpfs none /tmp && cd /run && cat >keepalived.conf &&
ip link set lo up && ip link add {LINKS[0]} type veth peer name {LINKS[1]} &&
ip link set {LINKS[0]} up && ip link set {LINKS[1]} up && ip address add 10.0.0.1/24 dev {LINKS[0]} &&
exec env LD_PRELOAD="$1" {KEEPALIVED} -n -l -i {CONFIG_ID} -f keepalived.conf \
 -p k.pid -c c.pid -r v.pid -b b.pid >{_LOG} 2>&1 </dev/null
"""
_OVER = ("permanent error", "Respawning", "Stopped Keepalived", "due to segmentation fault")


class Gone(Exception):
    """It does not run with this configuration."""


class Real:
    """A real keepalived to ask; within :func:`standing`."""

    def __init__(self, library: Path) -> None:
        self._library = library

    def values(self, text: str) -> list[str] | None:
        """What the vrrp process and the one for BFD dump; None where it does not run with this."""
        command = ["unshare", "-n", "-m", "-p", "-f", "--kill-child", "sh", "-c", _START, "sh"]
        with subprocess.Popen(
            [*command, str(self._library)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                assert process.stdin is not None
                process.stdin.write(text.encode("utf-8", "surrogateescape"))
                process.stdin.close()
                return _dumped(process)
            except Gone:
                return None
            finally:
                process.kill()


def _dumped(process: subprocess.Popen[bytes]) -> list[str]:
    end = time.monotonic() + PATIENCE
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait(process, end, lambda: bool(children.read_text()))
    daemon = int(children.read_text().split()[0])
    root = Path(f"/proc/{daemon}/root")
    log, folder = root / "run" / _LOG, root / "tmp"

    def said() -> str:
        text = log.read_text(errors="surrogateescape") if log.exists() else ""
        if any(word in text for word in _OVER):
            raise Gone
        return text

    _wait(process, end, lambda: "Startup complete" in said())
    if "Starting VRRP child" not in said():
        raise Gone
    for which, asked in (("", "Starting VRRP child"), ("_bfd", "Starting BFD child")):
        if asked in said():
            _answer(process, end, daemon, signal.SIGUSR1, folder / f"keepalived{which}.data", said)
    _answer(process, end, daemon, signal.SIGUSR2, folder / "keepalived.stats", said)
    lines = (folder / "keepalived.data").read_text(errors="surrogateescape").splitlines()
    bfd = folder / "keepalived_bfd.data"
    if not bfd.exists():
        return lines

    # That process has no statistics: what it writes of an instance ends with when it was seen last.
    def whole() -> list[str]:
        found = bfd.read_text(errors="surrogateescape").splitlines()
        begun = sum(line.startswith(" BFD Instance = ") for line in found)
        ended = sum(line.startswith("   last_seen") for line in found)
        return found if begun == ended > 0 else []

    _wait(process, end, lambda: bool(whole()))
    return lines + whole()


def _answer(
    process: subprocess.Popen[bytes],
    end: float,
    daemon: int,
    number: signal.Signals,
    path: Path,
    said: Callable[[], str],
) -> None:
    """Ask until there is the file: a process that has just begun does not hear."""

    def asked() -> bool:
        os.kill(daemon, number)
        until = time.monotonic() + 0.5
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.005)
        said()
        return path.exists()

    _wait(process, end, asked)


def _wait(process: subprocess.Popen[bytes], end: float, condition: Callable[[], bool]) -> None:
    while not condition():
        if process.poll() is not None:
            raise Gone
        if time.monotonic() > end:
            raise TimeoutError("keepalived does not answer")
        time.sleep(0.005)


@contextmanager
def standing() -> Iterator[Real]:
    """With what stands in for IPVS (``no_ipvs.c``): the word for its sync daemon asks for that."""
    with tempfile.TemporaryDirectory(prefix="xlvs-vrrp-", dir="/var/tmp") as name:
        library = Path(name) / "no_ipvs.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
        yield Real(library)
