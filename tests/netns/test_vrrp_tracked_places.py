"""What instances put on the node, and statics: somebody takes them away, or the interface under them goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until
from xlvs.vrrp.packet import GROUP4, Advert, datagram

pytestmark = pytest.mark.root

OTHER = "e1"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with nodes("wi-places", tmp_path, count=1) as (one,):
        one.run("ip", "link", "add", OTHER, "type", "veth", "peer", "name", "p1")
        one.run("ip", "link", "set", "p1", "up")
        one.run("ip", "link", "set", OTHER, "up")
        yield one


def instance(name: str, number: int, *lines: str) -> str:
    """A version 3 instance whose own address is 10.9.NUMBER.1."""
    head = [f"interface {INTERFACE}", f"virtual_router_id {number}", "version 3", "advert_int 0.2"]
    lines = tuple(line.replace(";", "\n") for line in lines)
    address = f"virtual_ipaddress {{\n10.9.{number}.1/24\n}}"
    return "\n".join([f"vrrp_instance {name} {{", *head, address, *lines, "}", ""])


def block(keyword: str, *lines: str) -> str:
    return "\n".join([f"{keyword} {{", *lines, "}", ""])


def states_are(node: Node, wanted: dict[str, str]) -> None:
    """Wait until these instances are in these states."""

    def so() -> bool:
        known = node.state()
        return all(known.get(name, {}).get("state") == state for name, state in wanted.items())

    until(so, f"the instances are {wanted}")


def masters(node: Node, name: str) -> int:
    """How often it became master."""
    counters = node.state()[name]["counters"]
    assert isinstance(counters, dict)
    count: int = counters["became_master"]
    return count


def test_an_interface_that_something_lies_on_is_tracked(node: Node) -> None:
    """Who has addresses, routes, rules or statics on an interface that goes down is at fault, as in 2.2.7."""
    faulty = {
        "address": instance("address", 51, block("virtual_ipaddress_excluded", f"10.77.51.1/24 dev {OTHER}")),
        "route": instance("route", 52, block("virtual_routes", f"10.78.0.0/16 dev {OTHER}")),
        "rule": instance(
            "rule", 53, block("virtual_rules", f"from 10.79.0.0/16 oif {OTHER} table 100 preference 4000")
        ),
        # The weight of an interface that must be up counts for nothing.
        "static": instance("static", 54, block("track_interface", f"{OTHER} weight 20")),
    }
    untouched = {
        "free": instance(
            "free",
            55,
            block("virtual_ipaddress_excluded", f"10.77.55.1/24 dev {OTHER} no_track"),
            block("virtual_routes", f"10.80.0.0/16 dev {OTHER} no_track"),
        ),
        "plain": instance("plain", 56),
    }
    statics = block("track_group G", "group {", "static", "}")
    statics += block("static_routes", f"10.81.0.0/16 dev {OTHER} track_group G", f"10.82.0.0/16 dev {OTHER}")
    node.start("xlvs", statics + "".join((*faulty.values(), *untouched.values())))
    states_are(node, dict.fromkeys((*faulty, *untouched), "MASTER"))
    assert node.state()["static"]["effective_priority"] == 100
    node.run("ip", "link", "set", OTHER, "down")
    states_are(node, dict.fromkeys(faulty, "FAULT") | dict.fromkeys(untouched, "MASTER"))
    node.run("ip", "link", "set", OTHER, "up")
    states_are(node, dict.fromkeys((*faulty, *untouched), "MASTER"))
    until(lambda: {"10.78.0.0/16", "10.81.0.0/16", "10.82.0.0/16"} <= {*routes(node)}, "routes are back")
    assert masters(node, "free") == 1


def routes(node: Node) -> list[str]:
    return [line.split()[0] for family in "46" for line in node.run("ip", f"-{family}", "route").splitlines()]


def test_what_somebody_takes_away(node: Node) -> None:
    """Statics come back; without its route or rule an instance begins anew; no_track is left alone."""
    statics = block(
        "static_ipaddress", f"10.66.0.1/24 dev {INTERFACE}", f"10.67.0.1/24 dev {INTERFACE} no_track"
    )
    statics += block(
        "static_routes",
        f"10.68.0.0/16 via 10.9.0.9 dev {INTERFACE} metric 7",
        f"10.69.0.0/16 via 10.9.0.9 dev {INTERFACE} no_track",
    )
    statics += block("static_rules", "from 10.70.0.0/16 table 100 preference 3000")
    mine = instance(
        "mine",
        51,
        block(
            "virtual_routes",
            f"10.71.0.0/16 via 10.9.0.9 dev {INTERFACE} table 77",
            f"fd71::/64 dev {INTERFACE}",
            f"10.72.0.0/16 dev {INTERFACE} no_track",
        ),
        block(
            "virtual_rules",
            f"from 10.73.0.0/16 to 10.74.0.0/16 iif {INTERFACE} table 100 preference 4000",
            "to fd73::/64 table 100 preference 4001",
            "from 10.75.0.0/16 table 100 preference 4002 no_track",
        ),
    )
    node.start("xlvs", statics + mine + instance("other", 52))
    states_are(node, {"mine": "MASTER", "other": "MASTER"})
    until(lambda: "4002:" in node.run("ip", "rule"), "routes and rules are there")
    for words in (
        ("addr", "del", "10.67.0.1/24", "dev", INTERFACE),
        ("route", "del", "10.69.0.0/16"),
        ("route", "del", "10.72.0.0/16"),
        ("rule", "del", "preference", "4002"),
        ("addr", "del", "10.66.0.1/24", "dev", INTERFACE),
        ("route", "del", "10.68.0.0/16"),
        ("rule", "del", "preference", "3000"),
    ):
        node.run("ip", *words)
    until(
        lambda: (
            "10.66.0.1" in node.addresses() and "10.68.0.0/16" in routes(node) and rules(node) >= {"3000:"}
        ),
        "statics are back",
    )
    assert masters(node, "mine") == 1
    assert "10.67.0.1" not in node.addresses()
    assert not {"10.69.0.0/16", "10.72.0.0/16"} & {*routes(node)}
    assert "4002:" not in rules(node)
    for count, line in enumerate(
        (
            "route del 10.71.0.0/16 table 77",
            "-6 route del fd71::/64",
            "rule del preference 4000",
            "-6 rule del preference 4001",
        ),
        start=2,
    ):
        node.run("ip", *line.split())
        until(lambda count=count: masters(node, "mine") == count, f"begun anew after {line}")  # type: ignore[misc]
        until(
            lambda: (
                node.run("ip", "route", "show", "table", "77").startswith("10.71")
                and "fd71::/64" in routes(node)
                and rules(node) >= {"4000:", "4001:", "4002:"}
            ),
            "all are back",
        )
    # What it did itself on the way was never taken for somebody else's doing.
    assert masters(node, "mine") == 5
    assert masters(node, "other") == 1


def rules(node: Node) -> set[str]:
    return {line.split()[0] for family in "46" for line in node.run("ip", f"-{family}", "rule").splitlines()}


def test_interfaces_that_are_asked_for_their_carrier(node: Node) -> None:
    """A veth answers to ethtool, so MII gives way to that, as in keepalived; the other shows its flags."""
    text = block("linkbeat_interfaces", f"{INTERFACE} MII", f"{OTHER} IOCTL")
    node.start("xlvs", text + instance("one", 51, block("track_interface", OTHER)))
    states_are(node, {"one": "MASTER"})
    assert f"({INTERFACE}): Configured linkbeat type MII not supported, using ETHTOOL" in node.said()
    for count, (peer, name) in enumerate((("p1", OTHER), (OTHER, OTHER)), start=2):
        node.run("ip", "link", "set", peer, "down")
        states_are(node, {"one": "FAULT"})
        node.run("ip", "link", "set", peer, "up")
        states_are(node, {"one": "MASTER"})
        assert f"Linkbeat reports {name} down" in node.said()
        assert masters(node, "one") == count


def test_addresses_that_adverts_come_from(node: Node) -> None:
    """track_src_ip does what is said of it; unicast begins once its address is there, not without peers."""
    source = ("mcast_src_ip 10.9.0.77", "track_src_ip")
    unicast = ("unicast_src_ip 10.9.0.78", "unicast_peer {;10.9.0.9;}")
    text = instance("tracked", 51, *source) + instance("free", 52, source[0])
    text += instance("unicast", 53, *unicast) + instance("lonely", 54, "unicast_fault_no_peer")
    node.start("xlvs", text)
    states_are(node, {"tracked": "FAULT", "free": "MASTER", "unicast": "FAULT", "lonely": "FAULT"})
    for number in (77, 78):
        node.run("ip", "addr", "add", f"10.9.0.{number}/32", "dev", INTERFACE)
    states_are(node, {"tracked": "MASTER", "free": "MASTER", "unicast": "MASTER", "lonely": "FAULT"})
    for number in (78, 77):
        node.run("ip", "addr", "del", f"10.9.0.{number}/32", "dev", INTERFACE)
    states_are(node, {"tracked": "FAULT", "free": "MASTER", "unicast": "MASTER", "lonely": "FAULT"})
    assert masters(node, "free") == masters(node, "unicast") == 1


def test_global_settings_of_the_wire(node: Node) -> None:
    """disable_local_igmp is of the whole node, and given back; log_unknown_vrids tells of others' routers."""
    reports = ("sysctl", "-n", "net.ipv4.igmp_link_local_mcast_reports")
    assert node.run(*reports).strip() == "1"
    text = block("global_defs", "disable_local_igmp", "log_unknown_vrids") + instance("one", 51)
    node.start("xlvs", text)
    states_are(node, {"one": "MASTER"})
    assert node.run(*reports).strip() == "0"
    advert = Advert(3, 99, 100, 1.0, (IPv4Address("10.9.99.1"),))
    frame = bytes.fromhex("01005e000012 020000000009 0800")
    frame += datagram(advert, IPv4Address("10.9.0.99"), GROUP4)
    code = f"import socket as s;s=s.socket(17,3);s.bind(('p1',0));s.send(bytes.fromhex('{frame.hex()}'))"
    node.reload(text.replace(INTERFACE, OTHER) + block("static_ipaddress", f"10.66.0.1/24 dev {OTHER}"))
    states_are(node, {"one": "MASTER"})
    node.run(sys.executable, "-c", code)
    until(
        lambda: f"Unknown VRID(99) received on interface({OTHER}). ignoring..." in node.said(), "it is told"
    )
    node.stop()
    assert node.run(*reports).strip() == "1"
