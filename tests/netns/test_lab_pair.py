"""``xlvs lab up --pair``: two directors, of which VRRP makes one the master."""

from __future__ import annotations

import pytest

from tests.netns import labs
from xlvs.lab import build, namespaces, pair
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root


@pytest.mark.parametrize("method", [Method.NAT, Method.FULLNAT])
def test_by_the_real_keepalived(method: Method) -> None:
    lab = build.Lab(labs.fresh_name(), method, 2, ipv6=True, local_addresses=2, pair="keepalived")
    build.up(lab)
    try:
        assert pair.masters(lab) == [0]
        for ipv6 in (False, True):
            assert "<h1>RS" in lab.run("client", ["curl", "-gsSm", "10", lab.topology.url(ipv6)])
        again = build.load(lab.name)
        assert again.pair == "keepalived"
        # Each director has its own local addresses, and nothing but its own interfaces' names.
        assert lab.topology.pool() != lab.topology.pool(director=1) or method is Method.NAT
    finally:
        build.down(lab)
    assert not [name for name in lab.namespaces if namespaces.exists(name)]


def test_the_configuration_that_is_written() -> None:
    lab = build.Lab("two", Method.FULLNAT, 2, ipv6=True, local_addresses=300, pair="xlvs")
    lines = [line.strip() for line in pair.configuration(lab, 1)]
    assert {"state BACKUP", "priority 100", "10.1.252.161/32 dev eth0", "lb_kind FNAT"} <= set(lines)
    assert "10.2.17.1-10.2.18.44" in lines  # over the end of a /24
    assert lines.count("laddr_group_name locals6") == 1
    assert lines.count("{") == 0
    assert sum(line.endswith("{") for line in lines) == lines.count("}")
