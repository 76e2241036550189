"""A network namespace for one test, a runner with one check in it, and servers to be checked."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ParamSpec

from xlvs.daemon.checks.runner import Runner, Status
from xlvs.health.checks import AnyCheck
from xlvs.health.verdict import Verdict

P = ParamSpec("P")
_CLONE_NEWNET = 0x40000000
HERE = IPv4Address("127.0.0.1")
PATIENCE = 60.0  # seconds for anything that is to come true
SOON: dict[str, Any] = {"interval": 0.2, "retries": 1, "retry_delay": 0.05, "warmup": 0.1}
# A good answer may take its time on a busy machine; one that never comes need not be waited for long.
AT_HOME: dict[str, Any] = {**SOON, "address": HERE, "timeout": 1.0}


def alone(body: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine in a thread with a network namespace of its own; what it starts is there too."""

    @functools.wraps(body)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        def inside() -> None:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            asyncio.run(body(*arguments, **named))

        with ThreadPoolExecutor(1) as pool:
            pool.submit(inside).result()

    return run


class Checked:
    """A runner with one check, and what it reports."""

    def __init__(self, check: AnyCheck, files: dict[str, str] | None = None, **settings: Any) -> None:
        self.reports: list[Verdict] = []
        self.runner = Runner(lambda _, verdict: self.reports.append(verdict), **settings)
        self.check = check
        self.runner.set({"it": check}, files)

    @property
    def status(self) -> Status:
        return self.runner.status("it")

    async def until(self, wanted: Callable[[Status], bool]) -> Status:
        """Wait until the check stands so."""
        await eventually(lambda: wanted(self.status), lambda: str(self.status))
        return self.status

    async def up(self) -> Status:
        return await self.until(lambda status: status.ran and status.verdict.up)

    async def down(self) -> Status:
        return await self.until(lambda status: status.ran and not status.verdict.up)


async def eventually(wanted: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """Wait until something is true; what it was instead is told where it never is."""
    end = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < end, told()
        await asyncio.sleep(0.01)


@contextmanager
def checked(check: AnyCheck, files: dict[str, str] | None = None, **settings: Any) -> Iterator[Checked]:
    """The check, running for a block."""
    made = Checked(check, files, **settings)
    try:
        yield made
    finally:
        made.runner.stop()


@contextmanager
def program(*words: str, port: int | None = None, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """A server as a process for a block; begun when it has its port."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while port is not None and not _taken(port, kind):
            assert process.poll() is None, f"{words} ended with {process.returncode}"
            assert time.monotonic() < end, f"{words} has not taken port {port}"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def _taken(port: int, kind: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            return probe.connect_ex((str(HERE), port)) == 0
        try:
            probe.bind((str(HERE), port))
        except OSError:
            return True
    return False


class Server:
    """A TCP server in a thread: each connection is handed to ``behave``, which may be exchanged."""

    def __init__(self, port: int, behave: Callable[[socket.socket], None]) -> None:
        self.port, self.behave = port, behave
        self.peers: list[tuple[str, int]] = []
        self._held: list[socket.socket] = []
        self._listening: socket.socket | None = None

    def start(self) -> None:
        listening = socket.create_server((str(HERE), self.port), backlog=64)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._listening is not None:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for connection in self._held:
            connection.close()
        self._held.clear()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, peer = listening.accept()
                self.peers.append(peer)
                with suppress(OSError):
                    self.behave(connection)

    def hang(self, connection: socket.socket) -> None:
        """Accept, and never say anything."""
        self._held.append(connection)


def saying(*lines: bytes) -> Callable[[socket.socket], None]:
    """A behaviour: the first line at once, one more for each that is heard, then the end."""

    def behave(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as heard:
            for line in lines:
                connection.sendall(line)
                if line is not lines[-1]:
                    heard.readline()

    return behave


@contextmanager
def serving(port: int, behave: Callable[[socket.socket], None]) -> Iterator[Server]:
    """Such a server for a block."""
    server = Server(port, behave)
    server.start()
    try:
        yield server
    finally:
        server.stop()


NGINX = """
daemon off; master_process off; error_log stderr; pid {folder}/pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {servers}
}}
"""


@contextmanager
def nginx(folder: Path, servers: str, port: int) -> Iterator[None]:
    """Real nginx with these server blocks."""
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, servers=servers))
    folder.chmod(0o755)
    with program("nginx", "-e", "stderr", "-c", str(configuration), port=port):
        yield


def certificate(folder: Path, name: str, *options: str) -> tuple[str, str]:
    """A new certificate, signed by itself, and its key."""
    files = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return files


@contextmanager
def dropped(rule: str) -> Iterator[None]:
    """Packets that match this nft rule vanish for a block."""
    with ExitStack() as stack:
        table = f"drop{os.getpid()}"
        chain = f"add table inet {table}; add chain inet {table} c {{ type filter hook input priority 0; }}"
        subprocess.run(["nft", f"{chain}; add rule inet {table} c {rule}"], check=True)
        stack.callback(subprocess.run, ["nft", f"delete table inet {table}"], check=True)
        yield
