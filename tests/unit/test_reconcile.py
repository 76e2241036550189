"""The difference between what is wanted and what there is leads to just that, and touches nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from xlvs import reconcile
from xlvs.daemon.keepalived.carry import carry_out
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.model import (
    AF_INET,
    L4,
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
)
from xlvs.reconcile import Wanted, difference


def key(last: int) -> ServiceKey:
    return ServiceKey(AF_INET, L4.TCP, bytes((10, 0, 0, last)), 80)


def server(last: int) -> DestinationKey:
    return DestinationKey(AF_INET, bytes((192, 168, 0, last)), 80)


NUMBERS = st.integers(1, 4)
DESTINATIONS = st.builds(
    lambda last, weight, upper: Destination(server(last), Forward.FULLNAT, weight, upper),
    NUMBERS,
    st.integers(0, 3),
    st.integers(0, 2),
)
LOCALS = st.lists(st.integers(1, 4).map(lambda last: bytes((10, 9, 0, last))), max_size=3)
SERVICES = st.builds(
    lambda last, scheduler, timeout: Service(
        key(last), scheduler, ServiceFlag.PERSISTENT if timeout else ServiceFlag(0), timeout
    ),
    NUMBERS,
    st.sampled_from(("rr", "wlc")),
    st.sampled_from((0, 60)),
)
WANTED = st.builds(
    lambda service, destinations, addresses: Wanted(service, tuple(destinations), tuple(addresses)),
    SERVICES,
    st.lists(DESTINATIONS, max_size=4, unique_by=lambda each: each.key),
    LOCALS,
)
RULES = st.lists(WANTED, max_size=4, unique_by=lambda each: each.service.key)


def owned(rules: list[Wanted]) -> dict[ServiceKey, set[DestinationKey]]:
    return {each.service.key: {one.key for one in each.destinations} for each in rules}


def change(plane: MemoryDataPlane, wanted: list[Wanted], mine: reconcile.Owned) -> list[reconcile.Step]:
    steps = difference(wanted, plane.services(), mine)
    carry_out(plane, steps)
    return steps


def content(entry: ServiceEntry) -> Wanted:
    return Wanted(
        entry.service,
        tuple(sorted((one.destination for one in entry.destinations), key=lambda one: one.key.address)),
        tuple(sorted(entry.local_addresses)),
    )


def normal(wanted: Wanted) -> Wanted:
    return replace(
        wanted,
        destinations=tuple(sorted(wanted.destinations, key=lambda one: one.key.address)),
        local_addresses=tuple(sorted(set(wanted.local_addresses))),
    )


@given(RULES, RULES)
def test_it_leads_to_what_is_wanted_and_then_there_is_nothing_to_do(
    before: list[Wanted], after: list[Wanted]
) -> None:
    plane = MemoryDataPlane()
    change(plane, before, {})
    change(plane, after, owned(before))
    found = {entry.service.key: content(entry) for entry in plane.services()}
    assert found == {each.service.key: normal(each) for each in after}
    assert difference(after, plane.services(), owned(after)) == []


@given(RULES, RULES)
def test_what_is_the_same_in_both_is_not_touched(before: list[Wanted], after: list[Wanted]) -> None:
    plane = MemoryDataPlane()
    change(plane, before, {})
    steps = change(plane, after, owned(before))
    unchanged = {each.service.key for each in after} & {
        each.service.key for each in before if normal(each) in map(normal, after)
    }
    for step in steps:
        touched = step.service.key if hasattr(step, "service") else step.key
        assert touched not in unchanged
    old = {each.service.key: {one.key: one for one in each.destinations} for each in before}
    new = {each.service.key: {one.key: one for one in each.destinations} for each in after}
    for step in steps:
        if isinstance(step, reconcile.AddDestination | reconcile.EditDestination):
            name = step.destination.key
            assert old.get(step.key, {}).get(name) != new[step.key][name]


@given(RULES, RULES)
def test_what_others_put_there_stays(foreign: list[Wanted], mine: list[Wanted]) -> None:
    plane = MemoryDataPlane()
    change(plane, foreign, {})
    change(plane, mine, {})
    change(plane, [], {each.service.key: () for each in mine if each not in foreign})
    left = {entry.service.key for entry in plane.services()}
    assert {each.service.key for each in foreign} - {each.service.key for each in mine} <= left


def test_a_foreign_destination_of_our_service_stays() -> None:
    plane = MemoryDataPlane()
    ours = Wanted(Service(key(1), "rr"), (Destination(server(1)), Destination(server(2))))
    change(plane, [ours], {})
    with plane.transaction() as transaction:
        transaction.add_destination(key(1), Destination(server(3)))
    change(plane, [replace(ours, destinations=ours.destinations[:1])], owned([ours]))
    entry = plane.service(key(1))
    assert entry is not None
    assert [one.destination.key for one in entry.destinations] == [server(3), server(1)]


def test_servers_come_before_those_whose_place_they_take_go() -> None:
    plane = MemoryDataPlane()
    before = Wanted(Service(key(1), "rr"), (Destination(server(1)),))
    change(plane, [before], {})
    sorry = replace(before, destinations=(Destination(server(9)),))
    steps = change(plane, [sorry], owned([before]))
    assert [type(step) for step in steps] == [reconcile.AddDestination, reconcile.DeleteDestination]
