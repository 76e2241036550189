"""Alerts by mail: SMTP as far as one message to one server needs it (RFC 5321)."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from email.utils import formatdate

from xlvs.errors import XlvsError
from xlvs.keepalived.config import Mail

log = logging.getLogger(__name__)


async def send(mail: Mail, router_id: str, subject: str, body: str) -> bool:
    """Send one alert to everybody configured. False, and a message in the log, where it was not taken."""
    if not mail.server or not mail.to:
        return False
    try:
        await asyncio.wait_for(_talk(mail, text_of(mail, router_id, subject, body)), mail.timeout)
    except (OSError, TimeoutError, XlvsError, asyncio.IncompleteReadError, ValueError) as error:
        reason = str(error) or "no answer in time"
        log.warning("Remote SMTP server [%s]:%s: %s", mail.server, mail.port, reason)
        return False
    log.info("Remote SMTP server [%s]:%s: alert sent: %s", mail.server, mail.port, subject)
    return True


def text_of(mail: Mail, router_id: str, subject: str, body: str) -> str:
    """The message as it goes over the wire, its headers first."""
    lines = [
        f"Date: {formatdate(localtime=True)}",
        f"From: {_header(mail.sender)}",
        f"Subject: {_header(f'[{router_id}] {subject}')}",
        "X-Mailer: Keepalived",
        f"To: {_header(', '.join(mail.to))}",
        "",
        *body.splitlines(),
    ]
    # A line of one dot would end the message (RFC 5321, 4.5.2).
    return "".join(f".{line}\r\n" if line.startswith(".") else f"{line}\r\n" for line in lines)


async def _talk(mail: Mail, text: str) -> None:
    reader, writer = await asyncio.open_connection(mail.server, mail.port)
    try:
        await _expect(reader, 220)
        await _command(reader, writer, f"HELO {_header(mail.helo_name or socket.gethostname())}", 250)
        await _command(reader, writer, f"MAIL FROM:<{_bare(mail.sender)}>", 250)
        for receiver in mail.to:
            await _command(reader, writer, f"RCPT TO:<{_bare(receiver)}>", 250)
        await _command(reader, writer, "DATA", 354)
        await _command(reader, writer, f"{text}.", 250)
        await _command(reader, writer, "QUIT", 221)
    finally:
        writer.close()


async def _command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str, code: int) -> None:
    writer.write(f"{text}\r\n".encode("utf-8", "surrogateescape"))
    await writer.drain()
    await _expect(reader, code)


async def _expect(reader: asyncio.StreamReader, code: int) -> None:
    """An answer of any number of lines; the last has a blank after its code."""
    while True:
        line = (await reader.readuntil(b"\n")).decode("utf-8", "replace").rstrip()
        if len(line) < 4 or line[3] != "-":
            break
    if not line.startswith(str(code)):
        raise XlvsError(f"it answered '{line}' where {code} was expected")


def _header(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)


def _bare(address: str) -> str:
    """The address inside ``Name <address>``."""
    found = re.search(r"<([^<>]*)>", address)
    return _header(found.group(1) if found else address).strip()
