"""No sysctl is taken and silently ignored: each is read by the data plane, or says why it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xlvs.dataplane import layout, sysctls
from xlvs.dataplane.sysctl_rows import levels

REPOSITORY = Path(__file__).resolve().parents[2]
HEADERS = "".join(path.read_text() for path in (REPOSITORY / "bpf").rglob("*.h"))
READ = set(re.findall(r"sysctl(?:\.|->)(\w+)", HEADERS))
# What defence.py reads on the data plane's behalf.
DECIDED = ("amemthresh", "am_droprate", "drop_entry", "drop_packet", "secure_tcp")


def test_every_one_has_its_place() -> None:
    names = {name for name, *_ in layout.SysctlRow._fields_} - {"reserved"}
    assert names == set(sysctls.TABLE)
    asked: list[str] = []

    class Values(dict[str, tuple[int, ...]]):
        def __missing__(self, name: str) -> tuple[int, ...]:
            asked.append(name)
            return (0,)

    levels(Values())
    assert sorted(asked) == sorted(DECIDED)


@pytest.mark.parametrize("name", sorted(sysctls.TABLE))
def test_it_has_an_effect_or_says_that_it_has_none(name: str) -> None:
    note = sysctls.TABLE[name].note
    assert note or name in READ or name in DECIDED, f"{name} is read by nobody: add a note that says why"
    assert not note or name not in READ, f"{name} is read by now: take its note in sysctls.py away"
