"""Save and restore: what is saved comes back, in one transaction, all or as much as is right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ipvsadm_console import Console
from xlvs.dataplane.memory import MemoryDataPlane, MemoryTransaction
from xlvs.errors import IpvsError
from xlvs.model import (
    AF_INET,
    AF_INET6,
    L4,
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    Tunnel,
    TunnelType,
)

IPV4 = st.binary(min_size=4, max_size=4)
IPV6 = st.binary(min_size=16, max_size=16)
PORT = st.integers(1, 65535)
SCHEDULER = st.sampled_from(["rr", "wrr", "wlc", "sh", "mh"])


@st.composite
def services(draw: st.DrawFn) -> Service:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    if draw(st.integers(0, 4)) == 0:
        key = ServiceKey(family, 0, b"", 0, draw(st.integers(1, 2**32 - 1)))
    else:
        protocol = draw(st.sampled_from(list(L4)))
        key = ServiceKey(family, protocol, draw(IPV4 if family == AF_INET else IPV6), draw(PORT))
    scheduler = draw(SCHEDULER)
    flags = ServiceFlag(0)
    if scheduler in ("sh", "mh"):
        flags |= draw(st.sampled_from([ServiceFlag(0), ServiceFlag.SCHED1, ServiceFlag.SCHED2]))
    whole = 0xFFFFFFFF if family == AF_INET else 128
    if not draw(st.booleans()):
        return Service(key, scheduler, flags, netmask=whole)
    netmask = draw(st.integers(0, 2**32 - 1) if family == AF_INET else st.integers(1, 128))
    timeout = draw(st.integers(1, 31 * 86400))
    engine = draw(st.sampled_from(["", "sip"]))
    return Service(key, scheduler, flags | ServiceFlag.PERSISTENT, timeout, netmask, engine)


@st.composite
def destinations(draw: st.DrawFn, key: ServiceKey) -> Destination:
    forward = draw(st.sampled_from([Forward.MASQ, Forward.ROUTE, Forward.TUNNEL]))
    family = draw(st.sampled_from([AF_INET, AF_INET6])) if forward == Forward.TUNNEL else key.family
    address = draw(IPV4 if family == AF_INET else IPV6)
    port = draw(PORT) if forward == Forward.MASQ or key.fwmark else key.port
    tunnel = Tunnel()
    if forward == Forward.TUNNEL:
        kind = draw(st.sampled_from(list(TunnelType)))
        flags = 0 if kind == TunnelType.IPIP else draw(st.integers(0, 2 if kind == TunnelType.GUE else 1))
        tunnel = Tunnel(kind, draw(PORT) if kind == TunnelType.GUE else 0, flags)
    weight = draw(st.integers(0, 65535))
    upper = draw(st.integers(0, 2**31 - 1))
    lower = draw(st.integers(0, upper))
    return Destination(DestinationKey(family, address, port), forward, weight, upper, lower, tunnel)


def rules(entries: list[ServiceEntry]) -> dict[ServiceKey, tuple[Service, dict[DestinationKey, Destination]]]:
    return {
        entry.service.key: (
            entry.service,
            {one.destination.key: one.destination for one in entry.destinations},
        )
        for entry in entries
    }


@given(st.data())
def test_what_is_saved_comes_back(data: st.DataObject) -> None:
    console = Console(MemoryDataPlane())
    with console.plane.transaction() as transaction:
        for service in data.draw(st.lists(services(), max_size=6, unique_by=lambda one: one.key)):
            transaction.add_service(service)
            servers = destinations(service.key)
            for destination in data.draw(st.lists(servers, max_size=4, unique_by=lambda one: one.key)):
                try:
                    transaction.add_destination(service.key, destination)
                except IpvsError:
                    continue  # not unicast
    before = rules(console.plane.services())
    assert console.run("-S -n") == 0
    saved = console.out
    assert console.run("-C") == 0
    assert console.run("-R --atomic", stdin=saved) == 0, console.err
    assert rules(console.plane.services()) == before
    assert console.run("-S -n") == 0
    # The same lines; their order may depend on the order of coming in (see xlvs.ipvsadm.order).
    assert sorted(console.out.splitlines()) == sorted(saved.splitlines())


def test_a_bad_line_is_reported_and_the_rest_goes_in() -> None:
    console = Console()
    text = "-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.2:80 -s rr\n"
    assert console.run("-R", stdin=text) == 0  # the last line's status, as in the real program
    assert console.err == "Service already exists\n"
    assert len(console.plane.services()) == 2


@pytest.mark.parametrize(
    ("bad", "status", "reason"),
    [
        ("-A -t 10.0.0.1:80 -s rr", 255, "Service already exists"),
        ("-a -t 10.0.0.9:80 -r 10.1.0.1", 255, "Service not defined"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1 -w x", 2, "illegal weight specified"),
        ("-A -t 10.0.0.2:80 --nosuch", 255, "--nosuch: unknown option"),
        ("# remark", 255, "Try `ipvsadm -h'"),
        ("-L -n", 2, "Illegal 'list' command with the 'atomic' option"),
        ("-h", 2, "ipvsadm v1.31"),
    ],
)
def test_atomic_changes_all_or_nothing_and_names_the_line(bad: str, status: int, reason: str) -> None:
    console = Console()
    assert console.run("-A -t 10.9.9.9:80 -s rr") == 0
    text = f"-D -t 10.9.9.9:80\n\n-A -t 10.0.0.1:80 -s rr\n--set 1 2 3\n{bad}\n-A -t 10.0.0.3:80 -s rr\n"
    assert console.run("-R --atomic", stdin=text) == status
    assert console.err.startswith("line 5: ")
    assert reason in console.err
    assert console.err.endswith("nothing was changed\n")
    assert [entry.service.key.address for entry in console.plane.services()] == [bytes((10, 9, 9, 9))]
    assert console.plane.timeouts().tcp == 900


def test_atomic_is_for_restore_only() -> None:
    console = Console()
    assert console.run("-C --atomic") == 2
    assert console.err == "Illegal 'atomic' option with the 'flush' command\n"


class CountingDataPlane(MemoryDataPlane):
    """Counts the transactions that it gave."""

    transactions = 0

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        self.transactions += 1
        with super().transaction() as transaction:
            yield transaction


@pytest.mark.parametrize("command", ["-R", "-R --atomic"])
def test_eleven_thousand_rules_are_one_transaction_of_a_moment(command: str) -> None:
    lines = []
    for number in range(1000):
        service = f"-t 10.{number >> 8}.{number & 255}.1:80"
        lines.append(f"-A {service} -s wrr")
        lines.extend(f"-a {service} -r 192.168.0.{server}:8080 -m -w {server}" for server in range(1, 11))
    plane = CountingDataPlane()
    console = Console(plane)
    start = time.process_time()
    assert console.run(command, stdin="\n".join([*lines, ""])) == 0
    assert time.process_time() - start < 3.3  # 300 us a line, where 20 are used
    assert plane.transactions == 1
    assert sum(len(entry.destinations) for entry in plane.services()) == 10_000
    assert console.err == ""
