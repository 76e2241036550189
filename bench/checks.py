"""What it costs to check thousands of real servers, and how late the checks come.

All in a network namespace of its own, over lo: real servers are addresses of 127.0.0.0/8, answered by
another process. In the guest, where there is IPVS, the real keepalived checks the same servers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.guest import GuestError, run_in_guest
from xlvs.daemon.checks.runner import Lateness, Runner
from xlvs.errors import XlvsError
from xlvs.health.checks import AnyCheck, HttpCheck, TcpCheck, Url

SERVERS, INTERVAL, SECONDS = 5000, 3.0, 15.0
IN_GUEST = 300  # real servers in emulation, which is thirty times as slow
MOST = 0.5  # of a processor, for TCP_CHECK: what the project asks
PORT = 7777
_FIRST = ip_address("127.1.0.1")
_REPLY = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass(frozen=True)
class Checking:
    """``busy`` of one processor; seconds late on average, of one in a hundred, and at most.

    ``fewest`` and ``most``: how often the least and the most asked servers were asked.
    """

    name: str
    servers: int
    interval: float
    busy: float
    a_second: float
    late: float = 0.0
    late_99: float = 0.0
    worst: float = 0.0
    fewest: int = 0
    most: int = 0


def main(as_json: bool, quick: bool, guest: bool, in_guest: bool) -> int:
    """Measure and print; exit status 1 where what is asked was not reached."""
    found = measured_in_guest(quick) if guest else measure(quick, in_guest)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    else:
        print("\n".join(lines(found)))
    missed = [each for each in found if each.name == "TCP_CHECK" and each.busy > MOST]
    return int(bool(missed) and not (quick or guest or in_guest))


def lines(found: Sequence[Checking]) -> list[str]:
    """A table."""
    left = f"{'':<24}{'servers':>9}{'every':>8}{'checks':>11}{'of a core':>11}"
    text = [f"{left}{'late: mean':>13}{'99 %':>10}{'worst':>10}"]
    for each in found:
        line = (
            f"{each.name:<24}{each.servers:>9}{each.interval:>6g} s{each.a_second:>9.0f}/s{each.busy:>11.1%}"
        )
        if each.most:
            late = [f"{value * 1000:.1f} ms" for value in (each.late, each.late_99, each.worst)]
            line += f"{late[0]:>13}{late[1]:>10}{late[2]:>10}    each {each.fewest} to {each.most} times"
        if each.name == "TCP_CHECK" and each.servers == SERVERS:
            line += f"    <= {MOST:.0%}: {'yes' if each.busy <= MOST else 'NO'}"
        text.append(line)
    return text


def measure(quick: bool, in_guest: bool) -> list[Checking]:
    """Each kind of check in turn, and the real keepalived where there is IPVS."""
    servers = 100 if quick else IN_GUEST if in_guest else SERVERS
    interval, seconds = (0.5, 2.0) if quick else (INTERVAL, SECONDS)
    names = ["TCP_CHECK", "HTTP_GET", *(["keepalived TCP_CHECK"] if in_guest else [])]
    words = [str(servers), str(interval), str(seconds)]
    found = []
    for name in names:
        command = ["unshare", "--net", sys.executable, "-m", "bench.checks", name, *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise XlvsError(f"measuring {name} failed: {run.stderr.strip()}")
        found.append(Checking(**json.loads(run.stdout)))
    return found


def measured_in_guest(quick: bool) -> list[Checking]:
    """Boot the guest and have this program measure there, beside the real keepalived."""
    speed = "--quick" if quick else ""
    try:
        command = f"{sys.executable} -m bench --only checks --in-guest --json {speed}"
        run = run_in_guest(f"modprobe -a ip_vs ip_vs_rr && {command}", timeout=600)
    except GuestError as error:
        raise XlvsError(str(error)) from error
    if run.status:
        raise XlvsError(f"the benchmark failed in the guest: {run.stderr.strip()}")
    return [Checking(**each) for each in json.loads(run.stdout)]


# -- in the namespace ---------------------------------------------------------------


def _inside(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("servers", type=int)
    parser.add_argument("interval", type=float)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args(arguments)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with _answering():
        if chosen.name.startswith("keepalived"):
            found = _keepalived(chosen.name, chosen.servers, chosen.interval, chosen.seconds)
        else:
            found = asyncio.run(_xlvs(chosen.name, chosen.servers, chosen.interval, chosen.seconds))
    print(json.dumps(asdict(found)))


async def _xlvs(name: str, servers: int, interval: float, seconds: float) -> Checking:
    runner = Runner(lambda *_: None)
    runner.lateness = kept = _Late()
    try:
        runner.set(_checks(name, servers, interval))
        await asyncio.sleep(interval + 1.0)  # once round: imports and first answers are not the subject
        before = {key: runner.status(key).attempts for key in range(servers)}
        kept.each.clear()
        begun, spent = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        spent, took = time.process_time() - spent, time.monotonic() - begun
        status = [runner.status(key) for key in range(servers)]
        down = [each for each in status if not each.verdict.up]
        if down:
            raise XlvsError(f"{len(down)} servers are down: {down[0].last}")
        asked = [each.attempts - before[key] for key, each in enumerate(status)]
        late = kept.each
        cuts = statistics.quantiles(late, n=100)
        return Checking(
            *(name, servers, interval, spent / took, len(late) / took),
            *(statistics.fmean(late), cuts[98], max(late), min(asked), max(asked)),
        )
    finally:
        runner.stop()


class _Late(Lateness):
    """Keeps each check's lateness."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[float] = []

    def add(self, late: float) -> None:
        self.each.append(late)


