"""From what there is to what is wanted, by the fewest changes: pure, and the same for every engine.

A service or destination that stays is edited where it differs and else left alone, so its
connections and counters notice nothing. What nobody of ours put there is left alone, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from xlvs.model import Destination, DestinationKey, Service, ServiceEntry, ServiceFlag, ServiceKey

# Destinations that are ours to delete, by their service.
Owned = Mapping[ServiceKey, Collection[DestinationKey]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service as it should be. ``destinations`` are in the order in which missing ones are added."""

    service: Service
    destinations: tuple[Destination, ...] = ()
    local_addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AddService:
    """A service that was not there."""

    service: Service


@dataclass(frozen=True, slots=True)
class EditService:
    """A service that is there, and differs."""

    service: Service


@dataclass(frozen=True, slots=True)
class DeleteService:
    """A service of ours that nobody wants any more."""

    key: ServiceKey


@dataclass(frozen=True, slots=True)
class AddDestination:
    """A destination that was not there."""

    key: ServiceKey
    destination: Destination


@dataclass(frozen=True, slots=True)
class EditDestination:
    """A destination that is there, and differs."""

    key: ServiceKey
    destination: Destination


@dataclass(frozen=True, slots=True)
class DeleteDestination:
    """A destination of ours that nobody wants any more."""

    key: ServiceKey
    destination: DestinationKey


@dataclass(frozen=True, slots=True)
class AddLocalAddresses:
    """Addresses of FULLNAT that were not there."""

    key: ServiceKey
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DeleteLocalAddresses:
    """Addresses of FULLNAT that nobody wants any more; connections that use them go on."""

    key: ServiceKey
    addresses: tuple[bytes, ...]


Step = (
    AddService
    | EditService
    | DeleteService
    | AddDestination
    | EditDestination
    | DeleteDestination
    | AddLocalAddresses
    | DeleteLocalAddresses
)


def difference(wanted: Iterable[Wanted], there: Iterable[ServiceEntry], owned: Owned) -> list[Step]:
    """The steps from ``there`` to ``wanted``, in an order that can be carried out.

    ``owned`` names the services and destinations of ours that may be there: of these, what is not
    wanted any more is deleted. Everything else that is not wanted stays as it is.
    """
    entries = {entry.service.key: entry for entry in there}
    steps: list[Step] = []
    kept = set()
    for each in wanted:
        key = each.service.key
        kept.add(key)
        entry = entries.get(key)
        if entry is None:
            steps += _make(each)
        else:
            steps += _change(each, entry, owned.get(key, ()))
    gone = [DeleteService(key) for key in owned if key in entries and key not in kept]
    return [*gone, *steps]


def _make(wanted: Wanted) -> list[Step]:
    key = wanted.service.key
    steps: list[Step] = [AddService(wanted.service)]
    if wanted.local_addresses:
        steps.append(AddLocalAddresses(key, _unique(wanted.local_addresses)))
    return steps + [AddDestination(key, each) for each in _by_key(wanted.destinations).values()]


def _change(wanted: Wanted, entry: ServiceEntry, owned: Collection[DestinationKey]) -> list[Step]:
    key = wanted.service.key
    steps: list[Step] = []
    if not _same(wanted.service, entry.service):
        steps.append(EditService(wanted.service))
    missing = tuple(each for each in _unique(wanted.local_addresses) if each not in entry.local_addresses)
    if missing:
        steps.append(AddLocalAddresses(key, missing))
    have = {each.destination.key: each.destination for each in entry.destinations}
    want = _by_key(wanted.destinations)
    for name, destination in want.items():
        if name not in have:
            steps.append(AddDestination(key, destination))
        elif have[name] != destination:
            steps.append(EditDestination(key, destination))
    # The kernel makes each change alone: deleting last, there is no moment without any server.
    steps += [DeleteDestination(key, each) for each in have if each not in want and each in owned]
    spare = tuple(each for each in entry.local_addresses if each not in wanted.local_addresses)
    if spare:
        steps.append(DeleteLocalAddresses(key, spare))
    return steps


def _same(wanted: Service, there: Service) -> bool:
    """Whether nothing is to change: HASHED is the engine's own, and None leaves things as they are."""
    return _comparable(wanted, there) == replace(there, flags=there.flags & ~ServiceFlag.HASHED)


def _comparable(wanted: Service, there: Service) -> Service:
    return replace(
        wanted,
        flags=wanted.flags & ~ServiceFlag.HASHED,
        synproxy=there.synproxy if wanted.synproxy is None else wanted.synproxy,
        client_address=there.client_address if wanted.client_address is None else wanted.client_address,
    )


def _by_key(destinations: Iterable[Destination]) -> dict[DestinationKey, Destination]:
    """By key; of two of the same key the first counts (IPVS refuses the second)."""
    found: dict[DestinationKey, Destination] = {}
    for each in destinations:
        found.setdefault(each.key, each)
    return found


def _unique(addresses: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(addresses))
