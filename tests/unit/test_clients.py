"""Lists of clients: what they come to, and that no change of them is seen half done."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane import clients, journal, layout
from xlvs.dataplane.kernel import KernelDataPlane
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.errors import IpvsError, NotCarried
from xlvs.model import AF_INET, AF_INET6, L4, Defence, Prefix, Service, ServiceKey

KEY = ServiceKey(AF_INET, L4.TCP, bytes((10, 0, 0, 1)), 80)
KEY6 = ServiceKey(AF_INET6, L4.TCP, bytes(16), 80)


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    return network.network_address.packed, network.prefixlen


def lists(text: str) -> dict[Prefix, bool]:
    """``+192.0.2.0/24 -192.0.2.1``: allowed and denied."""
    return {prefix(word[1:]): word[0] == "+" for word in text.split()}


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("", False),
        ("-10.0.0.0/8", False),
        ("+10.0.0.0/8", True),
        ("-10.0.0.0/8 +10.1.0.0/16", False),  # an exception
        ("-10.0.0.0/8 +10.1.0.0/16 +10.1.2.0/24", False),
        ("+10.0.0.0/8 -10.1.0.0/16", True),
        ("+10.0.0.0/8 -10.1.0.0/16 +10.1.2.0/24", True),
        ("-10.0.0.0/8 +11.0.0.0/8", True),
        ("-10.0.0.0/8 -10.2.0.0/16 +10.3.0.0/16", False),  # behind a denied one within a denied one
        ("-0.0.0.0/0 +10.0.0.0/8", False),  # said already
        ("+0.0.0.0/0", False),
        ("+255.255.255.255/32 -255.0.0.0/8", False),
    ],
)
def test_whom_an_allow_list_shuts_out(text: str, denied: bool) -> None:
    assert clients.denies_others(lists(text)) is denied
    stranger = bytes((203, 0, 113, 1))
    assert clients.allows(lists(text), stranger) is (not denied and "-0.0.0.0/0" not in text)


@pytest.mark.parametrize(
    "defence",
    [
        Defence(clients={(bytes((10, 0, 0, 1)), 8): True}),
        Defence(clients={(bytes(4), 33): True}),
        Defence(clients={(bytes(16), 0): True}),
        Defence(clients={(bytes(4), -1): True}),
        Defence(limit=-1),
        Defence(source_limit=1 << 32),
    ],
)
def test_what_makes_no_sense_is_refused(defence: Defence) -> None:
    with pytest.raises(IpvsError):
        clients.check(KEY, defence)


def test_what_makes_sense_is_taken() -> None:
    clients.check(KEY, Defence(1, 0xFFFFFFFF, True, lists("+0.0.0.0/0 -10.0.0.1")))
    clients.check(KEY6, Defence(clients=lists("+::/0 -fd00::/8")))


# Addresses of four bits, so that prefixes meet.
LISTS = st.dictionaries(
    st.integers(0, 4).flatmap(
        lambda bits: st.integers(0, (1 << bits) - 1).map(
            lambda number: ((number << 32 - bits).to_bytes(4, "big"), bits)
        )
    ),
    st.booleans(),
    max_size=12,
)
ADDRESSES = [(number << 28).to_bytes(4, "big") for number in range(16)]


def verdict(table: dict[Prefix, int], address: bytes) -> bool:
    """What the longest prefix in the map says."""
    for bits in range(32, -1, -1):
        network = IPv4Network((IPv4Address(address), bits), strict=False).network_address.packed
        if (network, bits) in table:
            return table[network, bits] == layout.CLIENT_ALLOW
    return True


@given(LISTS, LISTS)
def test_a_change_is_seen_once_by_each_client(old: dict[Prefix, bool], new: dict[Prefix, bool]) -> None:
    """After each single step a client has the old verdict or the new one, and never the old one again."""
    before, after = (clients.layout_of(each, AF_INET) for each in (old, new))
    added, gone = clients.steps(before, after)
    table = dict(before)
    seen = {address: [verdict(table, address)] for address in ADDRESSES}
    for number, each in enumerate([*added, *gone]):
        if number < len(added):
            table[each] = after[each]
        else:
            del table[each]
        for address in ADDRESSES:
            seen[address].append(verdict(table, address))
    assert table == after
    for address, verdicts in seen.items():
        assert verdicts[0] == clients.allows(old, address)
        assert verdicts[-1] == clients.allows(new, address)
        assert sum(one != other for one, other in itertools.pairwise(verdicts)) <= 1


def test_the_kernels_engine_says_that_it_has_none() -> None:
    plane: Any = KernelDataPlane(lambda: cast(Any, None), lambda: None)  # nothing is asked of the kernel
    with pytest.raises(NotCarried, match="the kernel's IPVS has no limits and lists of clients"):
        plane.defences()
    with plane.transaction() as transaction:
        with pytest.raises(NotCarried):
            transaction.set_defence(KEY, Defence(limit=1))
        with pytest.raises(NotCarried):
            transaction.defence(KEY)


def test_the_engine_in_memory_keeps_them_with_the_service() -> None:
    plane = MemoryDataPlane()
    with plane.transaction() as transaction:
        with pytest.raises(IpvsError):
            transaction.defence(KEY)
        transaction.add_service(Service(KEY, "rr"))
        assert transaction.defence(KEY) == Defence()
        transaction.set_defence(KEY, Defence(5, 1, False, lists("+192.0.2.0/24")))
        with pytest.raises(IpvsError):
            transaction.set_defence(KEY, Defence(clients=lists("+fd80::/64")))
    (entry,) = plane.defences()
    assert (entry.key, entry.defence.limit, entry.packets, entry.others) == (
        KEY,
        5,
        {prefix("192.0.2.0/24"): 0},
        0,
    )
    with plane.transaction() as transaction:
        transaction.flush()
        transaction.add_service(Service(KEY, "rr"))
    assert plane.defences() == []


def test_many_entries_in_a_note() -> None:
    changes: list[journal.Change] = [
        journal.Entries("clients", 2, b"k" * 48, b"v" * 32),
        journal.Entries("clients", 3, b"k" * 72, None),
        journal.Entry("service_index", b"key", b"value"),
        journal.Entry("service_index", b"key", None),
        journal.Write("settings", 7, b"content"),
    ]
    assert journal.decode(journal.encode(changes)) == changes
