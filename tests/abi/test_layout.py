"""The two sides of bpf/abi.h agree: layout.py against the compiled object, byte by byte."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import pytest

from tests.abi.btf import Field, btf
from tests.abi.contract import REPOSITORY, Contract
from xlvs.dataplane import buckets, layout, layout_events, migrate, tables

BTF = btf(tables.OBJECT)
ABI_FILES = [REPOSITORY / "bpf/abi.h", *sorted((REPOSITORY / "bpf/abi").glob("*.h"))]
ABI_TEXT = "\n".join(path.read_text() for path in ABI_FILES)

NAMES = {**vars(layout), **vars(layout_events)}
MIRRORS: list[type[ctypes.Structure]] = [
    value for value in NAMES.values() if isinstance(value, type) and issubclass(value, ctypes.Structure)
]
# Structures of the contract that user space never reads field by field.
UNREAD = {"xlvs_key4", "xlvs_key6", "xlvs_meta", "xlvs_ready"}
# layout.CounterRow has the five counters as one array, because they are only ever summed in a row.
AS_ARRAY = {"values": ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")}

# Every number of layout.py, by its name in abi.h.
CONSTANTS = {
    name: f"XLVS_{name}" for name, value in vars(layout).items() if name.isupper() and isinstance(value, int)
}
COUNTS = (
    "XLVS_SCHEDULERS",
    "XLVS_TCP_STATES",
    "XLVS_SCTP_STATES",
    "XLVS_OUTCOME_COUNT",
    "XLVS_PROGRAMS",
)
LISTS = {
    **{f"XLVS_{name.upper()}": number for number, name in enumerate(layout.SCHEDULERS)},
    **{f"XLVS_TCP_{name}": number for number, name in enumerate(layout.TCP_STATES)},
    **{f"XLVS_PROG_{name[5:].upper()}": number for number, name in enumerate(layout.PROGRAMS)},
}
CONTRACT = Contract([*CONSTANTS.values(), *COUNTS, *LISTS])


def struct_name(mirror: type[ctypes.Structure]) -> str:
    """Which structure a mirror says it is."""
    found = re.fullmatch(r"struct (\w+)", mirror.__doc__ or "")
    assert found, f"{mirror.__name__} does not say which structure it mirrors"
    return found.group(1)


def mirror_fields(mirror: type[ctypes.Structure]) -> list[Field]:
    fields = []
    for name, kind in ((each[0], each[1]) for each in mirror._fields_):
        place = getattr(mirror, name)
        element: Any = kind
        while issubclass(element, ctypes.Array):
            element = element._type_
        struct = struct_name(element) if issubclass(element, ctypes.Structure) else ""
        signed = not struct and element(-1).value < 0
        parts = AS_ARRAY.get(name, (name,))
        size = place.size // len(parts)
        fields += [
            Field(part, place.offset + number * size, size, signed, struct)
            for number, part in enumerate(parts)
        ]
    return fields


@pytest.mark.parametrize("mirror", MIRRORS, ids=struct_name)
def test_a_structure_has_the_same_fields_on_both_sides(mirror: type[ctypes.Structure]) -> None:
    name = struct_name(mirror)
    assert mirror_fields(mirror) == BTF.fields(name)
    assert ctypes.sizeof(mirror) == BTF.size(name)


def test_every_structure_of_the_contract_is_mirrored() -> None:
    defined = set(re.findall(r"^struct (\w+) \{", ABI_TEXT, re.MULTILINE))
    assert {struct_name(mirror) for mirror in MIRRORS} == defined - UNREAD
    assert defined >= UNREAD


@pytest.mark.parametrize(("ours", "theirs"), CONSTANTS.items())
def test_a_constant_has_the_same_value_on_both_sides(ours: str, theirs: str) -> None:
    assert NAMES[ours] == CONTRACT.value(theirs)


def test_enumerations_have_the_same_order_on_both_sides() -> None:
    assert {name: CONTRACT.value(name) for name in LISTS} == LISTS
    lists = (layout.SCHEDULERS, layout.TCP_STATES, layout.SCTP_STATES, layout.OUTCOMES, layout.PROGRAMS)
    lengths = [len(each) for each in lists]
    assert [CONTRACT.value(name) for name in COUNTS] == lengths


def test_outcomes_have_the_same_names_and_texts_on_both_sides() -> None:
    assert [(name.lower(), text) for name, text in CONTRACT.outcomes()] == list(layout.OUTCOMES)


def test_schedulers_have_as_many_buckets_as_their_hashes_have_values() -> None:
    """Their sizes are the kernel's, not the contract's."""
    text = (REPOSITORY / "bpf/schedule/hashed.h").read_text()
    found = dict(re.findall(r"#define\s+(SH_TABLE_BITS|MH_TABLE)\s+(\d+)", text))
    assert 1 << int(found["SH_TABLE_BITS"]) == buckets.SH_TABLE
    assert int(found["MH_TABLE"]) == buckets.MH_TABLE


def test_a_row_begins_where_ctypes_and_the_kernel_put_it() -> None:
    """Both round up the rows of a mapped array to eight bytes; ctypes must not need the rounding."""
    arrays = {"services": layout.ServiceRow, "dests": layout.DestRow, "members": layout.MemberRow}
    arrays |= {"loads": layout.LoadRow, "counters": layout.CounterRow, "rates": layout.RateRow}
    arrays |= {"conns": layout.ConnRow, "mark_rules": layout.MarkRule, "buckets": layout.BucketPair}
    for name, mirror in arrays.items():
        assert BTF.maps()[name].value == ctypes.sizeof(mirror)
        assert ctypes.sizeof(mirror) % 8 == 0, name


def test_lines_that_packets_write_are_apart_from_those_they_read() -> None:
    """64-byte lines: what is read for each packet must not move with what is written."""
    assert layout.ServiceRow.mark.offset % 64 == 0
    assert layout.DestRow.hop.offset % 64 == 0
    assert layout.ConnRow.phase.offset % 64 == 0
    assert ctypes.sizeof(layout.LoadRow) % 64 == ctypes.sizeof(layout.CounterRow) % 64 == 0


def test_maps_are_the_ones_user_space_pins() -> None:
    assert set(BTF.maps()) == {*tables.RULE_MAPS, *tables.CONN_MAPS, "programs"}
    assert not set(tables.RULE_MAPS) & set(tables.CONN_MAPS)
    assert set(migrate.MOVED_MAPS) <= set(tables.CONN_MAPS)


ARRAY, HASH, PROG_ARRAY, PERCPU_ARRAY, LRU_HASH, LPM_TRIE = (
    2,
    1,
    3,
    6,
    9,
    11,
)  # enum bpf_map_type in linux/bpf.h
NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10
SIZED_LATER = 1


@pytest.mark.parametrize(
    ("name", "kind", "flags", "key", "value", "entries"),
    [
        ("settings", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.Settings), 1),
        ("services", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.ServiceRow), layout.SERVICES),
        ("dests", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.DestRow), layout.DESTS),
        ("members", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.MemberRow), layout.MEMBERS),
        ("loads", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.LoadRow), layout.DESTS),
        ("counters", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.CounterRow), SIZED_LATER),
        ("rates", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.RateRow), layout.ROWS),
        ("service_index", HASH, NO_PREALLOC, ctypes.sizeof(layout.ServiceKeyRow), 4, layout.SERVICES),
        ("buckets", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.BucketPair), layout.BUCKETS // 2),
        ("mark_rules", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.MarkRule), layout.MARK_RULES),
        ("locals", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.LocalRow), layout.LOCALS),
        ("mark_prefixes", LPM_TRIE, NO_PREALLOC, ctypes.sizeof(layout.MarkPrefix), 8, layout.MARK_PREFIXES),
        ("clients", LPM_TRIE, NO_PREALLOC, ctypes.sizeof(layout.ClientPrefix), 16, layout.CLIENTS),
        ("sources", LRU_HASH, 0, ctypes.sizeof(layout.Source), 8, layout.SOURCES),
        ("addresses", HASH, NO_PREALLOC, ctypes.sizeof(layout.ServiceKeyRow), 4, layout.ADDRESSES),
        ("ports", HASH, NO_PREALLOC, 4, ctypes.sizeof(layout.PortRow), layout.PORTS),
        ("conns", ARRAY, MMAPABLE, 4, ctypes.sizeof(layout.ConnRow), SIZED_LATER),
        ("conn_index4", HASH, NO_PREALLOC, 16, 4, SIZED_LATER),
        ("conn_index6", HASH, NO_PREALLOC, 40, 4, SIZED_LATER),
        ("outcomes", PERCPU_ARRAY, 0, 4, 8, len(layout.OUTCOMES)),
        ("programs", PROG_ARRAY, 0, 4, 4, len(layout.PROGRAMS)),
    ],
)
def test_a_map_is_what_user_space_takes_it_for(
    name: str, kind: int, flags: int, key: int, value: int, entries: int
) -> None:
    found = BTF.maps()[name]
    assert (found.type, found.flags, found.key, found.value, found.entries) == (
        kind,
        flags,
        key,
        value,
        entries,
    )


def test_the_timer_and_the_scratch_are_not_mapped() -> None:
    """A map with a timer cannot be; and nobody outside a program may see another's scratch."""
    assert not BTF.maps()["ticker"].flags & MMAPABLE
    assert BTF.maps()["scratch"].type == PERCPU_ARRAY
