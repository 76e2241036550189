"""What the log says of checks: the lines that Debian's keepalived (2.2.7) was seen to write."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from xlvs.daemon.checks import messages
from xlvs.health.checks import (
    AnyCheck,
    DnsCheck,
    HttpCheck,
    MiscCheck,
    PingCheck,
    Script,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)

HERE: dict[str, Any] = {"address": ip_address("127.0.0.1"), "port": 6303}
TCP, UDP, PING, DNS = TcpCheck(**HERE), UdpCheck(**HERE), PingCheck(**HERE), DnsCheck(**HERE)
HTTP, SMTP = HttpCheck(urls=(), **HERE), SmtpCheck(**HERE)
REFUSED = "connection failed (Connection refused)"
MISC = MiscCheck(script=Script(("/tmp/flip",)))
RS = "[127.0.0.1]:tcp:7001"
BY = f"Misc check for [{RS}] by [/tmp/flip]"


@pytest.mark.parametrize(
    ("check", "text", "none", "two"),
    [
        (TCP, "", f"TCP_CHECK on service {RS} failed.", f"TCP_CHECK on service {RS} failed after 2 retries."),
        (PING, "", f"ICMP CHECK on service {RS} failed.", None),
        (DNS, "read timeout from socket", f"DNS_CHECK ({RS}) read timeout from socket after 0 retries", None),
        (
            MISC,
            "exited with status 1",
            f"{BY} failed with retry disabled (exited with status 1).",
            f"{BY} failed after 2 retries (exited with status 1).",
        ),
        (
            MISC,
            "timed out",
            f"{BY} timed out with retry disabled.",
            f"{BY} timed out after 2 retries.",
        ),
    ],
)
def test_a_server_is_down(check: AnyCheck, text: str, none: str, two: str | None) -> None:
    assert messages.turned(replace(check, retries=0), RS, False, text, first=False) == none
    if two:
        assert messages.turned(replace(check, retries=2), RS, False, text, first=False) == two


@pytest.mark.parametrize(
    ("check", "text", "said"),
    [
        (TCP, REFUSED, f"TCP_CHECK on service {RS} failed."),
        (UDP, "no reply", f"UDP_CHECK on service {RS} failed."),
        (PING, "no echo reply", f"ICMP CHECK on service {RS} failed."),
        (HTTP, REFUSED, f"HTTP_CHECK on service {RS} failed after 2 retries."),
        (SMTP, REFUSED, "SMTP_CHECK Could not connect to server [127.0.0.1]:6303"),
        (DNS, "read timeout from socket", f"DNS_CHECK ({RS}) read timeout from socket"),
        (MISC, "timed out", f"{BY} timed out after 2 retries."),
    ],
)
def test_a_server_is_down_from_the_first(check: AnyCheck, text: str, said: str) -> None:
    assert messages.turned(replace(check, retries=2), RS, False, text, first=True) == said


@pytest.mark.parametrize(
    ("check", "text", "tries", "said"),
    [
        (TCP, REFUSED, 0, f"TCP connection to {RS} failed."),
        (PING, "no echo reply", 0, f"ICMP connection to address {RS} timeout."),
        (UDP, "reply data mismatch", 0, f"UDP check to {RS} reply data mismatch."),
        (UDP, "no reply", 0, f"UDP connection to {RS} failed."),
        (HTTP, REFUSED, 0, f"Connection failed server {RS}."),
        (HTTP, "Timeout reading", 0, f"Timeout HTTP read server {RS}."),
        (HTTP, "Read error with", 0, f"Read error with server {RS}."),
        (SMTP, REFUSED, 0, "SMTP_CHECK Could not connect to server [127.0.0.1]:6303"),
        (SMTP, "Timeout reading", 0, "SMTP_CHECK Read timeout from server [127.0.0.1]:6303"),
        (DNS, "read error occurred. (rcode = 3)", 0, f"DNS_CHECK ({RS}) read error occurred. (rcode = 3)"),
        (replace(MISC, retries=1), "timed out", 0, f"{BY} timed out, will do 1 retry."),
        (replace(MISC, retries=2), "timed out", 1, f"{BY} timed out on retry 1/2."),
        (
            replace(MISC, retries=2),
            "exited with status 1",
            0,
            f"{BY} failed, will do 2 retries (exited with status 1).",
        ),
    ],
)
def test_one_attempt_failed(check: AnyCheck, text: str, tries: int, said: str) -> None:
    assert messages.failed(check, RS, text, tries, last=False) == said
    last = messages.failed(check, RS, text, tries, last=True)
    assert last == ("" if isinstance(check, DnsCheck | MiscCheck | SmtpCheck) else said)
