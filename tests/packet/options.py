"""TCP's options as a receiver reads them, and what a director that tells the client's address does.

Written from RFC 9293 (3.1), RFC 2018 and RFC 7323, not from the data plane.
"""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

END, NOP, MSS, SCALE, SACK_ALLOWED, SACK, TIMESTAMPS, FAST_OPEN, TOA_OLD, TOA = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    34,
    200,
    254,
)
CLAIMS = (TOA, TOA_OLD)
ROOM = 40


def walk(options: bytes) -> list[tuple[int, int, int]]:
    """Kind, place and size of each option; it ends at an end of list or an impossible size."""
    found, at = [], 0
    while at < len(options) and options[at] != END:
        size = 1 if options[at] == NOP else options[at + 1] if at + 1 < len(options) else 0
        if size < 1 + (options[at] != NOP) or at + size > len(options):
            break
        found.append((options[at], at, size))
        at += size
    return found


def without(options: bytes, *kinds: int) -> bytes:
    """With NOPs in place of all options of these kinds."""
    left = bytearray(options)
    for kind, at, size in walk(options):
        if kind in kinds:
            left[at : at + size] = bytes([NOP]) * size
    return bytes(left)


def toa(address: str, port: int, kind: int = TOA) -> bytes:
    """The option that says who the client is."""
    body = port.to_bytes(2, "big") + ip_address(address).packed
    return bytes([kind, 2 + len(body)]) + body


def told(options: bytes, option: bytes) -> bytes:
    """The options (without claims) behind the director's own, as much of them as there is room for."""
    if len(option) + len(options) <= ROOM:
        return option + options
    room = ROOM - len(option)
    stay = [(kind, options[at : at + size]) for kind, at, size in walk(options) if kind != NOP]
    if sum(len(text) for _, text in stay) > room:
        stamps = [len(text) for kind, text in stay if kind == TIMESTAMPS]
        blocks = max(0, room - (stamps[-1] if stamps else 0) - 2) // 8
        left = []
        for kind, text in stay:
            if kind == TIMESTAMPS or (kind == SACK and blocks and len(text) <= 2 + 8 * blocks):
                left.append(text)
            elif kind == SACK and blocks:
                left.append(bytes([SACK, 2 + 8 * blocks]) + text[2 : 2 + 8 * blocks])
        stay = [(0, text) for text in left]
    packed = option
    for _, text in stay:
        if len(packed) + len(text) <= ROOM:
            packed += text
    return packed + bytes(-len(packed) % 4)


def padded(options: bytes) -> bytes:
    return options + bytes(-len(options) % 4)


def sack(*edges: int) -> bytes:
    return bytes([SACK, 2 + 4 * len(edges)]) + b"".join(edge.to_bytes(4, "big") for edge in edges)


_numbers = st.integers(0, 2**32 - 1)
_known = st.one_of(
    st.just(bytes([NOP])),
    st.just(bytes([NOP, NOP, TIMESTAMPS, 10]) + bytes(range(8))),
    st.builds(lambda value: bytes([MSS, 4]) + value.to_bytes(2, "big"), st.integers(0, 65535)),
    st.builds(
        lambda edges: sack(*edges), st.lists(_numbers, max_size=8).filter(lambda edges: not len(edges) % 2)
    ),
    st.builds(
        lambda kind, body: bytes([kind, 2 + len(body)]) + body,
        st.sampled_from([SCALE, SACK_ALLOWED, TIMESTAMPS, 19, 30, FAST_OPEN, *CLAIMS, *CLAIMS]),
        st.binary(max_size=20),
    ),
)
_broken = st.builds(
    lambda kind, size: bytes([kind, size]),
    st.sampled_from([*CLAIMS, SACK, MSS]),
    st.sampled_from([0, 1, 41, 255]),
)
option_areas = st.one_of(
    st.lists(st.one_of(_known, _known, _known, _broken), max_size=8).map(
        lambda parts: padded(b"".join(parts)[:ROOM])
    ),
    st.binary(max_size=ROOM).map(padded),
)
"""Any bytes that a header's options may be, mostly meaningful ones."""
