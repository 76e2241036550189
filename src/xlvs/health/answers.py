"""What one attempt of a check comes to, and how a conversation over a stream reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from xlvs.health.verdict import NEUTRAL, Weighting


@dataclass(frozen=True, slots=True)
class Answer:
    """One attempt's end. ``text`` says why it failed, or what was said.

    ``asked`` False: the director itself had no socket or address to ask with; that says nothing of
    the server.
    """

    ok: bool
    text: str = ""
    weighting: Weighting = NEUTRAL
    asked: bool = True


PASSED = Answer(True)


class Dialogue(Protocol):
    """The client's side of a conversation, without its socket.

    Each step gives bytes to send (none: wait for more) or the answer that ends it.
    """

    def opened(self) -> bytes | Answer:
        """The connection is there."""

    def received(self, data: bytes) -> bytes | Answer:
        """These bytes have come."""

    def ended(self, *, reset: bool = False) -> Answer:
        """The other side has finished the connection, or (``reset``) broken it off."""
