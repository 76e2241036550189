"""The classifier's rules: which packets get which firewall mark.

Rules are in order, a match does not end the walk, the last one that matches gives the
mark (as MARK rules of iptables do). For XDP they are laid out by destination: the
longest prefix of a packet's destination names a stretch of ``mark_rules`` with all rules
that apply there, its own and those of shorter prefixes, so that one lookup and a short
walk are enough. A row also keeps the number and the prefix length of its rule: the list as
the operator made it is read back from the rows, there is no second copy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from errno import EINVAL, ENOMEM

from xlvs.dataplane import journal, layout, libbpf
from xlvs.dataplane.journal import Change, Entry, Write
from xlvs.dataplane.regions import Regions
from xlvs.dataplane.tables import Tables
from xlvs.errors import IpvsError
from xlvs.model import AF_INET, AF_INET6, MarkRule

# Family, address (host bits zero) and prefix length.
Place = tuple[int, bytes, int]
_Numbered = tuple[int, MarkRule]

_FAMILY_BITS = 32  # what a key of the trie has in front of the address
_ROW = ctypes.sizeof(layout.MarkRule)
_KEY = ctypes.sizeof(layout.MarkPrefix)


def check(rules: Iterable[MarkRule]) -> None:
    """EINVAL for a rule that makes no sense: lengths, host bits, port ranges."""
    for rule in rules:
        size = {AF_INET: 4, AF_INET6: 16}.get(rule.family)
        ports = 0 <= rule.first_port <= rule.last_port <= 0xFFFF
        numbers = 0 <= rule.mark <= 0xFFFFFFFF and 0 <= rule.protocol <= 0xFF
        if len(rule.address) != size or not 0 <= rule.bits <= 8 * size or not ports or not numbers:
            raise IpvsError(EINVAL)
        if network(rule.address, rule.bits) != rule.address:
            raise IpvsError(EINVAL)


def network(address: bytes, bits: int) -> bytes:
    """An address with its host bits zero."""
    size = 8 * len(address)
    mask = (1 << size) - (1 << (size - bits))
    return (int.from_bytes(address, "big") & mask).to_bytes(len(address), "big")


def layout_of(rules: Sequence[MarkRule]) -> dict[Place, list[_Numbered]]:
    """For every distinct prefix the rules that apply there, in order, with their numbers.

    Of a shorter prefix's rules those that a later one hides there are left out. ENOMEM where
    they are more than XDP has room for.
    """
    own: dict[Place, list[_Numbered]] = {}
    for number, rule in enumerate(rules):
        own.setdefault((rule.family, rule.address, rule.bits), []).append((number, rule))
    lengths = {
        family: sorted({place[2] for place in own if place[0] == family}) for family in (AF_INET, AF_INET6)
    }
    found: dict[Place, list[_Numbered]] = {}
    room = layout.MARK_RULES
    for family, address, bits in own:
        every: list[_Numbered] = []
        for shorter in lengths[family]:
            if shorter <= bits:
                every += own.get((family, network(address, shorter), shorter), ())
        stretch = _seen(sorted(every, key=lambda each: each[0]), bits)
        room -= len(stretch)
        if room < 0:
            raise IpvsError(ENOMEM, "no room for so many rules that apply to so many prefixes")
        found[family, address, bits] = stretch
    return found


def _seen(rules: list[_Numbered], bits: int) -> list[_Numbered]:
    """Without the inherited rules that later ones hide whole."""
    kept: list[_Numbered] = []
    for number, rule in reversed(rules):
        if rule.bits == bits or not any(_hides(later, rule) for _, later in kept):
            kept.append((number, rule))
    kept.reverse()
    return kept


def _hides(later: MarkRule, rule: MarkRule) -> bool:
    return later.protocol in (0, rule.protocol) and (
        later.first_port <= rule.first_port and rule.last_port <= later.last_port
    )


def read(tables: Tables) -> list[MarkRule]:
    """The rules in the maps, in their order."""
    numbered: dict[int, MarkRule] = {}
    for (family, address, bits), word in prefixes(tables).items():
        for row in _rows(tables, word):
            if row.bits == bits:
                numbered[row.number] = MarkRule(
                    row.mark, family, address, bits, row.protocol, row.first_port, row.last_port
                )
    return [numbered[number] for number in sorted(numbered)]


def _rows(tables: Tables, word: int) -> Iterable[layout.MarkRule]:
    first, count = word & 0xFFFFFFFF, word >> 32
    return (tables.row("mark_rules", layout.MarkRule, number) for number in range(first, first + count))


def prefixes(tables: Tables) -> dict[Place, int]:
    """The trie: prefixes and the words of their stretches."""
    fd = tables.fd("mark_prefixes")
    found = {}
    for key in list(libbpf.keys(fd, _KEY)):
        row = layout.MarkPrefix.from_buffer_copy(key)
        value = libbpf.lookup(fd, key, 8)
        if value is not None:
            address = layout.plain_address(row.address, row.family)
            found[row.family, address, row.bits - _FAMILY_BITS] = int.from_bytes(value, "little")
    return found


def changes(tables: Tables, rules: Sequence[MarkRule]) -> list[Change]:
    """What is to be written so that exactly these rules hold.

    A packet sees, at its own prefix, all of the old rules or all of the new ones: new
    stretches lie elsewhere, a prefix turns to its new one by one word, and prefixes that
    are no more go last, when the shorter ones behind them are right.
    """
    before = prefixes(tables)
    after = layout_of(rules)
    if len(before.keys() | after.keys()) > layout.MARK_PREFIXES:
        raise IpvsError(ENOMEM, f"no room for more than {layout.MARK_PREFIXES} prefixes")
    settings = tables.settings
    regions = Regions("mark_rules", layout.MARK_RULES, settings.marks_next, before.values())
    rows: list[Change] = []
    words: dict[Place, int] = {}
    for place, stretch in after.items():
        words[place] = regions.take(len(stretch))
        content = b"".join(_row(number, rule) for number, rule in stretch)
        rows.append(Write("mark_rules", (words[place] & 0xFFFFFFFF) * _ROW, content))
    # Shorter prefixes first: a new one takes packets away from a shorter that is right already.
    updates = [
        Entry("mark_prefixes", _key(place), words[place].to_bytes(8, "little"))
        for place in sorted(words, key=lambda place: place[2])
    ]
    gone = [Entry("mark_prefixes", _key(place), None) for place in before if place not in after]
    notes = journal.field("settings", layout.Settings, 0, marks_next=regions.following)
    return [*rows, *updates, *gone, *notes]


def _row(number: int, rule: MarkRule) -> bytes:
    return bytes(
        layout.MarkRule(
            mark=rule.mark,
            first_port=rule.first_port,
            last_port=rule.last_port,
            protocol=rule.protocol,
            bits=rule.bits,
            number=number,
        )
    )


def _key(place: Place) -> bytes:
    family, address, bits = place
    return bytes(
        layout.MarkPrefix(bits=_FAMILY_BITS + bits, family=family, address=layout.wire_address(address))
    )


def mark_of(
    stretches: Mapping[Place, list[_Numbered]], family: int, address: bytes, protocol: int, port: int
) -> int:
    """The mark that the layout gives a packet, as XDP finds it; 0 without one."""
    for bits in range(8 * len(address), -1, -1):
        stretch = stretches.get((family, network(address, bits), bits))
        if stretch is not None:
            marks = [rule.mark for _, rule in stretch if matches(rule, protocol, port)]
            return marks[-1] if marks else 0
    return 0


def matches(rule: MarkRule, protocol: int, port: int) -> bool:
    """Whether a packet of this protocol and destination port is a rule's, its prefix aside."""
    return rule.protocol in (0, protocol) and rule.first_port <= port <= rule.last_port
