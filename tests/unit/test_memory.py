"""The in-memory engine keeps the port's promises, and IPVS's rules."""

from __future__ import annotations

import socket
from dataclasses import replace
from errno import EEXIST, EINVAL, ENETUNREACH, ENODEV, ENOENT, ERANGE, ESRCH
from typing import Any

import pytest

from xlvs.dataplane import ruleset
from xlvs.dataplane.host import BareHost
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.dataplane.port import DataPlane
from xlvs.errors import IpvsError
from xlvs.model import (
    AF_INET,
    AF_INET6,
    L4,
    Counters,
    Destination,
    DestinationKey,
    Forward,
    Rates,
    Service,
    ServiceKey,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelType,
)

KEY = ServiceKey(AF_INET, L4.TCP, bytes((10, 0, 0, 1)), 80)
KEY6 = ServiceKey(AF_INET6, L4.TCP, bytes((0x20, 1, *[0] * 13, 1)), 80)
SERVICE = Service(KEY, "rr")


GRE = Tunnel(TunnelType.GRE)


def server(last: int, **changes: Any) -> Destination:
    key = DestinationKey(AF_INET, bytes((192, 168, 0, last)), 80)
    return replace(Destination(key), **changes)


@pytest.fixture
def plane() -> MemoryDataPlane:
    plane = MemoryDataPlane()
    with plane.transaction() as transaction:
        transaction.add_service(SERVICE)
        transaction.add_destination(KEY, server(1))
    return plane


def test_it_is_a_data_plane() -> None:
    plane: DataPlane = MemoryDataPlane(size=8192)  # mypy checks the rest
    assert plane.info().size == 8192


def test_newest_destination_comes_first_and_an_edited_one_keeps_its_place(plane: MemoryDataPlane) -> None:
    with plane.transaction() as transaction:
        transaction.add_destination(KEY, server(2))
        transaction.add_destination(KEY, server(3))
        transaction.edit_destination(KEY, server(1, weight=9))
    entry = plane.service(KEY)
    assert entry is not None
    assert [one.destination.key.address[3] for one in entry.destinations] == [3, 2, 1]
    assert entry.destinations[2].destination.weight == 9


def test_a_reader_sees_no_half_of_a_transaction(plane: MemoryDataPlane) -> None:
    before = plane.services()
    with plane.transaction() as transaction:
        transaction.flush()
        transaction.set_timeouts(Timeouts(1, 1, 1))
        assert plane.services() == before
        assert plane.timeouts() == Timeouts()
    assert plane.services() == []
    assert plane.timeouts() == Timeouts(1, 1, 1)


