"""What UDP_CHECK, DNS_CHECK and PING_CHECK send, and which datagrams answer them."""

from __future__ import annotations

from typing import Protocol

from xlvs.health.answers import PASSED, Answer
from xlvs.health.checks import DnsCheck, UdpCheck

_DNS_HEADER = 12  # RFC 1035 4.1.1
_ECHO_REQUEST, _ECHO_REPLY = 8, 0  # RFC 792
_ECHO_REQUEST6, _ECHO_REPLY6 = 128, 129  # RFC 4443 4
_RANDOM_BYTES = 26  # of a UDP_CHECK without payload


class Exchange(Protocol):
    """A datagram, and what may come back. ``silence`` is the answer where nothing does in time."""

    request: bytes
    silence: Answer

    def received(self, datagram: bytes) -> Answer | None:
        """None: this is not about us, wait on."""


class UdpExchange:
    """Silence is health, unless a reply is required: a dead port answers by ICMP."""

    def __init__(self, check: UdpCheck, random: bytes) -> None:
        self._check = check
        self.request = random[:_RANDOM_BYTES] if check.payload is None else check.payload
        self.silence = Answer(False, "no reply") if check.require_reply else PASSED

    def received(self, datagram: bytes) -> Answer | None:
        check = self._check
        if not check.require_reply or not check.reply:
            return PASSED  # lengths count only beside bytes, in keepalived (2.2.7), too
        if not check.min_reply <= len(datagram) <= check.max_reply:
            return Answer(False, f"reply of {len(datagram)} bytes")
        # Only as many bytes are compared as both have, as keepalived does.
        for byte, (expected, mask) in zip(datagram, check.reply, strict=False):
            if (byte ^ expected) & mask:
                return Answer(False, "reply data mismatch")
        return PASSED


class DnsExchange:
    """A question with recursion desired; any response to it without an error code will do."""

    def __init__(self, check: DnsCheck, number: int) -> None:
        import dns.flags
        import dns.message
        import dns.name

        # An absolute name, whether or not it was written so.
        question = dns.message.make_query(
            dns.name.from_text(check.name), check.type, flags=dns.flags.RD, id=number & 0xFFFF
        )
        self.request = question.to_wire()
        self.silence = Answer(False, "read timeout from socket")

    def received(self, datagram: bytes) -> Answer | None:
        if len(datagram) < _DNS_HEADER or datagram[:2] != self.request[:2] or not datagram[2] & 0x80:
            return None
        code = datagram[3] & 0x0F
        return Answer(False, f"read error occurred. (rcode = {code})") if code else PASSED


class EchoExchange:
    """An echo request of an ICMP socket: the kernel fills in the identifier and the sum."""

    def __init__(self, version: int, sequence: int) -> None:
        kind, self._reply = (_ECHO_REQUEST, _ECHO_REPLY) if version == 4 else (_ECHO_REQUEST6, _ECHO_REPLY6)
        self._sequence = (sequence & 0xFFFF).to_bytes(2, "big")
        self.request = bytes([kind, 0, 0, 0, 0, 0]) + self._sequence + b"xlvs echo request"
        self.silence = Answer(False, "no echo reply")

    def received(self, datagram: bytes) -> Answer | None:
        ours = len(datagram) >= 8 and datagram[0] == self._reply and datagram[6:8] == self._sequence
        return PASSED if ours else None
