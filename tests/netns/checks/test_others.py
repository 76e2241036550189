"""Checks without a stream: DNS, UDP, ping, programs, files, BFD; and many at once."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.netns.checks.site import AT_HOME, HERE, SOON, Checked, alone, checked, dropped, eventually, program
from xlvs.daemon.checks import files as watched
from xlvs.daemon.checks.runner import Runner
from xlvs.health.checks import (
    AnyCheck,
    BfdCheck,
    DnsCheck,
    FileCheck,
    MiscCheck,
    PingCheck,
    Script,
    TcpCheck,
    UdpCheck,
)
from xlvs.health.verdict import Weighting

pytestmark = pytest.mark.root
PORT = 8053


@alone
async def test_dns_of_a_real_dnsmasq() -> None:
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--port={PORT}", "--no-resolv"]
    words += ["--no-hosts", "--address=/there.example/192.0.2.1", "--local=/example/", "--user=root"]
    words += ["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]
    there = DnsCheck(port=PORT, type="A", name="there.example", **AT_HOME)
    missing = DnsCheck(port=PORT, type="A", name="missing.example", **AT_HOME)
    with checked(there) as it:
        assert "refused" in (await it.down()).last
        with program(*words, port=PORT, kind=socket.SOCK_DGRAM):
            await it.up()
            with dropped(f"udp dport {PORT} drop"):
                assert (await it.down()).last == "read timeout from socket"
            await it.up()
            with checked(missing) as other:
                assert "rcode = 3" in (await other.down()).last


@contextmanager
def answering(port: int, reply: bytes) -> Iterator[None]:
    """A UDP server that says this to everything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind((str(HERE), port))

        def serve() -> None:
            while True:
                asked, peer = served.recvfrom(1000)
                if asked == b"end":
                    return
                served.sendto(reply, peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"end", (str(HERE), port))
            thread.join()


@alone
async def test_udp_by_icmp_errors_and_by_replies() -> None:
    plain = UdpCheck(port=PORT, **{**AT_HOME, "timeout": 0.3})
    expecting = UdpCheck(port=PORT, payload=b"ask", require_reply=True, reply=((0x61, 0xFF),), **AT_HOME)
    with checked(plain) as it:
        assert "refused" in (await it.down()).last
        with answering(PORT, b"abc"):
            await it.up()
            with dropped(f"udp dport {PORT} drop"):
                attempts = it.status.attempts
                await it.until(lambda status: status.attempts > attempts + 3)
                assert it.status.verdict.up  # silence is no failure
            with checked(expecting) as other:
                await other.up()
        await it.down()
    with answering(PORT, b"xyz"), checked(expecting) as it:
        assert (await it.down()).last == "reply data mismatch"


@alone
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_ping(address: str) -> None:
    # A new namespace lets nobody ping without a raw socket: the first check sees to that.
    check = PingCheck(port=0, **{**AT_HOME, "address": ip_address(address), "timeout": 0.5})
    with checked(check) as it:
        await it.up()
        protocol = "icmp" if "." in address else "ipv6-icmp"
        with dropped(f"meta l4proto {protocol} drop"):
            assert (await it.down()).last == "no echo reply"
        await it.up()


@alone
async def test_a_program_s_exit_status_sets_the_weight(tmp_path: Path) -> None:
    status, script = tmp_path / "status", tmp_path / "check"
    status.write_text("0")
    script.write_text(f'#!/bin/sh\nread s < {status}\n[ "$s" = hang ] && exec sleep 1000\nexit $s\n')
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    check = MiscCheck(script=Script((str(script),), user="root"), timeout=20.0, dynamic=True, **SOON)
    with checked(check) as it:
        assert (await it.up()).verdict.weighting == Weighting()
        status.write_text("12")
        await it.until(lambda now: now.verdict.weighting == Weighting(instead=10))
        status.write_text("0")
        attempts = it.status.attempts
        await it.until(lambda now: now.attempts > attempts + 2)
        assert it.status.verdict.weighting == Weighting(instead=10)
        status.write_text("1")
        assert (await it.down()).last == "exited with status 1"
        status.write_text("2")
        assert (await it.up()).verdict.weighting == Weighting(instead=0)
        it.runner.set({"it": MiscCheck(script=check.script, timeout=0.3, **SOON)})
        status.write_text("hang")
        assert (await it.down()).last == "timed out"
    with checked(MiscCheck(script=Script((str(tmp_path / "missing"),), user="root"), **SOON)) as it:
        await it.until(lambda now: "No such file" in now.last)
        assert it.status.verdict.up  # a check that cannot be made says nothing


@alone
async def test_a_file_s_number_is_added_to_the_weight(tmp_path: Path) -> None:
    file = tmp_path / "load"
    weighed = FileCheck(track_file="load", weight=2, **SOON)
    with checked(weighed, {"load": str(file)}) as it:
        assert (await it.up()).verdict.weighting == Weighting(plus=0)
        file.write_text("5\n")
        await it.until(lambda status: status.verdict.weighting == Weighting(plus=10))
        file.write_text("-7\n")
        await it.until(lambda status: status.verdict.weighting == Weighting(plus=-14))
        other = tmp_path / "other"
        other.write_text("1")
        it.runner.set({"it": weighed}, {"load": str(other)})
        await it.until(lambda status: status.verdict.weighting == Weighting(plus=2))
    with checked(FileCheck(track_file="load", weight=0, **SOON), {"load": str(file)}) as it:
        await it.down()
        file.write_text("0")
        await it.up()
        file.write_text("1")
        await it.down()
        file.unlink()
        await it.up()


