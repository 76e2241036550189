"""Where packets leave: the kernel's own routing, asked in a namespace that has some."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server, split_metadata
from tests.packet.frames import UDP, Datagram, ethernet
from xlvs.dataplane import layout, libbpf
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
MAC = {"in": "02:00:00:00:19:01", "out": "02:00:00:00:09:01", "server": "02:00:00:00:19:0b"}
MAC |= {"router": "02:00:00:00:09:fe", "other": "02:00:00:00:19:ff"}
META_MAGIC = 0x786C7673  # XLVS_META_MAGIC
families = pytest.mark.parametrize("family", [4, 6])


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys/net", name).write_text(value)


def mac(name: str) -> bytes:
    return bytes.fromhex(MAC[name].replace(":", ""))


@pytest.fixture
def routed(own_network: None, director: Director) -> Director:
    """A director with two veth devices, routes and neighbours; XDP may transmit on both."""
    sysctl("ipv4/ip_forward", "1")
    sysctl("ipv6/conf/all/forwarding", "1")
    sysctl("ipv6/conf/default/accept_dad", "0")
    ip(
        "link set lo up",
        f"link add in address {MAC['in']} type veth peer in1",
        f"link add out address {MAC['out']} type veth peer out1",
        *(f"link set {name} up" for name in ("in", "in1", "out", "out1")),
        "address add 10.19.0.1/24 dev in",
        "address add fd19::1/64 dev in nodad",
        "address add 10.9.0.1/24 dev out",
        "address add fd09::1/64 dev out nodad",
        "route add default via 10.9.0.254",
        "route add default via inet6 fd09::254",
    )
    for name, address, machine in (
        ("out", "10.9.0.254", "router"),
        ("out", "fd09::254", "router"),
        ("in", RIP[4], "server"),
        ("in", RIP[6], "server"),
    ):
        ip(f"neighbour add {address} lladdr {MAC[machine]} dev {name} nud permanent")
    for name in ("in", "out"):
        put_port(director, name)
    director.cached = False
    for family in (4, 6):
        director.service(VIP[family], UDP, [Server(RIP[family], 8080)])
    return director


def put_port(director: Director, name: str, **fields: int) -> None:
    row = layout.PortRow(flags=layout.PORT_XDP, **fields)
    libbpf.update(director.tables.fd("ports"), socket.if_nametoindex(name).to_bytes(4, "little"), bytes(row))


def request(family: int, **fields: object) -> Datagram:
    return replace(Datagram(CLIENT[family], VIP[family]), **fields)  # type: ignore[arg-type]


def translated(family: int, machine: str = "server") -> bytes:
    asked = replace(request(family), target=RIP[family], dport=8080, ttl=63)
    return ethernet(asked.packet(), mac(machine), mac("in"))


def answer(family: int) -> Datagram:
    return Datagram(RIP[family], CLIENT[family], 8080, 40000)


def next_look(director: Director) -> None:
    """Wait until a cached hop is looked up again: a tenth of a second."""
    director.tables.settings.hop_fresh = 10  # of a hundred a second, or more
    time.sleep(0.15)


@families
def test_the_kernel_says_where(routed: Director, family: int) -> None:
    assert routed.run(request(family).frame()) == (XDP_REDIRECT, translated(family))
    said = answer(family)
    wanted = replace(said, source=VIP[family], sport=80, ttl=63)
    after = ethernet(wanted.packet(), mac("router"), mac("out"))
    assert routed.run(said.frame()) == (XDP_REDIRECT, after)
    row = routed.tables.dest_row(routed.dest_number(RIP[family]))
    assert (row.hop.ifindex, row.hop.mtu) == (socket.if_nametoindex("in"), 1500)
    (conn,) = routed.connections()
    assert conn.back.ifindex == socket.if_nametoindex("out")


@families
def test_a_neighbour_that_moved_is_noticed(routed: Director, family: int) -> None:
    routed.exchange(request(family).frame())
    ip(f"neighbour replace {RIP[family]} lladdr {MAC['other']} dev in nud permanent")
    next_look(routed)
    assert routed.run(request(family).frame()) == (XDP_REDIRECT, translated(family, "other"))


@families
def test_a_neighbour_not_known_yet_is_the_companions_work(routed: Director, family: int) -> None:
    ip(f"neighbour del {RIP[family]} dev in")
    verdict, after = routed.run(request(family).frame())
    assert verdict == XDP_PASS
    assert split_metadata(after) == (META_MAGIC, request(family).frame())
    assert routed.counted() == {"handed_neighbour": 1}
    # Once it is known, it is not the companion's any more, without waiting.
    ip(f"neighbour replace {RIP[family]} lladdr {MAC['server']} dev in nud permanent")
    time.sleep(0.02)
    assert routed.run(request(family).frame()) == (XDP_REDIRECT, translated(family))


@families
def test_a_device_that_xdp_cannot_send_on_is_the_companions_work(routed: Director, family: int) -> None:
    libbpf.delete(routed.tables.fd("ports"), socket.if_nametoindex("in").to_bytes(4, "little"))
    verdict, after = routed.run(request(family).frame())
    assert verdict == XDP_PASS
    assert split_metadata(after) == (META_MAGIC, request(family).frame())
    assert routed.counted() == {"handed_device": 1}


@families
def test_a_vlan_device_is_its_parent_and_tags(routed: Director, family: int) -> None:
    """What user space writes for VLAN devices: native XDP cannot redirect to them."""
    row = layout.PortRow(flags=layout.PORT_XDP, parent=socket.if_nametoindex("out"), tags=2)
    row.vlan[0], row.vlan[1] = socket.htons(100), socket.htons(200)
    libbpf.update(routed.tables.fd("ports"), socket.if_nametoindex("in").to_bytes(4, "little"), bytes(row))
    asked = replace(request(family), target=RIP[family], dport=8080, ttl=63)
    wanted = ethernet(asked.packet(), mac("server"), mac("in"), (100, 200))
    assert routed.run(request(family).frame()) == (XDP_REDIRECT, wanted)


@families
def test_no_route(routed: Director, family: int) -> None:
    ip(f"route add unreachable {RIP[family]}")
    assert routed.run(request(family).frame())[0] == XDP_DROP
    assert routed.counted() == {"drop_no_route": 1}


def test_forwarding_switched_off(routed: Director) -> None:
    """lo is where a test run's packets come in: its own switch counts."""
    sysctl("ipv4/ip_forward", "0")
    assert routed.run(request(4).frame())[0] == XDP_DROP
    assert routed.counted() == {"drop_forwarding_off": 1}


