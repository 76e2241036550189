"""Keywords of the checkers of a real server, and what becomes of them with all that is inherited.

A checker is read into a draft in the real server's ``checks``, and built once the virtual server is
read, for what it inherits may stand behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlvs.health.checks import (
    AgentCheck,
    AnyCheck,
    BfdCheck,
    DnsCheck,
    FileCheck,
    HttpCheck,
    MiscCheck,
    NetworkCheck,
    PingCheck,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from xlvs.keepalived import checkers_http, checkers_other
from xlvs.keepalived.checkers_common import CONNECTION, keep, opened
from xlvs.keepalived.schema import Draft, Parser, Row, Table, block
from xlvs.keepalived.timing import inherited

_CLASSES: dict[str, type[NetworkCheck]] = {
    "TCP_CHECK": TcpCheck,
    "HTTP_GET": HttpCheck,
    "SSL_GET": HttpCheck,
    "SMTP_CHECK": SmtpCheck,
    "DNS_CHECK": DnsCheck,
    "UDP_CHECK": UdpCheck,
    "PING_CHECK": PingCheck,
    "AGENT_CHECK": AgentCheck,
}
# What is not inherited where nobody says: more attempts, and seconds between them (None: the interval).
_RETRIES = {"DNS_CHECK": 3, "MISC_CHECK": 0}
_RETRY_DELAYS: dict[str, float | None] = {"HTTP_GET": 3.0, "SSL_GET": 3.0, "DNS_CHECK": None}


def _checker(kind: str, table: Table, close: Callable[[Parser, Draft], None] = keep) -> Row:
    return block(table, opened(kind), close)


TABLE: Table = {
    "TCP_CHECK": _checker("TCP_CHECK", CONNECTION),
    "PING_CHECK": _checker("PING_CHECK", CONNECTION),
    "HTTP_GET": _checker("HTTP_GET", checkers_http.KEYWORDS, checkers_http.close),
    "SSL_GET": _checker("SSL_GET", checkers_http.KEYWORDS, checkers_http.close),
    "SMTP_CHECK": _checker("SMTP_CHECK", checkers_other.SMTP, checkers_other.close_smtp),
    "DNS_CHECK": _checker("DNS_CHECK", checkers_other.DNS),
    "UDP_CHECK": _checker("UDP_CHECK", checkers_other.UDP, checkers_other.close_udp),
    "MISC_CHECK": _checker("MISC_CHECK", checkers_other.MISC, checkers_other.close_misc),
    "FILE_CHECK": _checker("FILE_CHECK", checkers_other.FILE, checkers_other.close_file),
    "BFD_CHECK": _checker("BFD_CHECK", checkers_other.BFD, checkers_other.close_bfd),
    "AGENT_CHECK": _checker("AGENT_CHECK", checkers_other.AGENT, checkers_other.close_agent),
}


def build(draft: Draft, server: Draft, service: Draft, port: int, log_all: bool) -> AnyCheck:
    """A check as it takes effect. ``port`` is the real server's, ``log_all`` global_defs' word."""
    drafts = (draft, server, service)
    fields: dict[str, Any] = {}
    origins: dict[str, object] = dict(draft.origins)

    def take(name: str, default: Any, among: tuple[Draft, ...] = drafts) -> Any:
        fields[name], origin = inherited(among, name, default)
        if origin is not None:
            origins[name] = origin
        return fields[name]

    take("alpha", False)
    if draft.kind == "BFD_CHECK":
        return BfdCheck(name=draft.get("name"), alpha=fields["alpha"], origins=origins)
    if draft.kind == "FILE_CHECK":
        # A file's weight is always added to the server's, in 2.2.7.
        return FileCheck(
            track_file=draft.get("track_file"), weight=draft.get("weight"), dynamic=True, origins=origins
        )
    interval = take("interval", 60.0)
    delay = _RETRY_DELAYS.get(draft.kind, 1.0)
    take("retry_delay", interval if delay is None else delay)
    take("retries", _RETRIES.get(draft.kind, 1))
    take("warmup", interval)
    take("log_all_failures", log_all, (draft,))
    if draft.kind == "MISC_CHECK":
        return MiscCheck(
            script=checkers_other.misc_script(draft),
            timeout=float(draft.get("timeout", 0)),
            dynamic=draft.get("dynamic", False),
            origins=origins,
            **fields,
        )
    take("timeout", 5.0)
    take("address", server.get("address"), (draft,))
    take("port", port, (draft,))
    own = {name: draft.values[name] for name in draft.values if name not in fields and name != "virtualhost"}
    if draft.kind in ("HTTP_GET", "SSL_GET"):
        host, _ = inherited(drafts, "virtualhost", None)
        own["urls"] = tuple(checkers_http.url(entry, host) for entry in own["urls"])
        own["tls"] = draft.kind == "SSL_GET"
    return _CLASSES[draft.kind](origins=origins, **fields, **own)  # type: ignore[return-value]
