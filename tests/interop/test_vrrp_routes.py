"""Virtual routes and rules: the kernel has the same ones of us as of the real keepalived."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until

pytestmark = pytest.mark.root

ROUTES = f"""
10.71.0.0/16 dev {INTERFACE}
10.72.0.0/16 dev {INTERFACE} tos 16 mtu 1400 realms 3
10.73.0.0/16 via 10.9.0.9 dev {INTERFACE} metric 5 initcwnd 20
10.74.0.0/16 dev {INTERFACE} scope link src 10.9.71.1
10.75.0.0/16 nexthop via 10.9.0.8 dev {INTERFACE} weight 3 nexthop via 10.9.0.9 dev {INTERFACE}
10.76.0.0/16 dev {INTERFACE} via 10.9.0.9 encap ip id 5 dst 10.9.0.7
10.77.0.0/16 encap ip dst 10.9.0.7 src 10.9.0.1 tos 16 ttl 7 dev {INTERFACE} metric 7
10.78.0.0/16 dev {INTERFACE} encap ip6 id 5 dst fd09::7 src fd09::1 tc 0x10 hoplimit 6
blackhole 10.79.0.0/16
fd71::/64 dev {INTERFACE} metric 9
"""
RULES = """
from 10.71.0.0/16 tos 16 table 7 preference 100
to 10.72.0.0/16 fwmark 0x5/0xff blackhole preference 101
from fd71::/64 table 7 preference 102
"""
CONFIGURATION = f"""
vrrp_instance VI_1 {{
    interface {INTERFACE}
    virtual_router_id 71
    priority 150
    advert_int 1
    virtual_ipaddress {{
        10.9.71.1/24
    }}
    virtual_routes {{{ROUTES}}}
    virtual_rules {{{RULES}}}
}}
"""


def told(node: Node) -> list[str]:
    """What iproute2 shows of routes and rules that are keepalived's."""
    found = [node.run("ip", family, "-d", what) for what in ("route", "rule") for family in ("-4", "-6")]
    lines = re.sub(r"\n\t+", " ", "".join(found)).splitlines()  # next hops stand on lines of their own
    return [" ".join(line.split()) for line in lines if "proto keepalived" in line]


def test_routes_and_rules_are_the_same(tmp_path: Path) -> None:
    seen = {}
    wanted = len([*ROUTES.split("\n"), *RULES.split("\n")]) - 4
    with nodes("wi-routes", tmp_path, count=1) as (node,):
        for program in ("keepalived", "xlvs"):
            node.start(program, CONFIGURATION)
            until(lambda: len(told(node)) == wanted, f"{wanted} routes and rules")
            seen[program] = told(node)
            node.stop()
            assert told(node) == []
    assert seen["xlvs"] == seen["keepalived"]
