"""Alerts by mail against a server that plays by the book, and some that do not; notify fifos."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from xlvs.daemon.keepalived import mail
from xlvs.daemon.keepalived.fifo import NotifyFifo
from xlvs.keepalived.config import Mail

Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def play(serve: Served, body: str = "all\r\n.is\nwell", timeout: float = 30.0) -> bool:
    async def story() -> bool:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            to = ("Ops <ops@example.net>", "other@example.net")
            settings = Mail(to, "dir@example.net", "127.0.0.1", port, "dir1", timeout)
            return await mail.send(settings, "dir1", "Virtualserver X - DOWN\nBcc: evil", body)

    return asyncio.run(story())


def test_a_mail_is_delivered_to_everybody() -> None:
    said: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220-hello\r\n220 there\r\n")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            said.append(line)
            if line == "DATA":
                writer.write(b"354 go on\r\n")
                said.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                writer.write(b"250 taken\r\n")
            elif line == "QUIT":
                writer.write(b"221 bye\r\n")
                writer.close()
                return
            else:
                writer.write(b"250 fine\r\n")

    assert play(serve)
    text = said.pop(-2)
    assert said == [
        "HELO dir1",
        "MAIL FROM:<dir@example.net>",
        "RCPT TO:<ops@example.net>",
        "RCPT TO:<other@example.net>",
        "DATA",
        "QUIT",
    ]
    assert "Subject: [dir1] Virtualserver X - DOWN Bcc: evil\r\n" in text
    assert "To: Ops <ops@example.net>, other@example.net\r\n" in text
    assert text.endswith("\r\n\r\nall\r\n..is\r\nwell\r\n.\r\n")


def test_what_is_not_taken_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 go away\r\n")
        await reader.read()
        writer.close()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.close()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert not play(refuse)
    assert "it answered '554 go away' where 220 was expected" in caplog.text
    assert not play(hang_up)
    assert not play(be_silent, timeout=0.2)
    assert len(caplog.records) == 3
    assert not asyncio.run(mail.send(Mail(), "", "nobody is configured", ""))


def test_a_fifo_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFifo(str(path))
    for _ in range(20_000):
        fifo.tell("VS [10.9.0.1]:tcp:80 DOWN")
    assert ["nobody reads it" in record.message for record in caplog.records] == [True]
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 26) == b"VS [10.9.0.1]:tcp:80 DOWN\n"
    os.close(reader)
    fifo.close()
    assert not path.exists()


def test_an_operators_own_fifo_stays_and_a_file_is_left_alone(tmp_path: Path) -> None:
    path, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(path)
    NotifyFifo(str(path)).close()
    assert path.exists()
    file.write_text("precious")
    other = NotifyFifo(str(file))
    other.tell("x")
    other.close()
    assert file.read_text() == "precious"
