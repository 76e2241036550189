"""Sysctls and the defence in the settings row: reading them, and the writes of a change."""

from __future__ import annotations

from collections.abc import Mapping

from xlvs.dataplane import defence, journal, layout, sysctls
from xlvs.dataplane.journal import Write
from xlvs.model import SysctlEntry

_AUTOMATIC = ("drop_entry", "drop_packet", "secure_tcp")


def entries(values: Mapping[str, tuple[int, ...]]) -> list[SysctlEntry]:
    """The kernel's sysctls by name, then those of ours, with what XDP makes of them."""
    return [
        SysctlEntry(name, values[name], sysctl.note, own=name in sysctls.OWN)
        for table in (sysctls.KERNELS, sysctls.OWN)
        for name, sysctl in sorted(table.items())
    ]


def read(settings: layout.Settings) -> dict[str, tuple[int, ...]]:
    """The values in the settings row."""
    found = {}
    for name in sysctls.TABLE:
        value = getattr(settings.sysctl, name)
        found[name] = (value,) if isinstance(value, int) else tuple(value)
    return found


def changes(settings: layout.Settings, staged: Mapping[str, tuple[int, ...]], available: int) -> list[Write]:
    """What is to be written for new values, the defence that follows from them with it."""
    values = {**read(settings), **staged}
    decision = defence.decide(levels(values), available)
    for name in _AUTOMATIC:
        values[name] = (getattr(decision, name),)
    base = layout.Settings.sysctl.offset
    writes = []
    for name in {**staged, **dict.fromkeys(_AUTOMATIC)}:
        place = getattr(layout.SysctlRow, name)
        content = b"".join(value.to_bytes(4, "little", signed=True) for value in values[name])
        writes.append(Write("settings", base + place.offset, content))
    return writes + _decided(decision)


def levels(values: Mapping[str, tuple[int, ...]]) -> defence.Levels:
    """The sysctls that the defence depends on."""
    return defence.Levels(
        *(
            values[name][0]
            for name in ("amemthresh", "am_droprate", "drop_entry", "drop_packet", "secure_tcp")
        )
    )


def _decided(decision: defence.Decision) -> list[Write]:
    rate = decision.drop_rate & 0xFFFFFFFF
    counter = {"drop_counter": decision.drop_rate} if decision.restart else {}
    return journal.field(
        "settings",
        layout.Settings,
        0,
        **counter,
        drop_rate=rate,
        drop_entries=int(decision.drop_entries),
        secure_states=int(decision.secure_states),
    )
