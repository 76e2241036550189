"""Type information of a compiled object, as ``bpftool btf dump`` tells it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

_ALIASES = ("TYPEDEF", "CONST", "VOLATILE", "RESTRICT")


@dataclass(frozen=True)
class Field:
    """A member of a structure: where it lies, how many bytes it has, what it is made of."""

    name: str
    offset: int
    size: int
    signed: bool
    struct: str  # the structure it is (an array of), or ""


@dataclass(frozen=True)
class MapDefinition:
    """A map as the object asks for it; sizes in bytes, 0 where the object says none."""

    type: int
    key: int
    value: int
    entries: int
    flags: int


class Btf:
    """The types of one object file."""

    def __init__(self, path: str) -> None:
        run = subprocess.run(
            ["bpftool", "-j", "btf", "dump", "file", path], capture_output=True, text=True, check=True
        )
        self._types: dict[int, Any] = {each["id"]: each for each in json.loads(run.stdout)["types"]}

    def structures(self) -> set[str]:
        """Names of the structures that the object uses."""
        return {each["name"] for each in self._types.values() if each["kind"] == "STRUCT"}

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        size: int = self._structure(name)["size"]
        return size

    def fields(self, name: str) -> list[Field]:
        """The members of a structure, in order."""
        return [
            Field(
                member["name"],
                member["bits_offset"] // 8,
                self._bytes(member["type_id"]),
                *self._nature(member["type_id"]),
            )
            for member in self._structure(name)["members"]
        ]

    def maps(self) -> dict[str, MapDefinition]:
        """The maps of the object, by name."""
        section = next(
            each for each in self._types.values() if each["kind"] == "DATASEC" and each["name"] == ".maps"
        )
        variables = [self._types[each["type_id"]] for each in section["vars"]]
        return {each["name"]: self._map(each["type_id"]) for each in variables}

    def _structure(self, name: str) -> Any:
        (found,) = (
            each for each in self._types.values() if each["kind"] == "STRUCT" and each["name"] == name
        )
        return found

    def _plain(self, number: int) -> Any:
        found = self._types[number]
        while found["kind"] in _ALIASES:
            found = self._types[found["type_id"]]
        return found

    def _bytes(self, number: int) -> int:
        found = self._plain(number)
        if found["kind"] == "ARRAY":
            count: int = found["nr_elems"]
            return count * self._bytes(found["type_id"])
        size: int = found["size"]
        return size

    def _nature(self, number: int) -> tuple[bool, str]:
        found = self._plain(number)
        if found["kind"] == "ARRAY":
            return self._nature(found["type_id"])
        return found.get("encoding") == "SIGNED", found["name"] if found["kind"] == "STRUCT" else ""

    def _map(self, number: int) -> MapDefinition:
        members = {each["name"]: each["type_id"] for each in self._plain(number)["members"]}

        def constant(name: str) -> int:
            """libbpf's __uint: a pointer to an array of that many."""
            if name not in members:
                return 0
            count: int = self._plain(self._plain(members[name])["type_id"])["nr_elems"]
            return count

        def width(name: str) -> int:
            """libbpf's __type: a pointer to it."""
            return self._bytes(self._plain(members[name])["type_id"]) if name in members else 0

        return MapDefinition(
            constant("type"),
            width("key") or constant("key_size"),
            width("value") or constant("value_size"),
            constant("max_entries"),
            constant("map_flags"),
        )


@cache
def btf(path: str) -> Btf:
    """The types of an object, read once."""
    return Btf(path)
