"""SMTP_CHECK: greeting, HELO, QUIT (RFC 5321)."""

from __future__ import annotations

from xlvs.health.answers import PASSED, Answer
from xlvs.health.checks import SmtpCheck

_LONGEST = 4096  # bytes of one reply; RFC 5321 4.5.3.1.5 grants a line 512


class SmtpDialogue:
    """220, then HELO and 250, then QUIT and any reply at all."""

    def __init__(self, check: SmtpCheck) -> None:
        helo = f"HELO {check.helo_name}\r\n".encode("utf-8", "surrogateescape")
        self._steps = iter(
            (
                (b"220", helo, "Bad greeting banner from server"),
                (b"250", b"QUIT\r\n", "Bad HELO response from server"),
                (b"", b"", ""),
            )
        )
        self._step = next(self._steps)
        self._heard = b""

    def opened(self) -> bytes | Answer:
        return b""

    def received(self, data: bytes) -> bytes | Answer:
        self._heard += data
        while b"\n" in self._heard:
            line, self._heard = self._heard.split(b"\n", 1)
            code, command, trouble = self._step
            if not line.startswith(code) or (code and line[3:4].isdigit()):
                return Answer(False, trouble)
            if line[3:4] == b"-" and code:
                continue  # a reply of several lines: the last one has a space there
            if not command:
                return PASSED
            self._step = next(self._steps)
            return command  # what else was heard already is not an answer to this
        return Answer(False, "Too long a line from server") if len(self._heard) > _LONGEST else b""

    def ended(self, *, reset: bool = False) -> Answer:
        del reset
        return Answer(False, "Read failure from server")