def _checks(name: str, servers: int, interval: float) -> Mapping[Hashable, AnyCheck]:
    made: dict[Hashable, AnyCheck] = {}
    for number in range(servers):
        if name == "TCP_CHECK":
            made[number] = TcpCheck(address=_FIRST + number, port=PORT, interval=interval, warmup=interval)
        else:
            urls = (Url(),)
            made[number] = HttpCheck(
                address=_FIRST + number, port=PORT, interval=interval, warmup=interval, urls=urls
            )
    return made


def _keepalived(name: str, servers: int, interval: float, seconds: float) -> Checking:
    """The real program: its checker process's time, of /proc."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "keepalived.conf")
        file.write_text(_configuration(servers, interval))
        words = [
            "keepalived",
            "-f",
            str(file),
            "-n",
            "-l",
            "-C",
            "-p",
            f"{folder}/pid",
            "-c",
            f"{folder}/checkers",
        ]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                child = _process(Path(folder, "checkers"))
                time.sleep(2 * interval)
                begun, spent = time.monotonic(), _spent(child)
                time.sleep(seconds)
                spent, took = _spent(child) - spent, time.monotonic() - begun
            finally:
                process.terminate()
    return Checking(name, servers, interval, spent / took, servers / interval)


def _process(file: Path) -> int:
    """The process that writes its number there, as soon as it does."""
    for _ in range(600):
        if file.exists() and file.read_text().strip():
            return int(file.read_text())
        time.sleep(0.1)
    raise XlvsError("keepalived's checkers did not start")


def _configuration(servers: int, interval: float) -> str:
    real = "".join(
        f" real_server {_FIRST + number} {PORT} {{\n  TCP_CHECK {{\n  }}\n }}\n" for number in range(servers)
    )
    settings = f" delay_loop {interval:g}\n lvs_sched rr\n lvs_method NAT\n protocol TCP\n"
    return f"virtual_server 192.0.2.1 80 {{\n{settings}{real}}}\n"


def _spent(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _answering() -> Iterator[None]:
    """All real servers, as one process that accepts, answers what is asked, and closes."""
    listening = socket.create_server(("", PORT), backlog=4096)
    child = os.fork()
    if child == 0:
        try:
            _serve(listening)
        finally:
            os._exit(1)
    listening.close()
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _serve(listening: socket.socket) -> None:
    accept: Callable[[], tuple[socket.socket, object]] = listening.accept
    while True:
        connection, _ = accept()
        with connection:
            try:
                connection.settimeout(1.0)
                if connection.recv(4096):
                    connection.sendall(_REPLY)
            except OSError:
                pass


if __name__ == "__main__":
    _inside(sys.argv[1:])
