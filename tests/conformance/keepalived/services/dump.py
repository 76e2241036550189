"""What the real keepalived makes of a configuration of virtual servers: -t's status, and its dump of values.

The checkers' process starts only where there is IPVS; ``no_ipvs.c`` stands in for it. It reads and
dumps as ever, and its rules go nowhere.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEEPALIVED = "/usr/sbin/keepalived"
SOURCE = Path(__file__).with_name("no_ipvs.c")
PATIENCE = 30.0  # seconds
_START = (
    'mount -t tmpfs none /run && ip link set lo up && cd "$1" && LD_PRELOAD="$1/no_ipvs.so"'
    f" exec {KEEPALIVED} -n -l -d -C -f keepalived.conf -p /run/k.pid -c /run/c.pid 2>&1"
)
_STAMP = re.compile(r"^\w{3} \w{3} +\d+ [\d:]+ \d{4}: ")
_END = "Activating BFD healthchecker"


class Real:
    """A real keepalived to ask; within :func:`standing`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def status(self, text: str) -> int:
        """What -t exits with; negative: the signal that ended it."""
        self._write(text)
        command = [KEEPALIVED, "-t", "-f", "keepalived.conf"]
        return subprocess.run(
            command,
            cwd=self._folder,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,
        ).returncode

    def values(self, text: str) -> list[str] | None:
        """The lines of its dump; None where it did not come to that (it has no virtual servers)."""
        self._write(text)
        wrapped = [
            "unshare",
            "-n",
            "-m",
            "-p",
            "-f",
            "--kill-child",
            "sh",
            "-c",
            _START,
            "sh",
            str(self._folder),
        ]
        process = subprocess.Popen(wrapped, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output = self._read(process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        lines = [_STAMP.sub("", line) for line in output.decode(errors="surrogateescape").splitlines()]
        start = next((at for at, line in enumerate(lines) if "LVS Topology" in line), None)
        if start is None or _END not in lines:
            return None
        return [line.strip() for line in lines[start:]]

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        output = b""
        end = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < end and _END.encode() not in output:
                if selector.select(0.5):
                    some = os.read(process.stdout.fileno(), 1 << 16)
                    if not some:
                        break
                    output += some
                if b"exited" in output or b"terminated" in output.lower():
                    break
        return output

    def _write(self, text: str) -> None:
        path = self._folder / "keepalived.conf"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextmanager
def standing() -> Iterator[Real]:
    """The stand-in compiled, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="xlvs-services-") as name:
        folder = Path(name)
        library = str(folder / "no_ipvs.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, str(SOURCE)], check=True)
        yield Real(folder)
