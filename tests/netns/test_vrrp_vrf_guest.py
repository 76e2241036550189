"""VRRP on ipvlans and in a VRF, on Debian's 6.1 kernel: this machine's may have neither.

Run as a module this is the part that happens in the guest: xlvs and the real keepalived as two nodes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.guest import run_in_guest
from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

OTHER = "e1"


def configuration(number: int) -> str:
    """The same routers on each node, 1 or 2; node 1 has the higher priority."""
    text = ""
    for name, router, lines, address in (
        ("ipvlan", 51, (f"interface {INTERFACE}", f"use_ipvlan ipv0 10.9.0.6{number}/24"), "10.9.51.1/24"),
        ("ipvlan6", 52, (f"interface {INTERFACE}", "use_ipvlan"), "fd09:52::1/64"),
        ("nothing", 53, (f"interface {INTERFACE}", "use_ipvlan ipv1"), "10.9.53.1/24"),
        ("vrf", 54, (f"interface {OTHER}",), "10.10.54.1/24"),
        ("vrfmac", 55, (f"interface {OTHER}", "use_vmac"), "10.10.55.1/24"),
    ):
        body = "\n".join(lines)
        text += f"vrrp_instance {name} {{\n{body}\nvirtual_router_id {router}\nversion 3\nadvert_int 0.8\n"
        text += f"priority {150 - 50 * number}\nvirtual_ipaddress {{\n{address}\n}}\n}}\n"
    return text


def prepare(one: Node, two: Node) -> None:
    """A second wire between the two, on which both have a VRF."""
    one.run("ip", "link", "add", OTHER, "type", "veth", "peer", "name", OTHER, "netns", two.namespace)
    for node in (one, two):
        for line in (
            "link add red type vrf table 10",
            "link set red up",
            f"link set {OTHER} master red",
            f"link set {OTHER} up",
            f"addr add 10.10.0.{node.number}/24 dev {OTHER}",
        ):
            node.run("ip", *line.split())


SHARED = ("ipvlan", "ipvlan6", "vrf", "vrfmac")


def masters_by_log(node: Node) -> set[str]:
    """Who the real keepalived says is master, of those that the nodes share."""
    last: dict[str, str] = {}
    for line in node.said().splitlines():
        for name in SHARED:
            if f"({name}) Entering" in line:
                last[name] = line.partition("Entering ")[2].split()[0]
    return {name for name, state in last.items() if state == "MASTER"}


def states(node: Node) -> dict[str, object]:
    return {name: one["state"] for name, one in node.state().items()}


def play(folder: Path) -> None:
    """The story in the guest: the real one is master until xlvs comes, and again when it is gone."""
    with nodes("wi-vrf", folder) as (one, two):
        prepare(one, two)
        two.start("keepalived", configuration(2))
        until(lambda: masters_by_log(two) == {*SHARED}, "the real one is master")
        one.start("xlvs", configuration(1))
        wanted = {**dict.fromkeys(SHARED, "MASTER"), "nothing": "FAULT"}
        until(lambda: states(one) == wanted, "xlvs has taken over")
        until(lambda: not masters_by_log(two), "the real one gave way")
        found = {link["ifname"]: link for link in json.loads(one.run("ip", "-j", "link"))}
        assert found["vrrp.55"]["master"] == "red"
        assert "10.10.55.1" in one.run("ip", "route", "show", "table", "10")
        heard = {name: state["master"] for name, state in one.state().items()}
        assert heard["ipvlan"] == "10.9.0.61", heard
        assert str(heard["ipvlan6"]).startswith("fe80::"), heard
        assert heard["ipvlan6"] != "fe80::1", heard
        one.stop()
        until(lambda: masters_by_log(two) == {*SHARED}, "the real one is master again")


def test_ipvlans_and_a_vrf_beside_the_real_keepalived() -> None:
    modules = "ipvlan vrf veth macvlan bridge nf_tables nft_dup_ipv4 nft_dup_ipv6"
    done = run_in_guest(f"modprobe -a {modules}; {sys.executable} -m tests.netns.test_vrrp_vrf_guest")
    assert done.status == 0, done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        play(Path(place))
