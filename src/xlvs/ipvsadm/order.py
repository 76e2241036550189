"""The order of services and destinations in listings.

The real program compares addresses and firewall marks by the sign of a 32-bit
difference, so that its order wraps around (192.168.0.1 comes before 10.0.0.1). Such a
comparison is not transitive all around the circle; to agree with the C library even
there, the sort is the same top-down merge sort.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from xlvs.model import AF_INET6, DestinationEntry, ServiceEntry

_T = TypeVar("_T")


def sorted_services(entries: list[ServiceEntry]) -> list[ServiceEntry]:
    """Services by mark, family, protocol, address and port."""
    keys = [_service_words(entry) for entry in entries]
    return [entries[index] for index in _merge_sorted(list(range(len(keys))), keys, _compare_services)]


def sorted_destinations(entries: list[DestinationEntry]) -> list[DestinationEntry]:
    """Destinations by address and port; of mixed families as the real program mixes them."""
    keys = [_destination_words(entry) for entry in entries]
    return [entries[index] for index in _merge_sorted(list(range(len(keys))), keys, _compare_destinations)]


def _wrapped(difference: int) -> int:
    """A difference of two 32-bit numbers as a signed 32-bit number."""
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _words(address: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(address[start : start + 4], "big") for start in range(0, len(address), 4))


def _service_words(entry: ServiceEntry) -> tuple[int, ...]:
    key = entry.service.key
    return (key.fwmark, key.family, key.protocol, key.port, *_words(key.address))


def _compare_services(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    if one[0] != other[0]:
        return _wrapped(one[0] - other[0])
    if one[1] != other[1]:
        return one[1] - other[1]
    if one[2] != other[2]:
        return one[2] - other[2]
    for mine, its in zip(one[4:], other[4:], strict=True):
        if mine != its:
            return _wrapped(mine - its)
    return one[3] - other[3]


def _destination_words(entry: DestinationEntry) -> tuple[int, ...]:
    key = entry.destination.key
    # An IPv4 address sits in the first of the four words that an IPv6 one fills.
    return (key.family, key.port, *_words(key.address.ljust(16, b"\0")))


def _compare_destinations(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    for position in range(2, 6 if one[0] == AF_INET6 else 3):
        if one[position] != other[position]:
            return _wrapped(one[position] - other[position])
    return one[1] - other[1]


def _merge_sorted(items: list[int], keys: list[_T], compare: Callable[[_T, _T], int]) -> list[int]:
    if len(items) < 2:
        return items
    middle = len(items) // 2
    left = _merge_sorted(items[:middle], keys, compare)
    right = _merge_sorted(items[middle:], keys, compare)
    merged = []
    i = j = 0
    while i < len(left) and j < len(right):
        if compare(keys[left[i]], keys[right[j]]) <= 0:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]
