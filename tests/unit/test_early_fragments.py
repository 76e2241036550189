"""What waits in the helper for its first fragment, within which bounds; and packets in parts."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packet.frames import UDP, Datagram, ethernet, ip
from tests.packet.pieces import join
from xlvs.daemon import frames
from xlvs.daemon.fragments import MOST_BYTES, MOST_OF_DATAGRAM, MOST_OF_SOURCE, EarlyFragments
from xlvs.dataplane import datagrams, layout_events
from xlvs.dataplane.events import Event
from xlvs.dataplane.inject import Injector
from xlvs.dataplane.tables import Tables

DEVICE = 7


class Helper:
    """The handler over a data plane that has seen the first fragments of these datagrams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[bytes] = []
        self.given_up = 0
        self.known: set[bytes] = set()
        monkeypatch.setattr(datagrams, "first_came", lambda _, key: key in self.known)
        monkeypatch.setattr(datagrams, "count_given_up", self._count)
        self.handler = EarlyFragments(cast(Tables, None), cast(Injector, self))

    def _count(self, _: object, count: int) -> None:
        self.given_up += count

    def inject(self, frame: bytes, ifindex: int) -> None:
        assert ifindex == DEVICE
        self.sent.append(frame)

    def early(self, frame: bytes, now: float = 0.0) -> None:
        self.handler.handle(Event(layout_events.EVENT_EARLY, DEVICE, 0, 0, 0, frame), now)

    def first(self, frame: bytes) -> None:
        key = frames.datagram_key(frame)
        assert key
        self.handler.handle(Event(layout_events.EVENT_FIRST, 0, 0, 0, 0, key), 0.0)


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> Helper:
    return Helper(monkeypatch)


def fragment(identity: int = 1, source: str = "198.18.0.1", at: int = 1) -> bytes:
    packet = ip(source, "10.80.0.1", UDP, bytes(1400), identity=identity, fragment=0x2000 | at * 175)
    return ethernet(packet, bytes(6), bytes(6))


def test_they_wait_for_their_own_first(helper: Helper) -> None:
    mine, other = [fragment(at=3), fragment(at=1)], fragment(identity=2)
    for each in (*mine, other):
        helper.early(each)
    assert helper.sent == []
    helper.first(mine[0])
    assert helper.sent == mine
    helper.first(other)
    assert helper.sent == [*mine, other]
    assert helper.given_up == 0


def test_one_whose_first_is_there_by_now_goes_at_once(helper: Helper) -> None:
    key = frames.datagram_key(fragment())
    assert key
    helper.known.add(key)
    helper.early(fragment())
    assert helper.sent == [fragment()]


def test_none_waits_for_ever(helper: Helper) -> None:
    helper.early(fragment(), now=100.0)
    helper.handler.step(100.0 + datagrams.LIFE - 0.1)
    assert helper.given_up == 0
    helper.handler.step(100.0 + datagrams.LIFE)
    assert helper.given_up == 1
    helper.first(fragment())
    assert helper.sent == []


def test_a_datagram_has_so_many_fragments(helper: Helper) -> None:
    for number in range(MOST_OF_DATAGRAM + 6):
        helper.early(fragment(at=1 + number % 40))
    assert helper.given_up == 6
    helper.first(fragment())
    assert len(helper.sent) == MOST_OF_DATAGRAM


def test_a_source_has_its_share(helper: Helper) -> None:
    many = MOST_OF_SOURCE // 1000
    for identity in range(many):
        helper.early(fragment(identity))
    kept = many - helper.given_up
    assert 0 < kept * 1400 <= MOST_OF_SOURCE
    helper.early(fragment(1, source="198.18.0.2"))
    assert helper.given_up == many - kept


def test_the_oldest_make_room(helper: Helper) -> None:
    many = MOST_BYTES // 1000
    for identity in range(many):
        helper.early(fragment(identity, source=f"198.18.{identity % 100}.1"))
    kept = many - helper.given_up
    assert 0 < kept * 1400 <= MOST_BYTES
    helper.first(fragment(0, source="198.18.0.1"))
    assert helper.sent == []
    last = fragment(many - 1, source=f"198.18.{(many - 1) % 100}.1")
    helper.first(last)
    assert helper.sent == [last]


def test_what_is_no_fragment_is_given_up(helper: Helper) -> None:
    helper.early(ethernet(bytes(40), bytes(6), bytes(6), ethertype=0x0806))
    assert helper.given_up == 1


@given(st.binary(min_size=1, max_size=3000), st.integers(68, 1500), st.sampled_from([0, 4, 40]))
def test_the_parts_are_the_packet(payload: bytes, longest: int, options: int) -> None:
    whole = Datagram("198.18.0.1", "10.80.0.1", payload=payload, identity=9, options=b"\x01" * options)
    parts = frames.in_parts(whole.frame(), longest)
    assert all(len(part) - 14 <= longest for part in parts)
    assert {part[:14] for part in parts} == {whole.frame()[:14]}
    joined = join([part[14:] for part in parts])
    # Without don't-fragment, and so with another header checksum.
    original = whole.packet()
    assert joined[:6] + joined[8:10] + joined[12:] == original[:6] + original[8:10] + original[12:]
