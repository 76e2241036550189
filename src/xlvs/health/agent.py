"""AGENT_CHECK: a server says in a line of text how much it can take (HAProxy's agent-check protocol).

The line holds words between blanks, tabs or commas, in any case: ``75%`` (of the configured weight),
``ready``, ``drain``, ``maint``, ``up``, ``down``, ``failed``, ``stopped`` (after the last four of which
``#`` may introduce a reason), ``maxconn:N``. See HAProxy's configuration manual, "agent-check".
"""

from __future__ import annotations

from dataclasses import dataclass

from xlvs.health.answers import Answer
from xlvs.health.checks import AgentCheck
from xlvs.health.verdict import Weighting

_LONGEST = 1024  # bytes of a line
_ADMIN = ("ready", "drain", "maint")
_STATES = {"up": True, "down": False, "fail": False, "failed": False, "stopped": False}
_MOST_SHARE = 256.0  # times the configured weight: what HAProxy's own weights span
_CLOSE = 0.005  # of the configured weight: a damped share this near is there


@dataclass(frozen=True, slots=True)
class Saying:
    """What a line says; None where it says nothing of it. ``share`` 1.0 is 100 %."""

    share: float | None = None
    up: bool | None = None
    admin: str | None = None
    reason: str = ""
    unknown: tuple[str, ...] = ()


def read(line: str) -> Saying:
    """Understand a line. Later words of a kind count; unknown ones (and maxconn) are noted."""
    words, _, reason = line.strip().partition("#")
    share: float | None = None
    up: bool | None = None
    admin: str | None = None
    unknown: list[str] = []
    for word in words.replace(",", " ").split():
        lower = word.lower()
        if lower.endswith("%") and lower[:-1].isascii() and lower[:-1].isdigit() and len(lower) < 8:
            share = min(int(lower[:-1]) / 100, _MOST_SHARE)
        elif lower in _ADMIN:
            admin = lower
        elif lower in _STATES:
            up = _STATES[lower]
        else:
            unknown.append(word)
    return Saying(share, up, admin, reason.strip(), tuple(unknown))


class Agent:
    """What a server's agent has said so far: states hold until others are said, shares are damped.

    ``damping`` is the part of the difference that each answer takes over: 1 follows at once. The
    first answer is taken as it is: there is nothing to damp yet.
    """

    def __init__(self, damping: float) -> None:
        self.damping = damping
        self.share = 1.0
        self.up = True
        self.admin = "ready"
        self._heard = False

    def said(self, line: str) -> Answer:
        """The answer that this line is. Nothing that can be understood in it is a failure."""
        saying = read(line)
        if saying.share is None and saying.up is None and saying.admin is None:
            return Answer(False, f"agent said nothing known: {line.strip()[:60]!r}")
        if saying.share is not None:
            self._towards(saying.share)
        if saying.up is not None:
            self.up = saying.up
        if saying.admin is not None:
            self.admin = saying.admin
        text = line.strip()[:120]
        if not self.up or self.admin == "maint":
            return Answer(False, f"agent says {text!r}")
        share = 0.0 if self.admin == "drain" else round(self.share, 4)
        return Answer(True, f"agent says {text!r}", Weighting(share=share))

    def _towards(self, share: float) -> None:
        if not self._heard or share == 0.0:
            self.share = share  # 0 % is a wish to be left alone, not a load
        else:
            self.share += (share - self.share) * self.damping
            if abs(self.share - share) < _CLOSE:
                self.share = share
        self._heard = True


class AgentDialogue:
    """Sends ``send``, if any, and takes the first line, or all that came before the end."""

    def __init__(self, check: AgentCheck, agent: Agent) -> None:
        self._send = check.send.encode("utf-8", "surrogateescape")
        self._agent = agent
        self._heard = b""

    def opened(self) -> bytes | Answer:
        return self._send

    def received(self, data: bytes) -> bytes | Answer:
        self._heard += data
        for number, byte in enumerate(self._heard):
            if byte in b"\r\n":
                return self._agent.said(self._heard[:number].decode("ascii", "replace"))
        return Answer(False, "agent's line is too long") if len(self._heard) > _LONGEST else b""

    def ended(self, *, reset: bool = False) -> Answer:
        del reset  # some do that rather than read what we sent
        if not self._heard:
            return Answer(False, "agent said nothing")
        return self._agent.said(self._heard.decode("ascii", "replace"))