@families
def test_a_smaller_mtu_of_the_route_counts(routed: Director, family: int) -> None:
    """A locked one, that is: the kernel forwards without regard to others (ip_forward_use_pmtu)."""
    ip(f"route add {RIP[family]} dev in mtu lock 1300")
    assert routed.run(request(family, payload=bytes(1300)).frame())[0] == XDP_REDIRECT
    assert routed.counted() == {"drop_too_big": 1}


def test_trains_of_segments_go_to_the_companion(routed: Director) -> None:
    """In generic mode a packet longer than anything on the wire has not been cut yet."""
    row = layout.PortRow(flags=layout.PORT_XDP | layout.PORT_GENERIC, mtu=1500)
    libbpf.update(routed.tables.fd("ports"), (1).to_bytes(4, "little"), bytes(row))
    frame = request(4, payload=bytes(3000)).frame()
    verdict, after = routed.run(frame)
    assert verdict == XDP_PASS
    assert split_metadata(after) == (META_MAGIC, frame)
    assert routed.counted() == {"handed_segments": 1}


def test_a_tunnel_has_a_source(routed: Director) -> None:
    """The transaction asks the machine for it: here a fake, so that it is the one in the row."""
    routed.service("10.80.0.2", UDP, [Server(RIP[4], method=Forward.TUNNEL)])
    routed.exchange(request(4, target="10.80.0.2").frame())
    assert routed.counted() == {"forwarded": 1}
