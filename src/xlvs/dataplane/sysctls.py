"""IPVS's sysctls: names, defaults, what the kernel takes for each, and which mean nothing on XDP.

Values are in the kernel's own units (Documentation/networking/ipvs-sysctl.rst), one
number each but for sync_threshold, which has two. tests/conformance/sysctl compares all
of it with what Debian's 6.1 kernel said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EINVAL

from xlvs.errors import IpvsError, XlvsError

PREFIX = "net.ipv4.vs."

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_DAY = 24 * 60 * 60
_LARGEST_HZ = 1000

# What a read or a write of these says besides.
_NO_CONNTRACK = "no effect: XDP runs before netfilter, so there is no conntrack entry to keep"
_ALWAYS_ROUTED = "no effect: the route of an answer is always looked up by its translated source"
_LEFT_ALONE = "no effect: what is not IPVS's is always left to the kernel as it came"
_NO_SYNC = "stored only: connection synchronisation is not carried yet"


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One sysctl: its default, the range the kernel takes, and why it means nothing here (if so).

    ``timed`` values are seconds that the kernel keeps as jiffies, which limits them.
    """

    name: str
    default: tuple[int, ...] = (0,)
    low: int = _INT_MIN
    high: int = _INT_MAX
    timed: bool = False
    note: str = ""


KERNELS = {
    each.name: each
    for each in (
        Sysctl("am_droprate", (10,)),
        Sysctl("amemthresh", (1024,)),
        Sysctl("backup_only", note=_NO_SYNC),
        Sysctl("cache_bypass"),
        Sysctl("conn_reuse_mode", (1,)),
        Sysctl("conntrack", note=_NO_CONNTRACK),
        Sysctl("drop_entry", low=0, high=3),
        Sysctl("drop_packet", low=0, high=3),
        Sysctl("expire_nodest_conn"),
        Sysctl("expire_quiescent_template"),
        Sysctl("ignore_tunneled", note=_LEFT_ALONE),
        Sysctl("lblc_expiration", (_DAY,), timed=True),
        Sysctl("lblcr_expiration", (_DAY,), timed=True),
        Sysctl("nat_icmp_send"),
        Sysctl("pmtu_disc", (1,)),
        Sysctl("run_estimation", (1,)),
        Sysctl("schedule_icmp"),
        Sysctl("secure_tcp", low=0, high=3),
        Sysctl("sloppy_sctp"),
        Sysctl("sloppy_tcp"),
        Sysctl("snat_reroute", (1,), note=_ALWAYS_ROUTED),
        Sysctl("sync_persist_mode", note=_NO_SYNC),
        Sysctl("sync_ports", (1,), low=1, note=_NO_SYNC),
        Sysctl("sync_qlen_max", low=0, note=_NO_SYNC),
        Sysctl("sync_refresh_period", timed=True, note=_NO_SYNC),
        Sysctl("sync_retries", low=0, high=3, note=_NO_SYNC),
        Sysctl("sync_sock_size", note=_NO_SYNC),
        Sysctl("sync_threshold", (3, 50), low=0, note=_NO_SYNC),
        Sysctl("sync_version", (1,), low=0, high=1, note=_NO_SYNC),
    )
}

# What the kernel's IPVS has not: FULLNAT, SYNPROXY, and the defence against floods.
OWN = {
    each.name: each
    for each in (
        Sysctl("toa_kind", (254,), low=1, high=254),
        Sysctl("local_port_low", (5000,), low=1, high=65535),
        Sysctl("local_port_high", (65535,), low=1, high=65535),
        Sysctl("expire_reset", (1,), low=0, high=1),
        Sysctl("synproxy_rate", (1000,), low=1),
        Sysctl("synproxy_defer", low=0, high=1),
        Sysctl("synproxy_retries", (3,), low=0, high=10),
        Sysctl("synproxy_half_open", (10000,), low=1),
        Sysctl("synproxy_mss", low=0, high=65535),
        Sysctl("synproxy_wscale", (-1,), low=-1, high=14),
        Sysctl("synproxy_sack", (1,), low=0, high=1),
        Sysctl("synproxy_timestamp", (1,), low=0, high=1),
        Sysctl("tcp_drop_entry", low=0, high=1),
        Sysctl("udp_drop_entry", low=0, high=1),
        Sysctl("frag_drop_entry", low=0, high=1),
    )
}
TABLE = KERNELS | OWN

