"""Tables of buckets that sh, dh and mh choose from, filled as the kernel fills them. Pure.

A destination is a :class:`Candidate`, a bucket the row of one; destinations come in IPVS's
list order (the newest first). An empty table serves nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xlvs.model import AF_INET6

SH_TABLE = 256  # CONFIG_IP_VS_SH_TAB_BITS=8, and dh's
MH_TABLE = 4093  # the prime of CONFIG_IP_VS_MH_TAB_INDEX=12
_MH_BITS = 6  # CONFIG_IP_VS_MH_TAB_INDEX / 2: no destination's turns have more
_MH_OFFSET_KEY, _MH_SKIP_KEY = 2654435761, 2654446892  # generate_hash_secret of ip_vs_mh.c

_MASK = (1 << 64) - 1
_SIP_STATE = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a table needs of a destination; ``last_weight`` is its last weight that was not 0."""

    row: int
    weight: int
    last_weight: int
    address: bytes  # 16 bytes, an IPv4 one in the first four
    port: int


def table_of(scheduler: str, family: int, candidates: Sequence[Candidate]) -> list[int]:
    """The buckets of a service: empty for a scheduler without, and without destinations."""
    if scheduler == "sh":
        return sh_table(candidates)
    if scheduler == "dh":
        return dh_table(candidates)
    if scheduler == "mh":
        return mh_table(family, candidates)
    return []


def sh_table(candidates: Sequence[Candidate]) -> list[int]:
    """Round and round, each takes as many as its weight; a weight of 0 still takes one."""
    buckets: list[int] = []
    while candidates and len(buckets) < SH_TABLE:
        for candidate in candidates:
            buckets += [candidate.row] * min(max(candidate.weight, 1), SH_TABLE)
    return buckets[:SH_TABLE]


def dh_table(candidates: Sequence[Candidate]) -> list[int]:
    """Round and round, one each."""
    rows = [candidate.row for candidate in candidates]
    return (rows * (SH_TABLE // len(rows) + 1))[:SH_TABLE] if rows else []


def mh_table(family: int, candidates: Sequence[Candidate]) -> list[int]:
    """Maglev's: in turn, as many times as its weight says, each takes the next free one of its own list.

    A weight changed to 0 leaves the table as it is: that is what makes a server's leaving
    cheap for the clients of the others.
    """
    turns = _turns([candidate.last_weight for candidate in candidates])
    takers = [
        (candidate.row, turn, *_preference(family, candidate))
        for candidate, turn in zip(candidates, turns, strict=True)
        if turn
    ]
    if not takers:
        return []
    buckets = [-1] * MH_TABLE
    places = [offset for _, _, offset, _ in takers]
    left = MH_TABLE
    while True:
        for number, (row, turn, _, skip) in enumerate(takers):
            place = places[number]
            for _ in range(min(turn, left)):
                while buckets[place] >= 0:
                    place = (place + skip) % MH_TABLE
                buckets[place] = row
                left -= 1
            places[number] = place
            if not left:
                return buckets


def _turns(weights: Sequence[int]) -> list[int]:
    """How many buckets each takes at a time: its weight over the divisor, cut to six bits, at least 1."""
    step = math.gcd(*weights)
    if not step:
        return [0] * len(weights)
    shift = max((max(weights) // step).bit_length() - _MH_BITS, 0)
    return [max(weight // step >> shift, min(weight, 1)) for weight in weights]


def _preference(family: int, candidate: Candidate) -> tuple[int, int]:
    """Where a destination's list of all buckets begins, and its stride."""
    words = [int.from_bytes(candidate.address[at : at + 4], "big") for at in range(0, 16, 4)]
    folded = words[0]
    if family == AF_INET6:
        folded ^= words[1] ^ words[2] ^ words[3]
    word = (candidate.port + folded) & 0xFFFFFFFF
    offset = siphash_word(word, _MH_OFFSET_KEY) % MH_TABLE
    return offset, siphash_word(word, _MH_SKIP_KEY) % (MH_TABLE - 1) + 1


def siphash_word(word: int, key: int) -> int:
    """The kernel's hsiphash() of a 32-bit word on 64-bit machines: SipHash-1-3, cut to 32 bits."""
    a, b, c, d = (part ^ key for part in _SIP_STATE)
    block = 4 << 56 | word
    a, b, c, d = _sip_round(a, b, c, d ^ block)
    a, c = a ^ block, c ^ 0xFF
    for _ in range(3):
        a, b, c, d = _sip_round(a, b, c, d)
    return (a ^ b ^ c ^ d) & 0xFFFFFFFF


def _sip_round(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    a = (a + b) & _MASK
    b = _rotate(b, 13) ^ a
    a = _rotate(a, 32)
    c = (c + d) & _MASK
    d = _rotate(d, 16) ^ c
    a = (a + d) & _MASK
    d = _rotate(d, 21) ^ a
    c = (c + b) & _MASK
    b = _rotate(b, 17) ^ c
    return a, b, _rotate(c, 32), d


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _MASK
