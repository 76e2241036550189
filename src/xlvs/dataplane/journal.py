"""What a change of the rules writes, as data that another process can finish.

A change is first written down whole, then carried out, then the note is removed. A
process that is killed in between leaves the note; whoever takes the lock next carries
it out again from the start. Every step sets absolute values, so twice is as good as
once, and no reader ever sees half a change.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_HEAD = struct.Struct("<16sQI")  # map, offset, bytes that follow
_ENTRY, _NO_ENTRY = 1 << 62, 1 << 63  # in the place of an offset; the former with the key's size
_ENTRIES = _ENTRY | _NO_ENTRY  # with how many, and the size of all keys << 32: below 2^30


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place in an mmapable map."""

    map: str
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a map that is no array has this value; None removes the key."""

    map: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Entries:
    """Keys of such a map, and their values, one behind the other; None removes the keys."""

    map: str
    count: int
    keys: bytes
    values: bytes | None


Change = Write | Entry | Entries


def index(key: bytes, row: int | None) -> Entry:
    """A service's key in the index names this row; None removes the key."""
    return Entry("service_index", key, None if row is None else row.to_bytes(4, "little"))


def field(name: str, kind: type[ctypes.Structure], number: int, **values: Any) -> list[Write]:
    """Fields of one row, written one after the other in the order given."""
    base, scratch = number * ctypes.sizeof(kind), kind(**values)
    memory = bytes(scratch)
    changes = []
    for each in values:
        place = getattr(kind, each)
        changes.append(Write(name, base + place.offset, memory[place.offset : place.offset + place.size]))
    return changes


def encode(changes: Iterable[Change]) -> bytes:
    """The note's content."""
    parts = []
    for each in changes:
        if isinstance(each, Write):
            parts += [_HEAD.pack(each.map.encode(), each.offset, len(each.content)), each.content]
        elif isinstance(each, Entries):
            content = each.keys + (each.values or b"")
            parts += [
                _HEAD.pack(each.map.encode(), _ENTRIES | len(each.keys) << 32 | each.count, len(content)),
                content,
            ]
        elif each.value is None:
            parts += [_HEAD.pack(each.map.encode(), _NO_ENTRY, len(each.key)), each.key]
        else:
            content = each.key + each.value
            parts += [_HEAD.pack(each.map.encode(), _ENTRY | len(each.key), len(content)), content]
    return b"".join(parts)


def decode(note: bytes) -> list[Change]:
    """The changes of a note, in their order."""
    changes: list[Change] = []
    at = 0
    while at < len(note):
        name, offset, size = _HEAD.unpack_from(note, at)
        at += _HEAD.size
        content = note[at : at + size]
        at += size
        place = name.rstrip(b"\0").decode()
        if offset & _ENTRIES == _ENTRIES:
            split = offset >> 32 & 0x3FFFFFFF
            changes.append(Entries(place, offset & 0xFFFFFFFF, content[:split], content[split:] or None))
        elif offset & _NO_ENTRY:
            changes.append(Entry(place, content, None))
        elif offset & _ENTRY:
            split = offset & 0xFFFF
            changes.append(Entry(place, content[:split], content[split:]))
        else:
            changes.append(Write(place, offset, content))
    return changes


def write(path: str, changes: Iterable[Change]) -> None:
    """Write a note down: it is there whole or not at all."""
    draft = f"{path}.new"
    with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(encode(changes))
    os.replace(draft, path)


def read(path: str) -> list[Change] | None:
    """The changes of the note that a killed process left, or None."""
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return None
