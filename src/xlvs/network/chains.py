"""Chains of rules laid out as one list in which the last match gives the mark.

netfilter walks rule by rule, jumps into user chains and may end the walk (RETURN, ACCEPT);
a list of MARK rules alone cannot. Here the same marks come out of such a list. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xlvs.errors import XlvsError
from xlvs.model import AF_INET, MarkRule

ANY_PORT = (0, 0xFFFF)
_MOST_RULES = 1 << 12  # a stretch is walked packet by packet


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of a chain.

    ``verb`` is ``mark``, ``jump``, ``goto`` (to ``chain``), ``return`` or ``accept``; ``boxes``
    are the packets that it matches, one for each range of ports, with the mark for ``mark``.
    """

    verb: str
    boxes: tuple[MarkRule, ...]
    chain: str = ""


class Chains:
    """Chains laid out as one list in which the last match gives the mark."""

    def __init__(self, chains: Mapping[str, Sequence[Step]], family: int) -> None:
        self._chains = chains
        self._everything = MarkRule(0, family, bytes(4 if family == AF_INET else 16), 0)
        self._check("PREROUTING", ())

    def _check(self, name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise XlvsError(f"the chain {name} jumps to itself")
        for step in self._chains.get(name, ()):
            if step.chain:
                self._check(step.chain, (*way, name))

    def rules(self) -> list[MarkRule]:
        """The list for PREROUTING."""
        plain = all(step.verb in ("mark", "jump") for steps in self._chains.values() for step in steps)
        rules = self._in_a_row("PREROUTING", self._everything) if plain else self._by_cells()
        if len(rules) > _MOST_RULES:
            raise XlvsError(f"the table comes to more than {_MOST_RULES} rules")
        return rules

    def _in_a_row(self, name: str, within: MarkRule) -> list[MarkRule]:
        """Without ends of the walk: the rules in their order, those of user chains in place."""
        found = []
        for step in self._chains.get(name, ()):
            for box in (both for each in step.boxes if (both := meet(within, each))):
                found += [box] if step.verb == "mark" else self._in_a_row(step.chain, box)
        return found

    # Where the walk ends for some packets, packets are sorted by the longest prefix that the
    # table names, by protocol and by stretch of ports; each such cell is walked by itself.

    def _by_cells(self) -> list[MarkRule]:
        boxes = [box for steps in self._chains.values() for step in steps for box in step.boxes]
        places = {(box.address, box.bits) for box in (*boxes, self._everything)}
        found: list[MarkRule] = []
        cells: dict[tuple[bytes, int], _Cells] = {}
        for address, bits in sorted(places, key=lambda place: place[1]):
            prefix = replace(self._everything, address=address, bits=bits)
            cells[address, bits] = here = self._cells(prefix, boxes)
            around = [place for place in cells if place[1] < bits and _within(prefix, *place)]
            before = cells[max(around, key=lambda place: place[1])] if around else _Cells({}, {})
            found += _differences(prefix, before, here)
        return found

    def _cells(self, prefix: MarkRule, boxes: list[MarkRule]) -> _Cells:
        near = [box for box in boxes if _within(prefix, box.address, box.bits)]
        chains = {
            name: [(step, mine) for step in steps if (mine := [box for box in step.boxes if box in near])]
            for name, steps in self._chains.items()
        }
        cells = _Cells({}, {})
        for protocol in sorted({0, *(box.protocol for box in near)}):
            mine = [box for box in near if box.protocol in (0, protocol)]
            starts = sorted({0, *(box.first_port for box in mine), *(box.last_port + 1 for box in mine)})
            for first in starts:
                if first <= ANY_PORT[1]:
                    walk = _Walk(chains, protocol, first)
                    walk.chain("PREROUTING")
                    cells.marks[protocol, first] = walk.mark
            cells.starts[protocol] = [first for first in starts if first <= ANY_PORT[1]]
        return cells


@dataclass(frozen=True, slots=True)
class _Cells:
    """The marks at one prefix by protocol (0: those not named) and first port of a stretch."""

    marks: dict[tuple[int, int], int]
    starts: dict[int, list[int]]

    def stretches(self, protocol: int) -> list[tuple[int, int, int]]:
        """First port, last port and mark for all ports of a protocol, neighbours of one mark joined."""
        named = protocol if protocol in self.starts else 0
        found: list[tuple[int, int, int]] = []
        starts = self.starts.get(named, [0])
        for first, following in zip(starts, [*starts[1:], ANY_PORT[1] + 1], strict=True):
            mark = self.marks.get((named, first), 0)
            if found and found[-1][2] == mark:
                first = found.pop()[0]
            found.append((first, following - 1, mark))
        return found


class _Walk:
    """One packet's walk: its protocol and destination port; its prefix chose the chains' steps."""

    def __init__(
        self, chains: dict[str, list[tuple[Step, list[MarkRule]]]], protocol: int, port: int
    ) -> None:
        self._chains = chains
        self._protocol, self._port = protocol, port
        self.mark = 0

    def chain(self, name: str) -> bool:
        """Walk one chain; False where all is over."""
        for step, boxes in self._chains.get(name, ()):
            match = next(filter(self._matches, boxes), None)
            if match is None:
                continue
            if step.verb == "mark":
                self.mark = match.mark
            elif step.verb == "accept":
                return False
            elif step.verb == "return":
                return True
            elif not self.chain(step.chain):
                return False
            elif step.verb == "goto":
                return True
        return True

    def _matches(self, box: MarkRule) -> bool:
        return box.protocol in (0, self._protocol) and box.first_port <= self._port <= box.last_port


def _differences(prefix: MarkRule, before: _Cells, here: _Cells) -> list[MarkRule]:
    """Rules that make of a shorter prefix's marks those of this one."""
    found = []
    others = here.stretches(0)
    everyone = others != before.stretches(0)
    if everyone:  # a rule for any protocol says it of all that others say of the named ones
        found += [replace(prefix, mark=mark) for _, _, mark in others]
    for protocol in sorted({*before.starts, *here.starts} - {0}):
        stretches = here.stretches(protocol)
        if stretches != (others if everyone else before.stretches(protocol)):
            found += [
                replace(prefix, mark=mark, protocol=protocol, first_port=first, last_port=last)
                for first, last, mark in stretches
            ]
    return found


def _within(prefix: MarkRule, address: bytes, bits: int) -> bool:
    """Whether a prefix lies in another."""
    shift = 8 * len(address) - bits
    return prefix.bits >= bits and (
        int.from_bytes(prefix.address, "big") >> shift == int.from_bytes(address, "big") >> shift
    )


def meet(one: MarkRule, other: MarkRule) -> MarkRule | None:
    """The packets of both boxes, with the other's mark; None where there are none."""
    narrow, wide = (one, other) if one.bits >= other.bits else (other, one)
    if not _within(narrow, wide.address, wide.bits):
        return None
    if one.protocol and other.protocol and one.protocol != other.protocol:
        return None
    first, last = max(one.first_port, other.first_port), min(one.last_port, other.last_port)
    if first > last:
        return None
    return MarkRule(
        other.mark, one.family, narrow.address, narrow.bits, one.protocol or other.protocol, first, last
    )
