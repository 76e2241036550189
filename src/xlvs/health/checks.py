"""What is asked of a real server, as plain values: one class for each of keepalived's checkers.

Times are seconds, ports host-order integers. Values are as they take effect: what keepalived
inherits from the real server and from the virtual server has been filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Script:
    """A program with its arguments, run without a shell, as this user (names or numbers as written).

    ``then`` runs after it, whatever it says (FULLNAT's quorum scripts: commands parted by ";").
    """

    arguments: tuple[str, ...]
    user: str | None = None
    group: str | None = None
    then: Script | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """When a check is asked, and how often it may fail.

    ``retries`` more attempts, ``retry_delay`` apart, follow a failure before the server is down.
    The first one waits a random part of ``warmup``. ``alpha``: down until it has succeeded once.
    ``origins`` tells where each field was written; it does not count in comparisons.
    """

    interval: float = 60.0
    retries: int = 1
    retry_delay: float = 1.0
    warmup: float = 60.0
    alpha: bool = False
    log_all_failures: bool = False
    origins: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCheck(Check):
    """A check that sends packets: where to, from where, and for how long it waits for an answer."""

    address: Address
    port: int
    bind_address: Address | None = None
    bind_interface: str | None = None
    bind_port: int = 0
    fwmark: int = 0
    timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpCheck(NetworkCheck):
    """TCP_CHECK: a connection comes about."""


@dataclass(frozen=True, slots=True)
class Url:
    """One request of an HTTP check, and what its answer must be.

    ``digest`` is an MD5 of the body in hexadecimal; ``statuses`` are inclusive ranges; ``regex``
    is searched in the body between the two offsets (``regex_max_offset`` 0: no limit).
    """

    path: str = "/"
    digest: str | None = None
    statuses: tuple[tuple[int, int], ...] = ((200, 299),)
    virtualhost: str | None = None
    regex: str | None = None
    regex_no_match: bool = False
    regex_options: tuple[str, ...] = ()
    regex_min_offset: int = 0
    regex_max_offset: int = 0
    origins: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheck(NetworkCheck):
    """HTTP_GET and SSL_GET: each URL in turn. ``protocol`` is 1.0, 1.0C or 1.1."""

    urls: tuple[Url, ...]
    tls: bool = False
    sni: bool = False
    protocol: str = "1.0"
    fast_recovery: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpCheck(NetworkCheck):
    """SMTP_CHECK: greeting, HELO, QUIT."""

    helo_name: str = "smtpchecker.keepalived.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsCheck(NetworkCheck):
    """DNS_CHECK: any answer without an error to a question over UDP. ``type`` as in "SOA"."""

    type: str = "SOA"
    name: str = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpCheck(NetworkCheck):
    """UDP_CHECK: no ICMP error, and an answer where one is required.

    ``payload`` None sends random bytes. ``reply`` pairs each expected byte with the mask of the
    bits that count, in an answer of an allowed length; an empty one accepts any answer.
    """

    payload: bytes | None = None
    require_reply: bool = False
    reply: tuple[tuple[int, int], ...] = ()
    min_reply: int = 0
    max_reply: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PingCheck(NetworkCheck):
    """PING_CHECK: an echo reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiscCheck(Check):
    """MISC_CHECK: a program's exit status; ``dynamic``: 2 to 255 set the weight (status - 2)."""

    script: Script
    timeout: float = 0.0  # 0: the interval
    dynamic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck(Check):
    """FILE_CHECK: the number in a tracked file, times ``weight``."""

    track_file: str
    weight: int = 1
    dynamic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BfdCheck(Check):
    """BFD_CHECK: a BFD session is up."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCheck(NetworkCheck):
    """AGENT_CHECK (ours): HAProxy's agent-check text protocol sets the weight.

    ``send`` is sent first; ``damping`` is the part of a difference (0 to 1] taken over by each answer.
    """

    send: str = ""
    damping: float = 0.5


AnyCheck = (
    TcpCheck
    | HttpCheck
    | SmtpCheck
    | DnsCheck
    | UdpCheck
    | PingCheck
    | MiscCheck
    | FileCheck
    | BfdCheck
    | AgentCheck
)
