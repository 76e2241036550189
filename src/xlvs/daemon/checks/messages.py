"""What the log says of checks: keepalived's words, where a script may look for them."""

from __future__ import annotations

from xlvs.health.checks import (
    AgentCheck,
    AnyCheck,
    BfdCheck,
    DnsCheck,
    FileCheck,
    HttpCheck,
    MiscCheck,
    PingCheck,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)

# Of each check: its word in a failure, and the sentence of a success.
_WORDS: dict[type[AnyCheck], tuple[str, str]] = {
    TcpCheck: ("TCP_CHECK", "TCP connection to {} success."),
    HttpCheck: ("HTTP_CHECK", "Remote Web server {} succeed on service."),
    SmtpCheck: ("SMTP_CHECK", "Remote SMTP server {} succeed on service."),
    DnsCheck: ("DNS_CHECK", "DNS_CHECK ({}) success."),
    UdpCheck: ("UDP_CHECK", "UDP connection to {} success."),
    PingCheck: ("PING_CHECK", "ICMP connection to {} success."),
    FileCheck: ("FILE_CHECK", "FILE_CHECK on service {} success."),
    BfdCheck: ("BFD_CHECK", "BFD_CHECK on service {} success."),
    AgentCheck: ("AGENT_CHECK", "AGENT_CHECK on service {} success."),
}

_CONNECTIONS: dict[type[AnyCheck], str] = {TcpCheck: "TCP", UdpCheck: "UDP", PingCheck: "ICMP"}


def turned(check: AnyCheck, where: str, up: bool, tries: int) -> str:
    """A verdict changed: ``tries`` were the retries before a failure counted."""
    if isinstance(check, MiscCheck):
        after = f" after {tries} {'retry' if tries == 1 else 'retries'}" if tries and not up else ""
        ended = "succeeded" if up else "failed"
        return f"Misc check for [{where}] by [{check.script.arguments[0]}] {ended}{after}."
    word, success = _WORDS[type(check)]
    if up:
        return success.format(where)
    after = f" after {tries} retries" if tries else ""
    return f"{word} on service {where} failed{after}."


def failed(check: AnyCheck, where: str, text: str) -> str:
    """One attempt failed (said of all of them with log_all_failures)."""
    if connection := _CONNECTIONS.get(type(check)):
        return f"{connection} connection to {where} failed."
    if isinstance(check, HttpCheck):
        return f"{text.partition(' (')[0]} server {where}."
    if isinstance(check, SmtpCheck):
        return f"SMTP_CHECK {text} {where}"
    if isinstance(check, DnsCheck):
        return f"DNS_CHECK ({where}) {text}"
    if isinstance(check, MiscCheck):
        return f"Misc check for [{where}] by [{check.script.arguments[0]}] failed ({text})."
    return f"{_WORDS[type(check)][0]} on service {where}: {text}"
