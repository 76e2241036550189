"""The vrrp child on a node: what it tracks, what a reload leaves alone, what it gives back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until
from xlvs.lab import namespaces

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with nodes("wi-child", tmp_path, count=1) as (one,):
        yield one


def instance(name: str, number: int, *more: str, addresses: tuple[str, ...] = ()) -> str:
    """A version 3 instance of priority 100 with one address, 10.9.NUMBER.1, or these."""
    lines = [f"interface {INTERFACE}", f"virtual_router_id {number}", "priority 100", "version 3"]
    lines += ["advert_int 0.2", *more]
    shared = "\n".join(addresses or (f"10.9.{number}.1/24",))
    return "\n".join([f"vrrp_instance {name} {{", *lines, f"virtual_ipaddress {{\n{shared}\n}}", "}", ""])


def state_is(node: Node, name: str, **wanted: object) -> None:
    """Wait until an instance says this of itself."""

    def so() -> bool:
        known = node.state().get(name, {})
        return all(known.get(key) == value for key, value in wanted.items())

    until(so, f"{name} is {wanted}")


def test_tracked_things_move_the_priority(node: Node, tmp_path: Path) -> None:
    program = tmp_path / "wi-tracked"
    shutil.copy("/bin/sleep", program)
    number = tmp_path / "number"
    good = tmp_path / "good"
    text = f"""
    global_defs {{
    script_user root
    }}
    vrrp_script heavy {{
    script "/usr/bin/test -e {good}"
    interval 1
    weight 20
    rise 1
    fall 1
    }}
    track_file file {{
    file {number}
    weight 2
    init_file 3
    }}
    vrrp_track_process process {{
    process wi-tracked
    weight -5
    }}
    """
    tracked = ("track_script {\nheavy\n}", "track_file {\nfile\n}", "track_process {\nprocess\n}")
    node.start("xlvs", text + instance("VI_1", 51, *tracked))
    # The file says 3, twice; the process does not run.
    state_is(node, "VI_1", state="MASTER", effective_priority=100 + 6 - 5)
    running = subprocess.Popen(namespaces.inside(node.namespace, [str(program), "600"]))
    try:
        state_is(node, "VI_1", effective_priority=100 + 6)
        good.touch()
        state_is(node, "VI_1", effective_priority=100 + 6 + 20)
        number.write_text("-10\n")
        state_is(node, "VI_1", effective_priority=100 - 20 + 20)
    finally:
        running.kill()
        running.wait()
    state_is(node, "VI_1", effective_priority=100 - 20 + 20 - 5)
    number.write_text("-200\n")  # times two: more than any priority
    state_is(node, "VI_1", state="FAULT")
    assert "10.9.51.1" not in node.addresses()
    number.write_text("0\n")
    state_is(node, "VI_1", state="MASTER", effective_priority=100 + 20 - 5)


def test_a_script_without_weight_decides_before_the_beginning(node: Node, tmp_path: Path) -> None:
    good = tmp_path / "good"
    text = f"""
    global_defs {{
    script_user root
    }}
    vrrp_script needed {{
    script "/usr/bin/test -e {good}"
    interval 1
    fall 2
    rise 2
    }}
    """
    node.start("xlvs", text + instance("VI_1", 51, "track_script {\nneeded\n}") + instance("VI_2", 52))
    state_is(node, "VI_1", state="FAULT")
    state_is(node, "VI_2", state="MASTER")
    good.touch()
    state_is(node, "VI_1", state="MASTER")
    good.unlink()
    state_is(node, "VI_1", state="FAULT")
    assert node.state()["VI_2"]["counters"]["became_master"] == 1  # type: ignore[index]


def test_a_reload_leaves_alone_what_did_not_change(node: Node) -> None:
    node.start("xlvs", instance("VI_1", 51) + instance("VI_2", 52) + instance("VI_3", 53))
    for name in ("VI_1", "VI_2", "VI_3"):
        state_is(node, name, state="MASTER")
    sockets = _sockets(node)
    more = ("10.9.52.1/24", "10.9.52.2/24")
    node.reload(instance("VI_1", 51) + instance("VI_2", 52, addresses=more) + instance("VI_4", 54))
    state_is(node, "VI_4", state="MASTER")
    after = node.state()
    for name in ("VI_1", "VI_2"):
        counters = after[name]["counters"]
        assert isinstance(counters, dict)
        assert (counters["became_master"], counters["released_master"]) == (1, 0), name
    assert {"10.9.51.1", "10.9.52.1", "10.9.52.2", "10.9.54.1"} <= node.addresses()
    assert "10.9.53.1" not in node.addresses()
    assert _sockets(node) == sockets
    node.reload(instance("VI_1", 51) + instance("VI_2", 52, addresses=more[1:]))
    until(lambda: not {"10.9.52.1", "10.9.54.1"} & node.addresses(), "what is not wanted goes")
    assert {"10.9.51.1", "10.9.52.2"} <= node.addresses()
    assert node.state().keys() == {"VI_1", "VI_2"}


def _sockets(node: Node) -> str:
    """The raw sockets with their inodes: one that was opened anew has another."""
    return node.run("ss", "--raw", "-a", "-e", "-n", "-H").replace("\n", " ").split("users")[0]


def test_everything_is_given_back(node: Node) -> None:
    before = _everything(node)
    more = [
        "use_vmac",
        "no_accept",
        "promote_secondaries",
        f"virtual_ipaddress_excluded {{\nfd09:51::1/64\n10.9.51.9/24 dev {INTERFACE}\n}}",
        f"virtual_routes {{\n10.77.0.0/16 via 10.9.0.200 dev {INTERFACE}\nfd77::/64 via fd09::9\n}}",
        "virtual_rules {\nfrom 10.78.0.0/16 table 100 preference 4000\n}",
    ]
    static = f"static_ipaddress {{\n10.66.0.1/24 dev {INTERFACE}\n}}\n"
    static += f"static_routes {{\n10.67.0.0/16 via 10.66.0.9 dev {INTERFACE}\n}}\n"
    node.start("xlvs", static + instance("VI_1", 51, *more))
    state_is(node, "VI_1", state="MASTER")
    until(lambda: "10.9.51.9 } drop" in node.run("nft", "list", "ruleset"), "the filter is there")
    until(lambda: "10.78.0.0/16" in node.run("ip", "rule"), "routes and rules are there")
    during = _everything(node)
    for word in ("vrrp.51", "00:00:5e:00:01:33", "fd09:51::1", "10.9.51.9", "10.77.0.0/16", "fd77::/64"):
        assert word in during, word
    for word in ("10.66.0.1", "10.67.0.0/16"):
        assert word in during, word
    node.stop()
    assert _everything(node) == before


def _everything(node: Node) -> str:
    shown = [
        node.run("ip", "-o", family, what) for family in ("-4", "-6") for what in ("addr", "route", "rule")
    ]
    links = json.loads(node.run("ip", "-j", "link"))
    shown += [f"{link['ifname']} {link['address']}" for link in links]
    shown += [
        node.run("sysctl", f"net.ipv4.conf.{INTERFACE}.{name}") for name in ("arp_ignore", "arp_filter")
    ]
    return "\n".join([*shown, node.run("nft", "list", "ruleset")])
