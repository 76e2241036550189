"""The pure parts of the vrrp child: delays of links, ip's lines, announcements as bytes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from xlvs.daemon.vrrp.link_delays import LinkDelays
from xlvs.keepalived.config import LinkDelay
from xlvs.network.announce import gratuitous_arp, unsolicited_na
from xlvs.network.ip_commands import route, rule

MAC = bytes.fromhex("2a0f2b98ed2b")


def test_a_link_counts_as_it_was_until_its_delay_is_over() -> None:
    delays = LinkDelays()
    delays.load([LinkDelay("e0", down=2.0, up=5.0)])
    assert delays.up("e0", True, 10.0)
    assert delays.deadline() is None
    assert delays.up("e0", False, 11.0)
    assert delays.deadline() == 13.0
    assert delays.up("e0", True, 12.0)  # back in time: nothing happened
    assert delays.deadline() is None
    assert delays.up("e0", False, 20.0)
    assert not delays.up("e0", False, 22.0)
    assert not delays.up("e0", True, 23.0)
    assert delays.deadline() == 28.0
    assert delays.up("e0", True, 28.0)
    assert not delays.up("e1", False, 1.0)  # without a delay: at once
    assert delays.up("e1", True, 1.0)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "10.1.0.0/16 via 10.0.0.1",
            "route replace 10.1.0.0/16 via 10.0.0.1 protocol keepalived scope global",
        ),
        ("10.1.0.0/16 dev e0 proto 7", "route replace 10.1.0.0/16 dev e0 proto 7 scope global"),
        ("local 10.1.0.0/16 dev e0", "route replace local 10.1.0.0/16 dev e0 protocol keepalived"),
        (
            "10.1.0.0/16 dev e0 scope link encap ip dst 10.0.0.3",
            "route replace 10.1.0.0/16 dev e0 scope link encap ip dst 10.0.0.3 protocol keepalived",
        ),
        ("inet6 fd77::/64 via fd09::9", "-6 route replace fd77::/64 via fd09::9 protocol keepalived"),
        (
            "10.1.0.0/16 via 10.0.0.1 or 10.0.0.2 dev e0",
            "route replace 10.1.0.0/16 protocol keepalived scope global"
            " nexthop via 10.0.0.1 dev e0 nexthop via 10.0.0.2 dev e0",
        ),
    ],
)
def test_routes_as_ip_reads_them(words: str, line: str) -> None:
    assert route(words.split()) == line


def test_rules_and_hostile_words() -> None:
    assert rule(["from", "10.1.0.0/16", "table", "5"]) == (
        "rule add from 10.1.0.0/16 table 5 protocol keepalived"
    )
    assert rule(["inet6", "iif", "e0"], delete=True) == "-6 rule del iif e0 protocol keepalived"
    # No word becomes two, or a line of its own.
    assert route(["10.1.0.0/16", "dev", "e0\nlink del e0"]).count("\n") == 0
    assert "link del" not in route(["10.1.0.0/16", "dev", "e0 link del e0"])


def test_announcements_as_keepalived_sends_them() -> None:
    # Both as captured from Debian's keepalived.
    arp = "0001080006040001" + MAC.hex() + "0a090064" + "ff" * 6 + "0a090064"
    assert gratuitous_arp(MAC, ip_address("10.9.0.100")).hex() == arp  # type: ignore[arg-type]
    na = "6000000000203afffd000009000000000000000000000100ff020000000000000000000000000001"
    na += "880017b920000000fd00000900000000000000000000010002012a0f2b98ed2b"
    assert unsolicited_na(MAC, ip_address("fd00:9::100")).hex() == na  # type: ignore[arg-type]