_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(?=[ \t\n]|$)")
_ZONE = re.compile(
    r"^Node \d+, zone +(?:DMA|DMA32|Normal)$.*?^ +high +(\d+)$.*?^ +managed +(\d+)$", re.M | re.S
)
_BLANKS = " \t\n\v\f\r"


def bare_name(name: str) -> str | None:
    """A name without ``net.ipv4.vs.`` (or with slashes), or None where there is no such sysctl."""
    name = name.replace("/", ".").removeprefix(PREFIX)
    return name if name in TABLE else None


def parse(name: str, text: str, current: tuple[int, ...], hz: int = 0) -> tuple[int, ...]:
    """A value as the kernel reads it: numbers of C, what is too many is not looked at.

    ``current`` is the value so far (sync_threshold may be given its first number only),
    ``hz`` the kernel's jiffies a second, 0 where unknown. IpvsError(EINVAL) for what the
    kernel refuses.
    """
    sysctl = TABLE[name]
    values = list(current)
    rest = text
    for position in range(len(values)):
        rest = rest.lstrip(_BLANKS)
        if not rest and position:
            break
        match = _NUMBER.match(rest)
        if match is None:
            raise IpvsError(EINVAL)
        values[position] = _to_int(match[1], match[2])
        rest = rest[match.end() :]
    if not all(sysctl.low <= value <= sysctl.high for value in values):
        raise IpvsError(EINVAL)
    if sysctl.timed and abs(values[0]) > _INT_MAX // (hz or _LARGEST_HZ):
        raise IpvsError(EINVAL)
    if name == "sync_ports" and values[0] & (values[0] - 1):
        raise IpvsError(EINVAL)  # a power of two
    if name == "sync_threshold" and values[1] and values[0] >= values[1]:
        raise IpvsError(EINVAL)
    return tuple(values)


def check_together(values: Mapping[str, tuple[int, ...]]) -> None:
    """What single values cannot say: XlvsError where there would be no local port at all."""
    low, high = values["local_port_low"][0], values["local_port_high"][0]
    if low > high:
        raise XlvsError(
            f"local_port_low would be {low}, above local_port_high, which is {high}; nothing was changed"
        )


def accepted(name: str) -> str:
    """What one of ours takes, in words; "" for the kernel's."""
    sysctl = OWN.get(name)
    if sysctl is None:
        return ""
    return f"{sysctl.low} to {sysctl.high}" if sysctl.high < _INT_MAX else f"{sysctl.low} and more"


def show(value: tuple[int, ...]) -> str:
    """A value as /proc shows it."""
    return "\t".join(map(str, value))


def defaults(zones: str) -> dict[str, tuple[int, ...]]:
    """What a new network namespace begins with; ``zones`` is /proc/zoneinfo's text.

    sync_qlen_max begins with a 32nd of the memory for buffers (nr_free_buffer_pages).
    """
    values = {name: sysctl.default for name, sysctl in TABLE.items()}
    pages = [int(managed) - int(high) for high, managed in _ZONE.findall(zones)]
    values["sync_qlen_max"] = (min(sum(max(each, 0) for each in pages) // 32, _INT_MAX),)
    return values


def machine_defaults() -> dict[str, tuple[int, ...]]:
    """:func:`defaults` of this machine."""
    with open("/proc/zoneinfo") as zones:
        return defaults(zones.read())


def _to_int(sign: str, digits: str) -> int:
    if digits[:2] in ("0x", "0X"):
        value = int(digits, 16)
    else:
        value = int(digits, 8 if digits[0] == "0" else 10)
    return -value if sign else value