@alone
async def test_a_file_that_changes_twice_in_a_tick_and_a_fifo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fifo = tmp_path / "load", tmp_path / "fifo"
    file.write_text("1")
    os.mkfifo(fifo)
    first = os.stat(file)
    with monkeypatch.context() as coarse:
        coarse.setattr(watched, "os", SimpleNamespace(**{**vars(os), "stat": lambda _: first}))
        coarse.setattr(watched, "time", SimpleNamespace(time_ns=lambda: first.st_ctime_ns + 1))
        with checked(FileCheck(track_file="load", **SOON), {"load": str(file)}) as it:
            await it.until(lambda status: status.verdict.weighting == Weighting(plus=1))
            file.write_text("2")
            await it.until(lambda status: status.verdict.weighting == Weighting(plus=2))
    with checked(FileCheck(track_file="load", **SOON), {"load": str(fifo)}) as it:
        assert (await it.up()).verdict.weighting == Weighting(plus=0)  # nobody writes, nobody waits


@alone
async def test_a_bfd_session_says_whether_its_server_is_up() -> None:
    with checked(BfdCheck(name="peer", **SOON)) as it:
        await asyncio.sleep(0.3)
        assert it.reports == []  # nobody knows yet
        it.runner.bfd("other", up=False)
        it.runner.bfd("peer", up=False)
        await it.down()
        it.runner.bfd("peer", up=True)
        await it.up()
        assert [verdict.up for verdict in it.reports] == [False, True]


@alone
async def test_a_reload_leaves_what_did_not_change_alone() -> None:
    slow = {**AT_HOME, "interval": 3600.0, "warmup": 3600.0}
    one: AnyCheck = TcpCheck(port=PORT, **AT_HOME)
    two: AnyCheck = TcpCheck(port=PORT, **slow)
    reports: list[object] = []
    runner = Runner(lambda key, _: reports.append(key))
    try:
        runner.set({"one": one, "two": two})
        await eventually(lambda: not runner.status("one").verdict.up)
        attempts, due = runner.status("one").attempts, runner.status("two").due
        for number in range(200):
            runner.set({"two": two, "one": one, number: one})
        assert runner.status("two").due == due
        assert runner.status("one").attempts >= attempts
        # Changed, it is begun anew and keeps what is known of its server.
        runner.set({"one": TcpCheck(port=PORT, **slow), "two": two})
        status = runner.status("one")
        assert (status.verdict.up, status.ran, status.due > due - 3600) == (False, True, True)
        assert reports.count("one") == 1
        runner.set({"two": two})
        with pytest.raises(KeyError):
            runner.status("one")
    finally:
        runner.stop()


@alone
async def test_checks_that_rest_ask_nothing() -> None:
    with checked(TcpCheck(port=PORT, **AT_HOME)) as it:
        await it.down()
        it.runner.pause({"it"})
        attempts = it.status.attempts
        await asyncio.sleep(1.0)
        assert (it.status.attempts, it.status.paused) == (attempts, True)
        it.runner.pause(())
        await it.until(lambda status: status.attempts > attempts)
        assert len(it.reports) == 1


@alone
async def test_hundreds_of_hung_servers_starve_nobody() -> None:
    """Each of 600 is asked as often as the others, though most never answer."""
    hung = {**AT_HOME, "address": ip_address("127.9.9.9"), "interval": 0.5, "timeout": 0.5, "retries": 0}
    checks: dict[Hashable, AnyCheck] = {number: TcpCheck(port=PORT + number, **hung) for number in range(500)}
    well = {**AT_HOME, "interval": 0.5, "warmup": 0.5}
    with socket.create_server((str(HERE), PORT), backlog=1000), dropped("ip daddr 127.9.9.9 drop"):
        checks |= {number: TcpCheck(port=PORT, **well) for number in range(500, 600)}
        runner = Runner(lambda *_: None)
        try:
            runner.set(checks)
            await eventually(lambda: all(runner.status(number).attempts >= 6 for number in checks))
            for some in (range(500), range(500, 600)):
                attempts = [runner.status(number).attempts for number in some]
                assert max(attempts) <= 2 * min(attempts), attempts
            assert not any(runner.status(number).verdict.up for number in range(500))
        finally:
            runner.stop()


@alone
async def test_nothing_is_left_of_a_runner(tmp_path: Path) -> None:
    """Sockets, timers and programs end with it, wherever they are."""
    subprocess.run(["nft", "list", "tables"], check=True, capture_output=True)
    before = len(os.listdir("/proc/self/fd"))
    hung = {**AT_HOME, "address": ip_address("127.9.9.9"), "timeout": 60.0}
    sleeper = MiscCheck(script=Script(("/bin/sleep", "600"), user="root"), timeout=600.0, **SOON)
    with dropped("ip daddr 127.9.9.9 drop"):
        it = Checked(TcpCheck(port=PORT, **hung))
        it.runner.set(
            {0: TcpCheck(port=1, **hung), 1: UdpCheck(port=1, require_reply=True, **hung), 2: sleeper}
        )
        await asyncio.sleep(0.5)
        assert len(os.listdir("/proc/self/fd")) > before + 2
        it.runner.stop()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) == before)
    children = subprocess.run(
        ["pgrep", "--parent", str(os.getpid()), "sleep"], capture_output=True, text=True, check=False
    )
    assert children.stdout == ""
