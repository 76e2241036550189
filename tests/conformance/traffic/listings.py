"""One form for what directors list: lines of destinations, of connections, of ipvsadm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from tests.conformance.traffic.packets import Address, Endpoint

if TYPE_CHECKING:
    from xlvs.model import ServiceKey

Prefix = IPv4Network | IPv6Network

# What is left of a timeout is told as the timeout it is a rest of: scenarios are short.
TIMEOUTS = (10, 30, 60, 120, 180, 300, 600, 900, 3600)
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def timeout_of(rest: float) -> str:
    # A second more: SCTP's timeouts are 61 seconds, of which the first may have passed.
    return next((f"{timeout}s" for timeout in TIMEOUTS if rest <= timeout + 1), f"{rest} seconds?")


def endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def destination_line(
    address: Address, port: int, method: str, weight: int, active: int, inactive: int
) -> str:
    return f"{endpoint(address, port)} {method} {weight} active {active} inactive {inactive}"


def connection_line(
    protocol: str, ends: Sequence[Endpoint], state: str, rest: float, engine: str = ""
) -> str:
    """``engine`` is a persistence engine's name and data."""
    names = " ".join(endpoint(*end) for end in ends)
    return f"{protocol} {names} {state} {timeout_of(rest)}{f' {engine}' if engine else ''}"


@dataclass
class Subject:
    """The services of a scenario: those at its VIP, and those of its firewall mark."""

    vip: Address
    mark: int
    network: Prefix
    """What marks may divert to the services beside the VIP."""
    services: list[str] = field(default_factory=list)
    """Names as ``TCP 10.80.0.1:80`` and ``FWM 7`` (``FWM 7 IPv6``), in the order of their first rules."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The VIP, and what stands for the mark in the connection table."""
        size = len(self.vip.packed)
        return self.vip, ip_address(self.mark.to_bytes(4, "big").ljust(size, b"\0"))

    def covers(self, address: Address) -> bool:
        """Whether a connection to that address is of these services."""
        return address in self.addresses or address in self.network

    def fwmark_name(self, mark: int) -> str:
        return f"FWM {mark}{' IPv6' if self.vip.version == 6 else ''}"

    def learn(self, rule: str) -> None:
        """See whether an ipvsadm rule makes a service."""
        words = rule.split()
        kinds = {"-t": "TCP", "-u": "UDP", "--sctp-service": "SCTP"}
        if words[0] != "-A":
            return
        name = self.fwmark_name(int(words[2])) if words[1] == "-f" else f"{kinds[words[1]]} {words[2]}"
        if name not in self.services:
            self.services.append(name)

    def service_keys(self) -> list[ServiceKey]:
        """The services under xlvs's own names."""
        from xlvs.model import AF_INET, AF_INET6, ServiceKey

        family = AF_INET if self.vip.version == 4 else AF_INET6
        keys = []
        for name in self.services:
            kind, _, where = name.partition(" ")
            if kind == "FWM":
                keys.append(ServiceKey(family, 0, b"", 0, self.mark))
            else:
                port = int(where.rpartition(":")[2])
                keys.append(ServiceKey(family, NUMBERS[kind], self.vip.packed, port))
        return keys


def listing(text: str, subject: Subject) -> list[str]:
    """The lines of an ``ipvsadm -L`` that are about the scenario's services.

    Connections (``-Lc``) are sorted, since the kernel's order is that of a hash with a random
    seed, and the rest of a timeout is told as the timeout.
    """
    prefixes = [endpoint(address, 0)[:-1] for address in subject.addresses]
    heads = "|".join(re.escape(name) for name in [prefixes[0], f"{subject.mark} "])
    services: dict[str, list[str]] = {}
    connections = []
    ours: list[str] | None = None
    for line in text.splitlines():
        if connection := re.match(r"(\w+ +)(\d+):(\d\d)( .*)", line):
            head, minutes, seconds, tail = connection.groups()
            # Behind a name of no engine the real ipvsadm may print what happens to lie there.
            tail = re.split(r"\s*[^ -~]", tail)[0]
            if any(f" {prefix}" in tail for prefix in prefixes):
                connections.append(f"  {head}{timeout_of(int(minutes) * 60 + int(seconds))}{tail}")
            continue
        if not line.startswith("  ->"):
            ours = services.setdefault(line, []) if re.match(rf"\w+ +({heads})", line) else None
        if ours is not None:
            ours.append(f"  {line}")
    # The order of services is that of a hash: theirs is compared by the fuzzer, one service at a time.
    return [line for name in sorted(services) for line in services[name]] + sorted(connections)
