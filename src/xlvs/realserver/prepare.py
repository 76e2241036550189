"""Prepare this machine (this network namespace) as a real server, undo it, tell how it stands.

What was changed, and what was there before, is written down before the first change:
/run/xlvs/realserver/COOKIE.json, by the network namespace's cookie.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xlvs.dataplane import pins
from xlvs.errors import XlvsError
from xlvs.realserver import decap, system
from xlvs.realserver.plan import Machine, plan
from xlvs.realserver.steps import Decapsulator, Step, VipAddress, from_state, to_state


@dataclass(frozen=True, slots=True)
class Status:
    """How a prepared machine stands: each step, and whether it still holds."""

    methods: tuple[str, ...]
    vips: tuple[str, ...]
    steps: list[tuple[Step, bool]]
    counters: dict[str, dict[str, int]]  # by interface, of the decapsulators

    @property
    def complete(self) -> bool:
        return all(holds for _, holds in self.steps)


@dataclass(slots=True)
class _Record:
    methods: list[str]
    entries: list[tuple[Step, str]]  # a step, and what was before it


def steps_for(
    method: str,
    vips: Sequence[str],
    interface: str | None = None,
    kernel_tunnel: bool = False,
    gue_ports: Sequence[int] = (),
) -> list[Step]:
    """The steps that this machine needs; nothing is changed."""
    return plan(method, list(vips), _machine(interface), kernel_tunnel, tuple(dict.fromkeys(gue_ports)))


def prepare(
    method: str,
    vips: Sequence[str],
    interface: str | None = None,
    kernel_tunnel: bool = False,
    gue_ports: Sequence[int] = (),
) -> list[Step]:
    """Prepare this machine, or add to what is prepared; returns the steps that had to be done."""
    wanted = steps_for(method, vips, interface, kernel_tunnel, gue_ports)
    with _locked():
        old, record = _load(), _load() or _Record([], [])
        for step in wanted:
            _merge(record, step)
        record.methods = list(dict.fromkeys([*record.methods, method]))
        _save(record)
        identities = {step.identity for step in wanted}
        undone = [step for step, _ in record.entries if step.identity in identities and not step.holds()]
        try:
            for step in undone:
                step.apply()
        except BaseException:
            _back_to(old, record)
            raise
        return undone


def undo() -> list[Step]:
    """Give back everything that was changed, latest first; returns the steps (none: not prepared)."""
    with _locked():
        record = _load()
        if record is None:
            return []
        steps = [step for step, _ in reversed(record.entries)]
        _back_to(None, record)
        return steps


def status() -> Status | None:
    """How this machine stands; None where it is not prepared."""
    record = _load()
    if record is None:
        return None
    steps = [step for step, _ in record.entries]
    return Status(
        methods=tuple(record.methods),
        vips=tuple(dict.fromkeys(step.address for step in steps if isinstance(step, VipAddress))),
        steps=[(step, step.holds()) for step in steps],
        counters={
            step.interface: decap.counters(step.interface) or {}
            for step in steps
            if isinstance(step, Decapsulator)
        },
    )


def _machine(interface: str | None) -> Machine:
    chosen = interface or system.default_interface()
    if chosen is None:
        raise XlvsError("there is no default route to tell the interface: name it with --interface")
    addresses = system.addresses()
    if chosen not in addresses or chosen == "lo":
        raise XlvsError(f"there is no interface {chosen} here that packets could come in by")
    filters = [system.read_sysctl(f"net/ipv4/conf/{scope}/rp_filter") for scope in ("all", chosen)]
    return Machine(chosen, addresses, max(int(value or 0) for value in filters))


def _merge(record: _Record, step: Step) -> None:
    for position, (present, before) in enumerate(record.entries):
        if present.identity == step.identity:
            if isinstance(present, Decapsulator) and isinstance(step, Decapsulator):
                step = replace(
                    step,
                    vips=tuple(dict.fromkeys([*present.vips, *step.vips])),
                    gue_ports=tuple(dict.fromkeys([*present.gue_ports, *step.gue_ports])),
                )
            record.entries[position] = (step, before)
            return
    record.entries.append((step, step.before()))


def _back_to(old: _Record | None, record: _Record) -> None:
    """Revert the steps of ``record`` that ``old`` does not have, latest first."""
    kept = {step.identity for step, _ in old.entries} if old else set[str]()
    for entry in reversed(list(record.entries)):
        if entry[0].identity not in kept:
            entry[0].revert(entry[1])
            record.entries.remove(entry)
            _save(record)  # interrupted here, the rest can still be undone
    if old:
        _save(old)
    else:
        os.unlink(_path())


def _path() -> str:
    return f"{pins.run_folder()}/realserver/{pins.netns_cookie():016x}.json"


@contextmanager
def _locked() -> Iterator[None]:
    folder = os.path.dirname(_path())
    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _load() -> _Record | None:
    try:
        with open(_path(), encoding="utf-8") as file:
            state = json.load(file)
    except FileNotFoundError:
        return None
    return _Record(list(state["methods"]), [from_state(entry) for entry in state["steps"]])


def _save(record: _Record) -> None:
    state = {"methods": record.methods, "steps": [to_state(step, before) for step, before in record.entries]}
    new = f"{_path()}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
    os.replace(new, _path())
