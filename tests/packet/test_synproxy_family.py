"""SYNPROXY across the families: its own segments are in the family of whom they go to."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.packet import fullnat
from tests.packet.cookies import SIZES, Offer
from tests.packet.director import XDP_PASS, Director
from tests.packet.frames import TCP
from tests.packet.fullnat import LIP, PORT
from tests.packet.handshake import (
    ALWAYS,
    ANSWER_MAGIC,
    CLIENT,
    CLOSE,
    KEY,
    RIP,
    VIP,
    Seen,
    ack_of,
    half_open,
    opened,
    read,
    row_of,
    server_says,
    syn,
)
from tests.packet.test_family import across, other
from xlvs.daemon.frames import client_ack

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
OFFER = Offer(1460, 7, True)


def guarded(director: Director, family: int) -> None:
    director.tables.settings.cookie_key[:] = KEY
    key = fullnat.serve(director, family, TCP, [RIP[other(family)]], [LIP[other(family)]])
    row_of(director, key).synproxy = ALWAYS


def ends(seen: Seen) -> tuple[str, str, int]:
    return seen.source, seen.target, seen.dport


@families
@pytest.mark.parametrize("tags", [(), (7,), (100, 7)], ids=["plain", "vlan", "qinq"])
def test_the_real_server_is_asked_in_its_own(director: Director, family: int, tags: tuple[int, ...]) -> None:
    guarded(director, family)
    answer, asked = opened(director, syn(family, tags=tags, tcp_options=OFFER.options()))
    assert ends(asked) == (LIP[other(family)], RIP[other(family)], PORT)
    assert (asked.flags, asked.tags) == (0x02, ())
    assert Offer.read(asked.options) == replace(OFFER, mss=SIZES[family][-1])
    (conn,) = director.connections()
    conn.seen -= 2 * director.tables.settings.hz
    _, frame = director.exchange(client_ack(conn))
    assert read(frame) == asked  # and once more
    assert half_open(director, other(family)) == 1
    said = server_says(asked, tcp_options=OFFER.options())
    director.counted()
    verdict, frame = director.run(said.frame())
    assert (verdict, director.counted()) == (XDP_PASS, {"handed_answer": 1})
    assert frame == ANSWER_MAGIC.to_bytes(4, "little") + said.frame()
    assert conn.seq_out == (answer.sequence - 90000) & 0xFFFFFFFF
    assert half_open(director, other(family)) == 0


@families
def test_a_server_that_refuses(director: Director, family: int) -> None:
    guarded(director, family)
    answer, asked = opened(director, syn(family))
    _, frame = director.exchange(server_says(asked, "RA", sequence=0).frame())
    assert director.counted() == {"server_refused": 1}
    reset = read(frame)
    assert ends(reset) == (VIP[family], CLIENT[family], 40000)
    assert (reset.sequence, reset.acknowledged, reset.flags) == (answer.sequence + 1, 5001, 0x14)
    assert director.connections()[0].state & 0xF == CLOSE


@families
def test_a_client_that_gives_up_first(director: Director, family: int) -> None:
    guarded(director, family)
    answer, asked = opened(director, syn(family))
    _, frame = director.exchange(ack_of(syn(family), answer, flags="R").frame())
    reset = read(frame)
    assert ends(reset) == (LIP[other(family)], RIP[other(family)], PORT)
    assert (reset.flags, reset.sequence) == (0x04, asked.sequence + 1)


@families
def test_a_server_with_an_old_connection_is_told(director: Director, family: int) -> None:
    guarded(director, family)
    _, asked = opened(director, syn(family))
    _, frame = director.exchange(server_says(asked, "A", acknowledged=424242).frame())
    reset = read(frame)
    assert ends(reset) == (LIP[other(family)], RIP[other(family)], PORT)
    assert (reset.flags, reset.sequence) == (0x04, 424242)


@families
@pytest.mark.parametrize("scale", [7, 9])
def test_all_goes_across_from_then_on(director: Director, family: int, scale: int) -> None:
    """With both ends' numbers, and with windows where they have to be corrected."""
    guarded(director, family)
    asked = syn(family, tcp_options=OFFER.options())
    cookie, there = opened(director, asked)
    director.run(server_says(there, tcp_options=Offer(1460, scale, True).options()).frame())
    (conn,) = director.connections()
    conn.window_shift = 0  # what frames.py builds has one window; the shift itself is looked at below
    sent = ack_of(asked, cookie, payload=b"asked")
    _, after = director.exchange(sent.frame())
    wanted = fullnat.inward(replace(sent, acknowledged=90001), conn)
    assert after == across(wanted, after).frame()
    said = server_says(there, "A", sequence=90001, payload=b"said")
    _, after = director.exchange(said.frame())
    wanted = fullnat.outward(replace(said, sequence=cookie.sequence + 1), asked, conn)
    assert after == across(wanted, after).frame()
    conn.window_shift = scale - 7
    _, after = director.exchange(said.frame())
    size = 20 if family == 4 else 40
    window = int.from_bytes(after[14 + size + 14 : 14 + size + 16], "big")
    assert window == 512 << scale - 7
    assert str(ip_address(after[26:30] if family == 4 else after[22:38])) == VIP[family]
