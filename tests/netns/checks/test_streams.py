"""Checks over TCP against real servers: nginx, openssl, SMTP, the agent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.netns.checks.site import (
    AT_HOME,
    SOON,
    Checked,
    alone,
    certificate,
    checked,
    dropped,
    eventually,
    nginx,
    program,
    saying,
    serving,
)
from xlvs.daemon.checks.runner import Runner
from xlvs.daemon.checks.tls import Credentials
from xlvs.errors import XlvsError
from xlvs.health.checks import AgentCheck, DnsCheck, HttpCheck, MiscCheck, Script, SmtpCheck, TcpCheck, Url

pytestmark = pytest.mark.root
PORT = 8080
TCP = TcpCheck(port=PORT, **AT_HOME)
BODY = b"a page\n"
DIGEST = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


@alone
async def test_tcp_refusing_then_there_then_silent() -> None:
    with checked(TCP) as it:
        assert "refused" in (await it.down()).last
        assert len(it.reports) == 1  # the first failure is news, and counts at once
        with serving(PORT, socket.socket.close) as server:
            await it.up()
            with dropped(f"tcp dport {PORT} drop"):
                before = it.status.failures
                assert (await it.down()).last == "Timeout connecting"
                assert it.status.failures >= before + 2  # a retry came first
            await it.up()
            server.stop()
            await it.down()
        assert [verdict.up for verdict in it.reports] == [False, True, False, True, False]


@alone
async def test_tcp_from_an_address_a_port_and_with_a_mark() -> None:
    from ipaddress import ip_address

    with serving(PORT, socket.socket.close) as server:
        bound = TcpCheck(port=PORT, bind_address=ip_address("127.0.0.9"), bind_port=7654, fwmark=5, **AT_HOME)
        with checked(bound) as it:
            await it.up()
            await it.until(lambda status: status.attempts > 4)  # the port is free again each time
            assert set(server.peers) == {("127.0.0.9", 7654)}
            with dropped(f"meta mark 5 tcp dport {PORT} drop"):
                await it.down()


@alone
async def test_an_address_that_is_not_ours_says_nothing_of_the_server() -> None:
    from ipaddress import ip_address

    away = TcpCheck(port=PORT, bind_address=ip_address("192.0.2.77"), **AT_HOME)
    with checked(away) as it:
        await it.until(lambda status: "cannot ask" in status.last)
        await asyncio.sleep(0.5)
        assert (it.reports, it.status.verdict.up, it.status.attempts) == ([], True, 0)


@alone
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "fe80::1"])
async def test_a_server_to_which_there_is_no_way_is_down(address: str) -> None:
    from ipaddress import ip_address

    with checked(TcpCheck(port=PORT, **{**AT_HOME, "address": ip_address(address)})) as it:
        assert "connection failed" in (await it.down()).last
        await it.until(lambda status: status.failures > 3)
        assert [verdict.up for verdict in it.reports] == [False]


@alone
async def test_a_check_that_cannot_be_made_is_tried_again() -> None:
    with checked(DnsCheck(port=PORT, name="no..name", **AT_HOME)) as it:
        await it.until(lambda status: "cannot ask" in status.last)
        due = it.status.due
        await it.until(lambda status: status.due > due)
        assert (it.reports, it.status.verdict.up, it.status.attempts) == ([], True, 0)


@alone
async def test_a_director_without_descriptors_says_nothing_of_its_servers() -> None:
    script = MiscCheck(script=Script(("/bin/true",), user="root"), **SOON)
    with serving(PORT, socket.socket.close), checked(TCP) as it, checked(script) as other:
        await it.up()
        await other.up()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare[0] + 1, hard))
        try:
            await it.until(lambda status: "cannot ask" in status.last)
            await other.until(lambda status: "Couldn't run script" in status.last)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(spare[0])

        def more(one: Checked, before: int) -> bool:
            return one.status.attempts > before

        for each in (it, other):
            attempts = each.status.attempts
            await eventually(partial(more, each, attempts))
            assert [verdict.up for verdict in each.reports] == [True]


def site(folder: Path, tls: str = "") -> str:
    (folder / "page").write_bytes(BODY)
    return f"""
      server {{
        listen 127.0.0.1:{PORT}{" ssl" if tls else ""}; root {folder}; {tls}
        location / {{ if (-f {folder}/broken) {{ return 500; }} }}
      }}"""


@alone
async def test_http_of_a_real_nginx(tmp_path: Path) -> None:
    url = Url(path="/page", digest=DIGEST, regex="^a [[:alpha:]]+", regex_options=("caseless",))
    other = Url(path="/page", statuses=((200, 200),))
    check = HttpCheck(port=PORT, urls=(url, other), fast_recovery=True, protocol="1.1", **AT_HOME)
    with nginx(tmp_path, site(tmp_path), PORT), checked(check) as it:
        await it.up()
        (tmp_path / "broken").touch()
        assert "HTTP status code error to (status 500)" in (await it.down()).last
        (tmp_path / "broken").unlink()
        await it.up()
        (tmp_path / "page").write_bytes(b"another page\n")
        assert (await it.down()).last == "MD5 digest error to"
        (tmp_path / "page").write_bytes(BODY)
        await it.up()
        (tmp_path / "page").unlink()
        assert "status 404" in (await it.down()).last


@alone
async def test_http_of_a_server_that_hangs_refuses_and_talks_nonsense() -> None:
    good = b"HTTP/1.0 200 OK\r\n\r\n"
    check = HttpCheck(port=PORT, urls=(Url(),), **AT_HOME)

    def answering(reply: bytes) -> None:
        def behave(connection: socket.socket) -> None:
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        server.behave = behave

    with serving(PORT, socket.socket.close) as server, checked(check) as it:
        answering(good)
        await it.up()
        server.behave = server.hang
        assert (await it.down()).last == "Timeout reading"
        answering(good)
        await it.up()
        answering(b"220 mail.example\r\n")
        await it.down()
        answering(good)
        await it.up()
        server.stop()
        await it.down()


@alone
async def test_patience_is_for_each_piece_of_a_page_but_not_for_ever() -> None:
    def slowly(pieces: int) -> Callable[[socket.socket], None]:
        def behave(connection: socket.socket) -> None:
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                for _ in range(pieces):
                    time.sleep(0.2)
                    connection.sendall(b"x")

        return behave

    slow = {**AT_HOME, "timeout": 0.5, "retries": 0}
    check = HttpCheck(port=PORT, urls=(Url(),), fast_recovery=True, **slow)
    with serving(PORT, slowly(5)) as server, checked(check) as it:
        await it.up()
        server.behave = slowly(10_000)  # the other end closes long before
        assert (await it.down()).last == "Timeout reading"


@alone
async def test_a_server_without_an_end_keeps_nobody_else_waiting() -> None:
    def flood(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                connection.sendall(bytes(1 << 20))

    with serving(PORT, flood), serving(PORT + 1, socket.socket.close):
        runner = Runner(lambda *_: None)
        try:
            url = Url(digest="0" * 32)
            runner.set(
                {
                    "flood": HttpCheck(port=PORT, urls=(url,), **{**AT_HOME, "timeout": 30.0}),
                    "other": TcpCheck(port=PORT + 1, **AT_HOME),
                }
            )
            await eventually(lambda: runner.status("other").attempts > 20)
            assert runner.status("flood").attempts == 0
        finally:
            runner.stop()


@alone
async def test_certificates_count_only_where_a_ca_is_configured(tmp_path: Path) -> None:
    mine, key = certificate(tmp_path, "mine")
    others, _ = certificate(tmp_path, "others")
    check = HttpCheck(port=PORT, urls=(Url(path="/page"),), tls=True, fast_recovery=True, **AT_HOME)
    tls = f"ssl_certificate {mine}; ssl_certificate_key {key};"
    with nginx(tmp_path, site(tmp_path, tls), PORT):
        with checked(check) as it:
            await it.up()
        with checked(check, credentials=Credentials(ca=mine)) as it:
            await it.up()
            with pytest.raises(XlvsError, match="cannot use /nowhere"):
                it.runner.credentials = Credentials(ca="/nowhere")
            it.runner.credentials = Credentials(ca=others)
            assert "CERTIFICATE_VERIFY_FAILED" in (await it.down()).last
            it.runner.credentials = Credentials(ca=mine)
            await it.up()


@alone
async def test_a_client_s_certificate_and_the_name_that_is_asked_for(tmp_path: Path) -> None:
    mine, key = certificate(tmp_path, "mine")
    client, secret = certificate(tmp_path, "client")
    tls = f"ssl_certificate {mine}; ssl_certificate_key {key};"
    asks = f"{tls} ssl_verify_client on; ssl_client_certificate {client};"
    servers = f"""
      server {{ listen 127.0.0.1:{PORT} ssl; server_name other.example; {tls} return 404; }}
      server {{
        listen 127.0.0.1:{PORT} ssl; server_name www.example; {asks}
        if ($ssl_server_name != www.example) {{ return 404; }}
        return 200;
      }}"""
    urls = (Url(virtualhost="www.example"),)
    named = HttpCheck(port=PORT, urls=urls, tls=True, sni=True, fast_recovery=True, **AT_HOME)
    with nginx(tmp_path, servers, PORT), checked(named) as it:
        assert "status 400" in (await it.down()).last  # no certificate was shown
        it.runner.credentials = Credentials(certificate=client, key=secret)
        await it.up()
        it.runner.set({"it": HttpCheck(port=PORT, urls=urls, tls=True, sni=False, **AT_HOME)})
        await it.down()  # it came to the first server, by no name


@alone
async def test_tls_of_openssl_and_of_a_server_that_knows_none(tmp_path: Path) -> None:
    mine, key = certificate(tmp_path, "mine")
    check = HttpCheck(port=PORT, urls=(Url(),), tls=True, fast_recovery=True, **AT_HOME)
    words = ("openssl", "s_server", "-accept", str(PORT), "-cert", mine, "-key", key, "-www", "-quiet")
    odd = HttpCheck(port=PORT, urls=(Url(virtualhost="*." + "x" * 70),), tls=True, sni=True, **AT_HOME)
    with checked(check) as it:
        with program(*words, port=PORT):
            await it.up()
            with checked(odd) as other:
                await other.up()  # no host has such a name, but a certificate may
                other.runner.set({"it": replace(odd, urls=(Url(virtualhost=".x"),))})
                assert "TLS" in (await other.down()).last
        await it.down()
        with serving(PORT, saying(b"220 no TLS here\r\n")) as server:
            assert "TLS" in (await it.until(lambda status: "TLS" in status.last)).last
            server.behave = server.hang
            await it.until(lambda status: status.last == "Timeout of the TLS handshake")
            assert not it.status.verdict.up


@alone
async def test_smtp() -> None:
    good = saying(b"220 hi\r\n", b"250-me\r\n250 too\r\n", b"221 bye\r\n")
    with serving(PORT, good) as server, checked(SmtpCheck(port=PORT, **AT_HOME)) as it:
        await it.up()
        server.behave = saying(b"554 no\r\n")
        assert (await it.down()).last == "Bad greeting banner from server"
        server.behave = good
        await it.up()
        server.behave = server.hang
        assert (await it.down()).last == "Timeout reading"
        server.behave = good
        await it.up()
        server.stop()
        await it.down()


@alone
async def test_the_agent_sets_the_weight_as_its_machine_says(tmp_path: Path) -> None:
    said, busy = tmp_path / "said", tmp_path / "drain"
    said.write_text("50%\n")
    agent = [sys.executable, "-m", "xlvs.cli.main", "realserver", "agent", "--port", str(PORT)]
    agent += ["--address", "127.0.0.1", "--drain-file", str(busy), "--command", "cat", str(said)]
    check = AgentCheck(port=PORT, damping=0.5, **{**AT_HOME, "timeout": 20.0})
    with ExitStack() as running, checked(check) as it:
        await it.down()
        running.enter_context(program(*agent, port=PORT))
        assert (await it.up()).verdict.weighting.share == 0.5
        said.write_text("90%\n")
        await it.until(lambda status: status.verdict.weighting.share == 0.9)
        shares = [verdict.weighting.share for verdict in it.reports if verdict.up]
        assert shares[:3] == [0.5, 0.7, 0.8]  # damped: half of what is left each time
        busy.touch()
        await it.until(lambda status: status.verdict.weighting.share == 0.0)
        assert it.status.verdict.up
        busy.unlink()
        said.write_text("ready 40%\n")
        await it.until(lambda status: status.verdict.weighting.share == 0.4)
        said.write_text("down #tired\n")
        await it.down()
        said.unlink()
        await it.until(lambda status: "fail #cat ended with status 1" in status.last)


@alone
async def test_the_agent_answers_from_load_and_memory() -> None:
    agent = [sys.executable, "-m", "xlvs.cli.main", "realserver", "agent", "--port", str(PORT)]
    with program(*agent, "--load", "--memory", port=PORT):
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        words = (await reader.read()).decode().split()
        writer.close()
        assert words[:2] == ["up", "ready"]
        assert 1 <= int(words[2].removesuffix("%")) <= 100
        with checked(AgentCheck(port=PORT, **{**AT_HOME, "timeout": 20.0})) as it:
            await it.up()
            await eventually(lambda: 0 < it.status.verdict.weighting.share <= 1)
