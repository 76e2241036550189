"""Where an instance's things go, which interfaces it tracks for them, and what their loss looks like."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from xlvs.daemon.vrrp.places import depends_on, sites_of
from xlvs.daemon.vrrp.translate import group_of, settings_of
from xlvs.daemon.vrrp.wiring import membership
from xlvs.keepalived.config import Config
from xlvs.keepalived.files import Memory
from xlvs.keepalived.parse import parse
from xlvs.network.links import Link
from xlvs.network.route_losses import Policy, Way, policy_of, same, way_of
from xlvs.vrrp.settings import Track, TrackKind

FILE = "/k/main.conf"


def config(text: str) -> Config:
    outcome = parse(FILE, Memory({FILE: text}), "one")
    assert outcome.config is not None, outcome.messages
    return outcome.config


def instance(body: str, before: str = "") -> Config:
    head = "interface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.9/24\n}\n"
    return config(f"{before}\nvrrp_instance V1 {{\n{head}{body}\n}}\n")


GROUP = "track_group G {\ngroup {\nV1\n}\n}\n"
RULE = "from 10.1.0.0/16 iif eth1 oif eth2 table 100 preference 9"


@pytest.mark.parametrize(
    ("body", "before", "wanted"),
    [
        ("", "", set()),
        ("virtual_ipaddress_excluded {\n10.1.0.1/24 dev eth1\n10.1.0.2/24 dev eth0\n}", "", {"eth1"}),
        ("virtual_ipaddress_excluded {\n10.1.0.1/24 dev eth1 no_track\n}", "", set()),
        ("virtual_routes {\n10.1.0.0/16 dev eth0\n10.2.0.0/16 via 10.0.0.1\n}", "", {"eth0"}),
        ("virtual_routes {\n10.1.0.0/16 nexthop via 10.0.0.1 dev eth1\n}", "", set()),
        (f"virtual_rules {{\n{RULE}\n}}", "", {"eth1", "eth2"}),
        (f"virtual_rules {{\n{RULE} no_track\n}}", "", set()),
        ("", f"{GROUP}static_ipaddress {{\n10.1.0.1/24 dev eth1 track_group G\n}}", {"eth1"}),
        ("", f"{GROUP}static_ipaddress {{\n10.1.0.1/24 dev eth1 track_group G no_track\n}}", set()),
        ("", f"{GROUP}static_routes {{\n10.1.0.0/16 dev eth1 track_group G\n}}", {"eth1"}),
        ("", f"{GROUP}static_rules {{\n{RULE} track_group G\n}}", {"eth1", "eth2"}),
        ("", "static_routes {\n10.1.0.0/16 dev eth1\n}", set()),
    ],
)
def test_interfaces_that_an_instance_depends_on(body: str, before: str, wanted: set[str]) -> None:
    found = instance(body, before)
    assert depends_on(found.instances[0], found) == wanted


def test_an_interface_that_must_be_up_moves_no_priority() -> None:
    body = "track_interface {\neth1 weight 20\neth2 weight 10\n}\nvirtual_routes {\n10.1.0.0/16 dev eth1\n}"
    found = instance(body)
    assert settings_of(found.instances[0], found).tracks == (Track(TrackKind.INTERFACE, "eth2", 10),)


def test_addresses_of_an_instance_without_interface_go_to_the_default_one() -> None:
    found = config(
        "global_defs {\ndefault_interface eth5\n}\nvrrp_instance V1 {\nvirtual_router_id 51\n"
        "unicast_src_ip 10.0.0.1\nunicast_peer {\n10.0.0.2\n}\nvirtual_ipaddress {\n10.0.0.9/24\n}\n}\n"
    )
    site = sites_of(found)["V1"]
    assert [place.device for place in site.addresses] == ["eth5"]
    assert site.needs == ("eth5",)


@pytest.mark.parametrize("keyword", ["global_tracking", "sync_group_tracking_weight", ""])
def test_both_keywords_let_members_keep_their_weights(keyword: str) -> None:
    found = instance("", f"vrrp_sync_group G {{\ngroup {{\nV1\n}}\n{keyword}\n}}")
    assert group_of(found.groups[0], found).tracking_weight == bool(keyword)


@pytest.mark.parametrize(
    ("tracked", "text"),
    [
        ("track_interface {\neth1 weight 9\n}", "ignoring eth1 tracked interface weight due to SYNC group"),
        ("track_script {\nS\n}", "ignoring tracked script S with weights due to SYNC group"),
        ("track_script {\nS weight 0\n}", ""),
        ("track_file {\nF\n}", "ignoring weight from tracked file F due to SYNC group. specify weight 0"),
        ("track_file {\nF weight 0\n}", ""),
        ("track_bfd {\nB weight 9\n}", "ignoring tracked bfd B with weight 9 due to SYNC group"),
        ("track_process {\nP weight 9\n}", ""),
    ],
)
def test_weights_of_a_groups_members_are_told_of(tracked: str, text: str) -> None:
    """As keepalived -t tells of them, and exits with 5."""
    body = "virtual_ipaddress {{\n10.0.0.{}\n}}"
    before = "global_defs {\nenable_script_security\n}\nvrrp_script S {\nscript /bin/true\nweight 5\n}\n"
    before += "track_file F {\nfile /f\n}\nvrrp_track_process P {\nprocess sshd\n}\n"
    before += "bfd_instance B {\nneighbor_ip 10.0.0.2\nsource_ip 10.0.0.1\n}\n"
    for flag in ("", "sync_group_tracking_weight"):
        group = f"vrrp_sync_group G {{\ngroup {{\nV1\nV2\n}}\n{flag}\n}}\n"
        members = "".join(
            f"vrrp_instance V{n} {{\ninterface eth0\nvirtual_router_id {n}\n{body.format(n)}\n{more}\n}}\n"
            for n, more in ((1, tracked), (2, ""))
        )
        outcome = parse(FILE, Memory({FILE: before + group + members}), "one")
        told = [message.text for message in outcome.messages if "SYNC group" in message.text]
        assert told == ([f"(V1) {text}"] if text and not flag else [])


def test_messages_of_a_track_group_that_cannot_be() -> None:
    for keyword, entry in (("routes", "10.1.0.0/16 via 10.0.0.1"), ("rules", "from 10.1.0.0/16 table 5")):
        text = f"{GROUP}static_{keyword} {{\n{entry} track_group G\n}}\n"
        text += (
            "vrrp_instance V1 {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.9\n}\n}\n"
        )
        outcome = parse(FILE, Memory({FILE: text}), "one")
        assert outcome.status == 5
        assert any("cannot have track" in message.text for message in outcome.messages)
        assert outcome.config is not None
        assert all(
            one.track_group is None for one in outcome.config.static_routes + outcome.config.static_rules
        )


# -- what the kernel says of a loss ---------------------------------------------------

NET = ip_network("10.1.0.0/16")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("10.1.0.0/16 dev eth1", Way(NET, 254, 0, 0, "eth1", "")),
        ("10.1.0.0/16 via 10.0.0.1 dev eth1 metric 5", Way(NET, 254, 5, 0, "eth1", "10.0.0.1")),
        ("blackhole 10.1.0.0/16 table 7 tos 10", Way(NET, 7, 0, 16, "", "")),
        ("10.1.0.0/16 dev eth1 table unspec", Way(NET, 254, 0, 0, "eth1", "")),
        ("local 10.1.0.0/16 dev eth1", Way(NET, 255, 0, 0, "eth1", "")),
        ("10.1.0.0/16 dev eth1 mtu lock 1400 onlink", Way(NET, 254, 0, 0, "eth1", "")),
        ("10.1.0.0/16 via 10.0.0.1 or 10.0.0.2 dev eth1", Way(NET, 254, 0, 0, "", "")),
        ("10.1.0.0/16 metric 3 nexthop via 10.0.0.1 dev eth1", Way(NET, 254, 3, 0, "", "")),
        ("default via 10.0.0.1 dev eth1", Way(ip_network("0.0.0.0/0"), 254, 0, 0, "eth1", "10.0.0.1")),
        ("inet6 fd01::/64 dev eth1", Way(ip_network("fd01::/64"), 254, 1024, 0, "eth1", "")),
        ("inet6 default dev eth1 metric 9", Way(ip_network("::/0"), 254, 9, 0, "eth1", "")),
        ("10.1.0.0/16 dev eth1 encap ip src 10.0.0.4 tos 0x8", Way(NET, 254, 0, 0, "eth1", "")),
        ("10.1.0.0/16 encap mpls 7 nexthop via 10.0.0.1 dev eth1", Way(NET, 254, 0, 0, "", "")),
        ("10.1.0.0/16 dev eth1 vrf blue", Way(NET, None, 0, 0, "eth1", "")),
    ],
)
def test_a_route_by_its_words(words: str, wanted: Way) -> None:
    assert way_of(words.split()) == wanted


def test_a_rule_by_its_words() -> None:
    everywhere = ip_network("0.0.0.0/0")
    words = ["from", "10.1.0.0/16", "iif", "eth1", "table", "100", "preference", "9"]
    assert policy_of(words) == Policy(4, 9, NET, everywhere, "eth1", "", 100)
    words = ["inet6", "to", "fd01::/64", "oif", "eth2", "blackhole", "preference", "8"]
    assert policy_of(words) == Policy(6, 8, ip_network("::/0"), ip_network("fd01::/64"), "", "eth2", 0)


def test_a_route_of_a_vrf_is_the_same_in_any_table() -> None:
    wanted = way_of(["10.1.0.0/16", "dev", "eth1", "vrf", "blue"])
    assert same(wanted, Way(NET, 77, 0, 0, "eth1", ""))
    assert not same(wanted, Way(NET, 77, 0, 0, "eth2", ""))
    assert not same(way_of(["10.1.0.0/16", "dev", "eth1"]), Way(NET, 77, 0, 0, "eth1", ""))


# -- sockets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "policy", "bytes_"),
    [
        ("", {}, 0),
        ("kernel_rx_buf_size 7000", {"vrrp_rx_bufs_policy": ("MTU",)}, 7000),
        ("", {"vrrp_rx_bufs_policy": ("MTU",)}, 4500),
        ("", {"vrrp_rx_bufs_policy": ("MTU",), "vrrp_rx_bufs_multiplier": ("10",)}, 15000),
        ("", {"vrrp_rx_bufs_policy": ("5000",)}, 5000),
        ("version 3", {"vrrp_rx_bufs_policy": ("ADVERT",)}, 96),
        (
            "version 2\nauthentication {\nauth_type AH\nauth_pass x\n}",
            {"vrrp_rx_bufs_policy": ("ADVERT",), "vrrp_rx_bufs_multiplier": ("1",)},
            64,
        ),
    ],
)
def test_receive_buffers(body: str, policy: dict[str, tuple[str, ...]], bytes_: int) -> None:
    """What keepalived 2.2.7 was seen to ask for."""
    found = instance(body)
    one = found.instances[0]
    link = Link(2, "eth0", 0x41, b"", mtu=1500)
    assert membership(settings_of(one, found), one, link, None, policy).receive_buffer == bytes_


def test_unicast_without_an_interface_is_of_its_vrf() -> None:
    found = config(
        "vrrp_instance V1 {\nvirtual_router_id 51\nvrf red\nunicast_src_ip 10.0.0.1\nunicast_peer {\n"
        "10.0.0.2\n}\nvirtual_ipaddress {\n10.0.0.9/24 dev eth1\n}\n}\n"
    )
    one = found.instances[0]
    assert membership(settings_of(one, found), one, None, one.source).key.interface == "red"
