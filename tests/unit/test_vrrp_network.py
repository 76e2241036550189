"""What the vrrp child asks of the kernel, as keepalived 2.2.7 was seen to ask it in the same place."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from xlvs.daemon.vrrp.places import sites_of
from xlvs.daemon.vrrp.wiring import identity
from xlvs.keepalived.parse import parse
from xlvs.network.rtnetlink import attributes
from xlvs.network.virtual_addresses import Placed, _message
from xlvs.network.virtual_mac import Filter

FLAGS, CACHEINFO = 8, 6  # linux/if_addr.h
NODAD = 0x02
FOREVER = 0xFFFFFFFF


def asked(address: str, **more: object) -> dict[int, bytes]:
    """The attributes of the message that adds an address."""
    return attributes(_message(Placed(ip_interface(address), 1, **more))[8:])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "more", "preferred"),
    [
        ("fd09::1/128", {}, 0),
        ("fe80::1/128", {}, 0),
        ("fd09::1/64", {}, None),
        ("10.0.0.1/32", {}, None),
        ("fd09::1/128", {"preferred_lifetime": FOREVER}, FOREVER),
        ("10.0.0.1/24", {"preferred_lifetime": 20}, 20),
    ],
)
def test_an_address_of_all_bits_is_nobodys_source(
    address: str, more: dict[str, object], preferred: int | None
) -> None:
    found = asked(address, **more).get(CACHEINFO)
    assert (struct.unpack("=4I", found)[:2] if found else None) == (
        None if preferred is None else (preferred, FOREVER)
    )


@pytest.mark.parametrize(
    ("address", "flags", "wanted"),
    [
        ("fd09::1/64", (), NODAD),
        ("fd09::1/64", ("nodad",), 0),  # "-nodad": duplicates are looked for
        ("fd09::1/64", ("mngtmpaddr", "autojoin"), NODAD | 0x100 | 0x400),
        ("10.0.0.1/24", ("autojoin",), 0x400),
    ],
)
def test_flags_of_an_address(address: str, flags: tuple[str, ...], wanted: int) -> None:
    found = asked(address, flags=flags).get(FLAGS, bytes(4))
    assert struct.unpack("=I", found) == (wanted,)


def test_link_local_addresses_are_refused_on_their_interface_alone() -> None:
    refused = tuple((ip_address(one), "e0") for one in ("10.0.0.1", "fe80::1", "fd09::1"))
    text = Filter(refused=refused).text()
    assert 'ip6 daddr fe80::1 iifname "e0" drop' in text
    assert 'ip6 saddr fe80::1 oifname "e0" drop' in text
    assert "ip6 daddr { fd09::1 } drop" in text
    assert "ip daddr { 10.0.0.1 } drop" in text
    assert text.startswith("table ip keepalived\ndelete table ip keepalived\n")


def test_the_filter_is_as_configured() -> None:
    text = Filter("mine", 7, counters=True, macvlans=(("vrrp.51", "e0"),)).text()
    assert "type filter hook output priority 7;" in text
    assert 'ip protocol igmp oifname "vrrp.51" dup to ip daddr device "e0" counter drop' in text
    assert 'icmpv6 type nd-router-solicit oifname "vrrp.51" counter drop' in text
    assert "chain in " not in text


def test_a_filter_of_nothing_leaves_no_table() -> None:
    assert not Filter()
    assert "{" not in Filter().text()


PLACES = """
vrrp_instance VI_1 {
interface e0
virtual_router_id 51
%s
virtual_ipaddress {
10.0.0.1/24
10.1.0.1/24 dev e1
10.2.0.1/24 dev e2 no_track
}
virtual_ipaddress_excluded {
10.3.0.1/24 dev e3
}
virtual_routes {
10.70.0.0/16 via 10.0.0.9 dev e4
10.71.0.0/16 via 10.0.0.9 dev e5 no_track
10.72.0.0/16 nexthop via 10.6.0.9 dev e6
}
virtual_rules {
iif e7 from 10.70.0.0/16 table 10 preference 5000
oif e8 from 10.70.0.0/16 table 10 preference 5001 no_track
}
}
"""


@pytest.mark.parametrize(("more", "own"), [("", {"e0"}), ("dont_track_primary", set())])
def test_an_instance_needs_the_interfaces_of_what_it_puts_in_place(
    more: str, own: set[str], tmp_path: Path
) -> None:
    (tmp_path / "conf").write_text(PLACES % more)
    config = parse(str(tmp_path / "conf")).config
    assert config is not None
    assert {*sites_of(config)["VI_1"].needs} == {"e1", "e3", "e4", "e7"} | own


@pytest.mark.parametrize(
    ("entry", "weight"), [("e1", None), ("e1 weight 10", 10), ("e1 bogus", "no"), ("e1 weight", "no")]
)
def test_what_is_tracked_with_an_unknown_option_is_not_tracked(
    entry: str, weight: object, tmp_path: Path
) -> None:
    (tmp_path / "conf").write_text(PLACES % f"track_interface {{\n{entry}\n}}")
    config = parse(str(tmp_path / "conf")).config
    assert config is not None
    assert [one.weight for one in config.instances[0].track_interfaces] == [weight] * (weight != "no")


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ("version 3", True),
        ("priority 7", True),
        ("unicast_peer {\n10.0.0.9\n}", False),
        ("use_vmac", False),
    ],
)
def test_which_reload_makes_it_another_virtual_router(more: str, same: bool, tmp_path: Path) -> None:
    def identity_with(more: str) -> tuple[object, ...]:
        (tmp_path / "conf").write_text(PLACES % more)
        config = parse(str(tmp_path / "conf")).config
        assert config is not None
        return identity(config.instances[0])

    assert (identity_with(more) == identity_with("")) is same
