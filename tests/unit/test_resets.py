"""Resets of connections that time ended: whom they reach, and by which number they are believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.packet.frames import TCP, Datagram, checksum, sums_are_right
from xlvs.daemon import resets
from xlvs.dataplane import layout
from xlvs.dataplane.rows import swap16
from xlvs.model import Forward

CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
VIP = {4: "10.80.0.1", 6: "fd80::1"}
LIP = {4: "10.19.0.200", 6: "fd19::200"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
families = pytest.mark.parametrize(("outside", "inside"), [(4, 4), (6, 6), (6, 4), (4, 6)])


def connection(outside: int, inside: int, **fields: int) -> layout.ConnRow:
    row = layout.ConnRow(
        cport=swap16(40000),
        vport=swap16(80),
        dport=swap16(8080),
        lport=swap16(5001),
        protocol=TCP,
        family=2 if outside == 4 else 10,
        server_family=2 if inside == 4 else 10,
        flags=Forward.FULLNAT | layout.CONN_SHIFTED,
        seq_in=1 << 31,
        seq_out=0xFFFFFFFF,
        edge_in=7000,
        edge_out=9000,
    )
    for name, address in (("caddr", CLIENT[outside]), ("vaddr", VIP[outside]), ("laddr", LIP[inside])):
        setattr(row, name, layout.wire_address(ip_address(address).packed))
    row.daddr = layout.wire_address(ip_address(RIP[inside]).packed)
    for name, value in fields.items():
        setattr(row, name, value)
    return row


def as_sent(packet: bytes) -> bytes:
    """With what the kernel fills in."""
    if packet[0] >> 4 == 6:
        return packet
    return packet[:10] + checksum(packet[:20]).to_bytes(2, "big") + packet[12:]


def reset(source: str, sport: int, target: str, dport: int, sequence: int) -> bytes:
    whole = Datagram(source, target, sport, dport, TCP, "R", b"", sequence=sequence, acknowledged=0).packet()
    window = (20 if ":" not in source else 40) + 14
    assert whole[window : window + 2] == (512).to_bytes(2, "big")
    return whole


def same_but_window(mine: bytes, wanted: bytes) -> bool:
    """The reference has a window, which a reset has not."""
    at = (20 if mine[0] >> 4 == 4 else 40) + 14
    return mine[:at] == wanted[:at] and sums_are_right(mine) and len(mine) == len(wanted)


@families
def test_both_ends_are_told_what_they_wait_for(outside: int, inside: int) -> None:
    to_client, to_server = (as_sent(each.packet()) for each in resets.of(connection(outside, inside)))
    assert same_but_window(to_client, reset(VIP[outside], 80, CLIENT[outside], 40000, 7000))
    assert same_but_window(to_server, reset(LIP[inside], 5001, RIP[inside], 8080, 9000))


@families
def test_while_nobody_has_said_anything(outside: int, inside: int) -> None:
    """Edges are what both began with: each waits for one more than the other's, as it was shifted."""
    flags = Forward.FULLNAT | layout.CONN_SHIFTED | layout.CONN_OPENING
    to_client, to_server = resets.of(connection(outside, inside, flags=flags))
    assert to_client.sequence == (9000 + 0xFFFFFFFF + 1) & 0xFFFFFFFF == 9000
    assert to_server.sequence == 7000 + (1 << 31) + 1


def test_under_nat_the_server_knows_the_client() -> None:
    """SYNPROXY shifts numbers there, too."""
    row = connection(4, 4, flags=Forward.MASQ | layout.CONN_SHIFTED | layout.CONN_SYNPROXY)
    _, to_server = resets.of(row)
    assert (to_server.source, to_server.sport) == (ip_address(CLIENT[4]).packed, 40000)
