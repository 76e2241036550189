"""The classifier's layout gives every packet the mark that a walk through the list gives."""

from __future__ import annotations

import socket
from errno import EINVAL, ENOMEM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.dataplane import marks
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.errors import IpvsError
from xlvs.model import AF_INET, AF_INET6, MarkRule

# Few addresses, so that prefixes contain each other; few ports, so that ranges meet.
FAMILIES = st.sampled_from((AF_INET, AF_INET6))
PROTOCOLS = st.sampled_from((0, 6, 17))


@st.composite
def addresses(draw: st.DrawFn, family: int) -> bytes:
    head = draw(st.sampled_from((10, 11, 0xFD)))
    tail = draw(st.integers(0, 7))
    return bytes((head, *bytes(2 if family == AF_INET else 14), tail))


@st.composite
def rules(draw: st.DrawFn) -> MarkRule:
    family = draw(FAMILIES)
    full = 32 if family == AF_INET else 128
    bits = draw(st.sampled_from((0, 7, 8, full - 3, full - 2, full - 1, full)))
    first, last = sorted((draw(st.integers(0, 9)), draw(st.sampled_from((3, 5, 9, 65535)))))
    address = marks.network(draw(addresses(family)), bits)
    return MarkRule(draw(st.integers(0, 5)), family, address, bits, draw(PROTOCOLS), first, last)


def linear(every: list[MarkRule], family: int, address: bytes, protocol: int, port: int) -> int:
    """The definition: all rules in order, the last match stays."""
    mark = 0
    for rule in every:
        inside = rule.family == family and marks.network(address, rule.bits) == rule.address
        if inside and rule.protocol in (0, protocol) and rule.first_port <= port <= rule.last_port:
            mark = rule.mark
    return mark


@given(st.lists(rules(), max_size=14), st.data())
def test_every_packet_gets_the_mark_of_a_linear_scan(every: list[MarkRule], data: st.DataObject) -> None:
    stretches = marks.layout_of(every)
    for _ in range(8):
        family = data.draw(FAMILIES)
        packet = (
            data.draw(addresses(family)),
            data.draw(st.sampled_from((6, 17, 132))),
            data.draw(st.integers(0, 10)),
        )
        assert marks.mark_of(stretches, family, *packet) == linear(every, family, *packet)


@given(st.lists(rules(), max_size=14))
def test_every_rule_stands_at_its_own_prefix(every: list[MarkRule]) -> None:
    # The rows are the only copy of the list: numbers and prefixes must give it back.
    stretches = marks.layout_of(every)
    found = {
        number: rule
        for (_, _, bits), stretch in stretches.items()
        for number, rule in stretch
        if rule.bits == bits
    }
    assert [found[number] for number in sorted(found)] == every


def test_rules_that_are_hidden_are_not_inherited() -> None:
    wide = [MarkRule(number, AF_INET, bytes(4), 0, 6, 80, 80) for number in range(1, 50)]
    narrow = MarkRule(99, AF_INET, bytes((10, 0, 0, 1)), 32, 6, 443, 443)
    stretches = marks.layout_of([*wide, narrow])
    assert len(stretches[AF_INET, bytes(4), 0]) == 49
    assert [rule.mark for _, rule in stretches[AF_INET, narrow.address, 32]] == [49, 99]


def test_more_than_there_is_room_for_is_refused() -> None:
    wide = [MarkRule(1, AF_INET, bytes(4), 0, 6, port, port) for port in range(300)]
    narrow = [MarkRule(2, AF_INET, bytes((10, 0, 0, host)), 32, 17) for host in range(250)]
    with pytest.raises(IpvsError) as caught:
        marks.layout_of([*wide, *narrow])
    assert caught.value.errno == ENOMEM


@pytest.mark.parametrize(
    "rule",
    [
        MarkRule(1, AF_INET, bytes(16), 0),
        MarkRule(1, AF_INET, bytes((10, 0, 0, 1)), 24),
        MarkRule(1, AF_INET, bytes(4), 33),
        MarkRule(1, AF_INET6, bytes(16), 129),
        MarkRule(2**32, AF_INET, bytes(4), 0),
        MarkRule(1, AF_INET, bytes(4), 0, 256),
        MarkRule(1, AF_INET, bytes(4), 0, 6, 81, 80),
        MarkRule(1, AF_INET, bytes(4), 0, 6, 0, 65536),
        MarkRule(1, 7, bytes(4), 0),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(rule: MarkRule) -> None:
    plane = MemoryDataPlane()
    good = MarkRule(1, AF_INET, socket.inet_aton("10.0.0.0"), 8)
    with plane.transaction() as transaction:
        transaction.set_marks([good])
        with pytest.raises(IpvsError) as caught:
            transaction.set_marks([rule])
        assert transaction.marks() == [good]
    assert caught.value.errno == EINVAL
    assert plane.marks() == [good]
