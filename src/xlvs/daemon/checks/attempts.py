"""From a check to an attempt at it: which executor, and what it is to say."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from typing import Protocol

from xlvs.daemon.checks.datagram import Datagram
from xlvs.daemon.checks.events import Events
from xlvs.daemon.checks.patient import Patient
from xlvs.daemon.checks.stream import Stream
from xlvs.daemon.keepalived import scripts
from xlvs.health import misc
from xlvs.health.agent import Agent, AgentDialogue
from xlvs.health.answers import Answer
from xlvs.health.checks import (
    AgentCheck,
    AnyCheck,
    DnsCheck,
    HttpCheck,
    MiscCheck,
    PingCheck,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from xlvs.health.datagrams import DnsExchange, EchoExchange, UdpExchange
from xlvs.health.http import HttpDialogue
from xlvs.health.smtp import SmtpDialogue
from xlvs.health.verdict import Weighting

Done = Callable[[Answer], None]


class Attempt(Protocol):
    """A question on its way."""

    def close(self) -> None:
        """End it: nothing more is heard of it."""


class Script:
    """One run of a MISC_CHECK's program."""

    def __init__(self, check: MiscCheck, done: Done, before: Weighting, secure: bool) -> None:
        self._check, self._done, self._before, self._secure = check, done, before, secure
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        check = self._check
        timeout = check.timeout or check.interval
        begun = time.monotonic()
        try:
            status = await scripts.once(check.script, timeout=timeout, secure=self._secure)
        except (scripts.Refused, OSError) as refusal:
            # keepalived does without such a check: it says nothing of the server.
            self._done(Answer(False, str(refusal), asked=False))
            return
        self._done(misc.answer(check, status, self._before, late=time.monotonic() - begun >= timeout))


def begin(
    events: Events,
    check: AnyCheck,
    done: Done,
    *,
    step: int = 0,
    before: Weighting,
    agent: Agent | None = None,
    tls: Callable[[], ssl.SSLContext],
    secure: bool = False,
) -> Attempt:
    """Ask. ``done`` is called once, from the loop, never from here.

    ``step`` says which URL; ``before`` is the weighting that the check's last verdict carries.
    """
    if isinstance(check, TcpCheck):
        return Stream(events, check, done)
    if isinstance(check, HttpCheck):
        url = check.urls[step]
        name = url.virtualhost if check.sni else None
        context = tls() if check.tls else None
        dialogue = HttpDialogue(check, url)
        return Stream(events, check, done, Patient(dialogue) if url.regex else dialogue, context, name)
    if isinstance(check, SmtpCheck):
        return Stream(events, check, done, SmtpDialogue(check))
    if isinstance(check, AgentCheck):
        assert agent is not None
        return Stream(events, check, done, AgentDialogue(check, agent))
    if isinstance(check, MiscCheck):
        return Script(check, done, before, secure)
    number = int.from_bytes(os.urandom(2), "big")
    if isinstance(check, DnsCheck):
        return Datagram(events, check, done, DnsExchange(check, number))
    if isinstance(check, UdpCheck):
        return Datagram(events, check, done, UdpExchange(check, os.urandom(64)))
    assert isinstance(check, PingCheck), check
    return Datagram(events, check, done, EchoExchange(check.address.version, number))
