"""Rules as `xlvs fwmark` writes them: XDP gives every packet the mark of a walk through the list."""

from __future__ import annotations

import os
import random
from ipaddress import ip_address

import pytest

from tests.packet.director import XDP_PASS, Director, Server
from tests.packet.frames import TCP, UDP, Datagram
from xlvs.dataplane import marks
from xlvs.dataplane.rows import swap16
from xlvs.model import AF_INET, AF_INET6, MarkRule, Service, ServiceKey

pytestmark = pytest.mark.root
ROUNDS, PACKETS = 12, 40
CLIENTS = {AF_INET: "198.18.0.1", AF_INET6: "fd18::1"}
TARGETS = {AF_INET: "10.80.0.{}", AF_INET6: "fd80::{}"}
SERVERS = {AF_INET: "10.19.0.11", AF_INET6: "fd19::11"}
MARKS = range(1, 6)


def rule(chooser: random.Random) -> MarkRule:
    family = chooser.choice((AF_INET, AF_INET6))
    size = 32 if family == AF_INET else 128
    bits = chooser.choice((0, 8, size - 3, size - 2, size - 1, size))
    address = ip_address(TARGETS[family].format(chooser.randrange(8))).packed
    first = chooser.choice((0, 80, 81))
    last = chooser.choice((80, 81, 90, 65535))
    protocol = chooser.choice((0, TCP, UDP))
    # A mark of 0 takes away what an earlier rule gave.
    value = chooser.choice((0, *MARKS))
    return MarkRule(
        value, family, marks.network(address, bits), bits, protocol, min(first, last), max(first, last)
    )


def linear(rules: list[MarkRule], family: int, address: bytes, protocol: int, port: int) -> int:
    mark = 0
    for each in rules:
        if each.family == family and marks.network(address, each.bits) == each.address:
            mark = each.mark if marks.matches(each, protocol, port) else mark
    return mark


def test_random_lists(director: Director) -> None:
    seed = int(os.environ.get("XLVS_SEED", random.randrange(2**32)))
    print(f"XLVS_SEED={seed}")  # pytest shows it with a failure
    chooser = random.Random(seed)
    for value in MARKS:
        for family, server in SERVERS.items():
            mask = 0xFFFFFFFF if family == AF_INET else 128
            service = Service(ServiceKey(family, 0, b"", 0, value), "rr", netmask=mask)
            director.define(service, [Server(server, 0)])
    seen = set()
    for _ in range(ROUNDS):
        rules = [rule(chooser) for _ in range(chooser.randrange(15))]
        # The same lists over and over, one in place of the other: stretches move, prefixes come and go.
        change = director.transaction()
        change.set_marks(rules)
        director.tables.apply(change.changes())
        assert director.transaction().marks() == rules
        for sport in range(1024, 1024 + PACKETS):
            family, protocol = chooser.choice((AF_INET, AF_INET6)), chooser.choice((TCP, UDP))
            target, port = TARGETS[family].format(chooser.randrange(8)), chooser.randrange(79, 83)
            frame = Datagram(CLIENTS[family], target, sport, port, protocol).frame()
            verdict, _ = director.run(frame)
            mark = linear(rules, family, ip_address(target).packed, protocol, port)
            found = [row.fwmark for row in director.connections() if swap16(row.cport) == sport]
            where = f"seed {seed}: {target} {protocol} {port} by {rules}"
            assert found == ([mark] if mark else []), where
            assert (verdict == XDP_PASS) == (mark == 0), where
            seen.add(mark)
        director.forget_connections()
    assert len(seen) > 3
