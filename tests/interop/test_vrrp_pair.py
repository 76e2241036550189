"""xlvs and the real keepalived as one pair: every form of VRRP at once, each a router of its own.

Whoever begins, the higher one takes over, and the lower one gets everything back when that one
leaves; neither refuses a packet of the other, and tshark finds nothing to say about any.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until
from xlvs.lab import namespaces

pytestmark = pytest.mark.root

LOW, HIGH = 100, 150
_UNICAST = "unicast_src_ip {net}{own}\nunicast_peer {{\n{net}{other}\n}}"
_UNICAST4, _UNICAST6 = (_UNICAST.replace("{net}", net) for net in ("10.9.0.", "fd09::"))
_FAST = "version 3\nadvert_int 0.9"
# What each instance has besides the common lines; {own} and {other} are the nodes' numbers.
FORMS = {
    "v2": "",
    "v2pass": "authentication {\nauth_type PASS\nauth_pass secret\n}",
    "v2ah": "authentication {\nauth_type AH\nauth_pass secret\n}",
    "v2unicast": _UNICAST4,
    "v3": _FAST,
    "v3unicast": f"{_FAST}\n{_UNICAST4}",
    "v3vmac": f"{_FAST}\nuse_vmac",
    "v6": _FAST,
    "v6vmac": f"{_FAST}\nuse_vmac",
    "v6unicast": f"{_FAST}\n{_UNICAST6}",
}
# keepalived's words about packets that it does not believe.
REFUSALS = re.compile(r"invalid|bogus|mismatch|incorrect|dropped|not expected|unknown|wrong", re.IGNORECASE)


def configuration(own: int, other: int, priority: int) -> str:
    """A keepalived.conf with one instance a form."""
    lines = ["global_defs {", f"router_id node{own}", "}"]
    for number, (name, more) in enumerate(FORMS.items(), 51):
        text = more.format(own=own, other=other) if "{own}" in more else more
        addresses = [f"10.9.{number}.1/24"]
        if name.startswith("v6"):
            addresses = [f"fe80::{number}/64", f"fd09:{number}::1/64"]
        lines += [
            f"vrrp_instance {name} {{",
            "state BACKUP",
            f"interface {INTERFACE}",
            f"virtual_router_id {number}",
            f"priority {priority}",
            text,
            "virtual_ipaddress {",
            *addresses,
            "}",
            "}",
        ]
    return "\n".join([*lines, ""])


def virtual() -> set[str]:
    """All addresses that the pair shares."""
    six = [f for f in FORMS if f.startswith("v6")]
    numbers = {name: number for number, name in enumerate(FORMS, 51)}
    four = {f"10.9.{number}.1" for name, number in numbers.items() if name not in six}
    return four | {a for name in six for a in (f"fe80::{numbers[name]}", f"fd09:{numbers[name]}::1")}


def has_all(node: Node) -> bool:
    return virtual() <= node.addresses()


def has_none(node: Node) -> bool:
    return not virtual() & node.addresses()


@pytest.mark.parametrize("order", [("xlvs", "keepalived"), ("keepalived", "xlvs")], ids=" then ".join)
def test_every_form_with_the_real_keepalived(order: tuple[str, str], tmp_path: Path) -> None:
    with nodes("wi-vrrp", tmp_path) as (one, two):
        capture = tmp_path / "capture.pcap"
        sniffer = subprocess.Popen(
            namespaces.inside(one.namespace, ["tcpdump", "-U", "-s0", "-i", INTERFACE, "-w", str(capture)]),
            stderr=subprocess.DEVNULL,
        )
        try:
            until(capture.exists, "tcpdump writes")
            low, high = one, two
            low.start(order[0], configuration(1, 2, LOW))
            until(lambda: has_all(low), "the first node is master of all, alone")
            high.start(order[1], configuration(2, 1, HIGH))
            until(lambda: has_all(high) and has_none(low), "the higher one took all over")
            time.sleep(2.2)  # adverts of each form after the takeover
            until(lambda: has_all(high) and has_none(low), "the higher one keeps all")
            ours = low if order[0] == "xlvs" else high
            theirs = high if ours is low else low
            wanted = "MASTER" if ours is high else "BACKUP"
            until(lambda: {one["state"] for one in ours.state().values()} == {wanted}, f"all are {wanted}")
            for name, state in ours.state().items():
                counters = state["counters"]
                assert isinstance(counters, dict)
                assert counters["refused"] == {}, (name, counters)
                assert counters["received" if ours is low else "sent"], name
            high.stop()
            until(lambda: has_all(low) and has_none(high), "the first node has all back")
            low.stop()
            assert has_none(low)
            assert has_none(high)
        finally:
            sniffer.terminate()
            sniffer.wait()
        refused = [line for line in theirs.said().splitlines() if "(v" in line and REFUSALS.search(line)]
        assert not refused, refused
        _decoded(capture)


def _decoded(capture: Path) -> None:
    """Both nodes' adverts of all forms are there, and tshark has no doubt about any of them."""
    adverts = _tshark(capture, "vrrp", "-T", "fields", "-e", "eth.src", "-e", "vrrp.virt_rtr_id")
    seen = {tuple(line.split()) for line in adverts.splitlines()}
    routers = {router for _, router in seen}
    assert routers == {str(number) for number in range(51, 51 + len(FORMS))}
    doubts = "(vrrp || ah || arp || icmpv6 || igmp) && _ws.expert.severity >= warning"
    doubts += " && !arp.duplicate-address-detected"  # what a takeover is
    assert _tshark(capture, doubts) == ""


def _tshark(capture: Path, chosen: str, *fields: str) -> str:
    return subprocess.run(
        ["tshark", "-r", str(capture), "-Y", chosen, *fields],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