def test_an_exception_undoes_everything(plane: MemoryDataPlane) -> None:
    before = plane.services()

    def interrupted() -> None:
        with plane.transaction() as transaction:
            transaction.add_destination(KEY, server(2))
            transaction.edit_service(replace(SERVICE, scheduler="wrr"))
            transaction.add_service(Service(replace(KEY, port=81)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert plane.services() == before
    with plane.transaction() as transaction:  # the lock is free again
        transaction.flush()


def test_a_refused_change_leaves_the_others(plane: MemoryDataPlane) -> None:
    with plane.transaction() as transaction:
        transaction.add_destination(KEY, server(2))
        with pytest.raises(IpvsError):
            transaction.add_destination(KEY, server(2))
        transaction.add_destination(KEY, server(3))
    entry = plane.service(KEY)
    assert entry is not None
    assert len(entry.destinations) == 3


@pytest.mark.parametrize(
    ("errno", "method", "arguments"),
    [
        (EEXIST, "add_service", [SERVICE]),
        (EEXIST, "add_service", [replace(SERVICE, scheduler="nosuch")]),
        (ENOENT, "add_service", [Service(replace(KEY, port=81), "nosuch")]),
        (ENOENT, "add_service", [Service(replace(KEY, port=81), pe_name="nosuch")]),
        (EINVAL, "add_service", [Service(KEY6, netmask=129)]),
        (EINVAL, "add_service", [Service(KEY6, netmask=0)]),
        (ESRCH, "edit_service", [Service(replace(KEY, port=81), "nosuch")]),
        (ENOENT, "edit_service", [replace(SERVICE, scheduler="nosuch")]),
        (ESRCH, "delete_service", [replace(KEY, protocol=L4.UDP)]),
        (ESRCH, "zero", [replace(KEY, port=81)]),
        (ESRCH, "add_destination", [replace(KEY, port=81), server(1, weight=-1)]),
        (ERANGE, "add_destination", [KEY, server(1, weight=-1)]),
        (ERANGE, "add_destination", [KEY, server(1, lower=2, upper=1)]),
        (EINVAL, "add_destination", [KEY, server(1, tunnel=Tunnel(TunnelType.GUE))]),
        (EEXIST, "add_destination", [KEY, server(1)]),
        (EINVAL, "add_destination", [KEY, server(1, key=DestinationKey(AF_INET6, bytes(15) + b"\1", 80))]),
        (EINVAL, "add_destination", [KEY, server(1, key=DestinationKey(AF_INET, bytes((224, 0, 0, 1)), 80))]),
        (ESRCH, "edit_destination", [replace(KEY, port=81), server(1)]),
        (ERANGE, "edit_destination", [KEY, server(9, weight=-1)]),
        (ENOENT, "edit_destination", [KEY, server(9)]),
        (ESRCH, "delete_destination", [replace(KEY, port=81), server(1).key]),
        (ENOENT, "delete_destination", [KEY, server(9).key]),
    ],
)
def test_the_kernels_errno(plane: MemoryDataPlane, errno: int, method: str, arguments: list[object]) -> None:
    before = plane.services()
    with plane.transaction() as transaction, pytest.raises(IpvsError) as caught:
        getattr(transaction, method)(*arguments)
    assert caught.value.errno == errno
    assert plane.services() == before


def test_a_busy_destination_finds_its_counters_again(plane: MemoryDataPlane) -> None:
    counters = Counters(1, 2, 3, 4, 5)
    plane.observe(KEY, lambda entry: replace(entry, inactive=1, counters=counters), server(1).key)
    with plane.transaction() as transaction:
        transaction.flush()
    with plane.transaction() as transaction:
        transaction.add_service(SERVICE)
        transaction.add_destination(KEY, server(1, weight=7))
        transaction.add_destination(KEY, server(2))
    entry = plane.service(KEY)
    assert entry is not None
    fresh, again = entry.destinations
    assert (again.destination.weight, again.counters, again.inactive) == (7, counters, 1)
    assert fresh.counters == Counters()


def test_zero_one_or_all(plane: MemoryDataPlane) -> None:
    other = replace(KEY, port=81)
    with plane.transaction() as transaction:
        transaction.add_service(Service(other))
    some, rates = Counters(1, 1, 1, 1, 1), Rates(1, 1, 1, 1, 1)
    for key in (KEY, other):
        plane.observe(key, counters=some, rates=rates)
    plane.observe(KEY, lambda entry: replace(entry, active=3, counters=some, rates=rates), server(1).key)
    with plane.transaction() as transaction:
        transaction.zero(KEY)
    first, second = plane.services()
    assert (first.counters, first.rates, second.counters) == (Counters(), Rates(), some)
    assert (first.destinations[0].counters, first.destinations[0].active) == (Counters(), 3)
    with plane.transaction() as transaction:
        transaction.zero()
    assert all(entry.counters == Counters() for entry in plane.services())


def test_timeouts_of_zero_stay() -> None:
    assert ruleset.merge_timeouts(Timeouts(1, 2, 3), Timeouts(0, 5, 0)) == Timeouts(1, 5, 3)


@pytest.mark.parametrize(
    ("address", "local", "good"),
    [
        ("10.0.0.1", False, True),
        ("127.0.0.1", False, True),
        ("0.0.0.1", False, True),
        ("240.0.0.1", False, True),
        ("0.0.0.0", False, False),
        ("255.255.255.255", False, False),
        ("224.0.0.1", False, False),
        ("239.255.255.255", False, False),
        ("2001:db8::1", False, True),
        ("::1", False, True),
        ("::1.2.3.4", False, True),
        ("fec0::1", False, True),
        ("fd00::1", False, True),
        ("fe80::1", False, False),
        ("fe80::1", True, True),
        ("ff02::1", False, False),
        ("ff02::1", True, False),
        ("::", False, False),
        ("::", True, False),
        ("::ffff:1.2.3.4", True, False),
        ("::ffff:1.2.3.4", False, False),
    ],
)
def test_unicast_addresses(address: str, local: bool, good: bool) -> None:
    family = AF_INET6 if ":" in address else AF_INET
    one = Destination(DestinationKey(family, socket.inet_pton(family, address), 80), Forward.MASQ)
    if good:
        ruleset.check_address(one, local=local)
    else:
        with pytest.raises(IpvsError) as caught:
            ruleset.check_address(one, local=local)
        assert caught.value.errno == EINVAL


class WiredHost(BareHost):
    """Two interfaces, one of them down."""

    def interface_mtu(self, name: str) -> int | None:
        """See Host."""
        return {"eth0": 9000, "eth1": 1500}.get(name)

    def multicast_error(self, interface: str, group: bytes, *, sending: bool) -> int:
        """See Host."""
        return ENETUNREACH if group and sending and interface == "eth1" else 0


def test_daemons_are_started_with_their_defaults_and_stopped() -> None:
    plane = MemoryDataPlane(host=WiredHost())
    group = bytes((0xFF, 2, *[0] * 13, 9))
    with plane.transaction() as transaction:
        transaction.start_daemon(SyncDaemon("backup", "eth0", 7, maxlen=1, group=group))
        transaction.start_daemon(SyncDaemon("master", "eth0"))
    master = SyncDaemon("master", "eth0", 0, 1472, bytes((224, 0, 0, 81)), 8848, 1)
    backup = SyncDaemon("backup", "eth0", 7, 1024, group, 8848, 1)
    assert plane.daemons() == [master, backup]
    for wrong, errno in (
        (SyncDaemon("master", "eth0"), EEXIST),
        (SyncDaemon("master", "eth2"), ENODEV),
    ):
        with plane.transaction() as transaction, pytest.raises(IpvsError) as caught:
            transaction.start_daemon(wrong)
        assert caught.value.errno == errno
    with plane.transaction() as transaction:
        transaction.stop_daemon("master")
        with pytest.raises(IpvsError) as caught:
            transaction.stop_daemon("master")
        assert caught.value.errno == ESRCH
        with pytest.raises(IpvsError) as caught:
            transaction.start_daemon(SyncDaemon("master", "eth1"))
        assert caught.value.errno == ENETUNREACH
        transaction.stop_daemon("backup")
        transaction.start_daemon(SyncDaemon("backup", "eth0"))
    assert [daemon.maxlen for daemon in plane.daemons()] == [9000 - 28]


def test_synchronisation_and_mixed_families_exclude_each_other() -> None:
    plane = MemoryDataPlane(host=WiredHost())
    mixed = Destination(DestinationKey(AF_INET, bytes((192, 168, 0, 1)), 80), Forward.TUNNEL)
    with plane.transaction() as transaction:
        transaction.add_service(Service(KEY6, "rr", netmask=128))
        transaction.add_destination(KEY6, mixed)
        with pytest.raises(IpvsError) as caught:
            transaction.start_daemon(SyncDaemon("master", "eth0"))
        assert caught.value.errno == EINVAL
        transaction.delete_destination(KEY6, mixed.key)
        transaction.start_daemon(SyncDaemon("master", "eth0"))
        with pytest.raises(IpvsError) as caught:
            transaction.add_destination(KEY6, mixed)
        assert caught.value.errno == EINVAL
