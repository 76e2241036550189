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
from xlvs.health.misc import TIMED_OUT

# Of each check: its word in a failure, and the sentence of a success.
_WORDS: dict[type[AnyCheck], tuple[str, str]] = {
    TcpCheck: ("TCP_CHECK", "TCP connection to {} success."),
    HttpCheck: ("HTTP_CHECK", "Remote Web server {} succeed on service."),
    SmtpCheck: ("SMTP_CHECK", "Remote SMTP server {} succeed on service."),
    DnsCheck: ("DNS_CHECK", "DNS_CHECK ({}) success."),
    UdpCheck: ("UDP_CHECK", "UDP connection to {} success."),
    PingCheck: ("ICMP CHECK", "ICMP connection to {} success."),
    FileCheck: ("FILE_CHECK", "FILE_CHECK on service {} success."),
    BfdCheck: ("BFD_CHECK", "BFD_CHECK on service {} success."),
    AgentCheck: ("AGENT_CHECK", "AGENT_CHECK on service {} success."),
}

_CONNECTIONS: dict[type[AnyCheck], str] = {TcpCheck: "TCP", UdpCheck: "UDP", PingCheck: "ICMP"}
# What an attempt came to, in the words of HTTP_GET and of SMTP_CHECK.
_HTTP = {"connection failed": "Connection failed", "Timeout reading": "Timeout HTTP read"}
_SMTP = {"connection failed": "Could not connect to server", "Timeout reading": "Read timeout from server"}


def turned(check: AnyCheck, where: str, up: bool, text: str, *, first: bool) -> str:
    """A verdict changed; ``text`` says why it is down, ``first`` that it is the check's first verdict.

    Some checks tell of their retries even where the first failure of all counted at once.
    """
    retries = check.retries
    if isinstance(check, MiscCheck):
        if up:
            return f"{_misc(check, where)} succeeded."
        when = f"after {_counted(retries)}" if retries else "with retry disabled"
        return f"{_misc(check, where)} {_ended(text, when)}."
    word, success = _WORDS[type(check)]
    if up:
        return success.format(where)
    if isinstance(check, SmtpCheck):
        return _smtp(check, text)
    if isinstance(check, DnsCheck):
        return f"{word} ({where}) {text}" + ("" if first else f" after {retries} retries")
    none = isinstance(check, FileCheck | BfdCheck) or (first and not isinstance(check, HttpCheck))
    after = f" after {retries} retries" if retries and not none else ""
    return f"{word} on service {where} failed{after}."


def failed(check: AnyCheck, where: str, text: str, tries: int, last: bool) -> str:
    """One attempt failed, or "" where what :func:`turned` says of the ``last`` one says it already.

    Said of all of them with log_all_failures; ``tries`` were the retries before it.
    """
    bare = text.partition(" (")[0]
    if isinstance(check, PingCheck) and "no echo" in text:
        return f"ICMP connection to address {where} timeout."
    if isinstance(check, UdpCheck) and "mismatch" in text:
        return f"UDP check to {where} reply data mismatch."
    if connection := _CONNECTIONS.get(type(check)):
        return f"{connection} connection to {where} failed."
    if isinstance(check, HttpCheck):
        return f"{_HTTP.get(bare, bare)} server {where}."
    if last and isinstance(check, DnsCheck | MiscCheck | SmtpCheck):
        return ""
    if isinstance(check, SmtpCheck):
        return _smtp(check, text)
    if isinstance(check, DnsCheck):
        return f"DNS_CHECK ({where}) {text}"
    if isinstance(check, MiscCheck):
        when = f"on retry {tries}/{check.retries}" if tries else f", will do {_counted(check.retries)}"
        return f"{_misc(check, where)} {_ended(text, when)}."
    return f"{_WORDS[type(check)][0]} on service {where}: {text}"


def _smtp(check: SmtpCheck, text: str) -> str:
    bare = text.partition(" (")[0]
    return f"SMTP_CHECK {_SMTP.get(bare, bare)} [{check.address}]:{check.port}"


def _misc(check: MiscCheck, where: str) -> str:
    return f"Misc check for [{where}] by [{check.script.arguments[0]}]"


def _ended(text: str, when: str) -> str:
    how = f"failed {when} ({text})" if text != TIMED_OUT else f"{text} {when}"
    return how.replace(" ,", ",")


def _counted(retries: int) -> str:
    return f"{retries} {'retry' if retries == 1 else 'retries'}"
