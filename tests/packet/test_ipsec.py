"""AH and ESP follow the IKE connection of their addresses, as recorded of real IPVS, and only that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import (
    INSIDE_MAC,
    OUTSIDE_MAC,
    ROUTER_MAC,
    SERVER_MAC,
    XDP_PASS,
    XDP_REDIRECT,
    Director,
    Server,
)
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, IP_IN_IP, UDP, Datagram, ethernet, ip
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP = {4: "10.80.0.1", 6: "fd80::1"}
CLIENT = {4: "198.18.0.1", 6: "fd18::1"}
RIP = {4: "10.19.0.11", 6: "fd19::11"}
DIP = {4: "10.19.0.1", 6: "fd19::1"}
ESP, AH = 50, 51
BODY = bytes(range(3, 27))
# IPv6 takes AH for an extension header, in the kernel as here.
cases = pytest.mark.parametrize(("family", "protocol"), [(4, ESP), (4, AH), (6, ESP)])


def ike(family: int, **fields: object) -> Datagram:
    asked = Datagram(CLIENT[family], VIP[family], 500, 500, UDP, payload=b"IKE")
    return replace(asked, **fields)  # type: ignore[arg-type]


def serve(director: Director, family: int, method: Forward, port: int = 500) -> None:
    director.service(VIP[family], UDP, [Server(RIP[family], port, method)], port=500)


def frame(family: int, protocol: int, source: str, target: str) -> bytes:
    return ethernet(ip(source, target, protocol, BODY), DIRECTOR_MAC, CLIENT_MAC)


@cases
@pytest.mark.parametrize("port", [500, 4500])
def test_nat_changes_the_addresses_only(director: Director, family: int, protocol: int, port: int) -> None:
    serve(director, family, Forward.MASQ, port)
    director.exchange(ike(family).frame())
    (conn,) = director.connections()
    before = conn.in_packets, conn.timeout, conn.state
    inward = ip(CLIENT[family], RIP[family], protocol, BODY, ttl=63)
    assert director.run(frame(family, protocol, CLIENT[family], VIP[family])) == (
        XDP_REDIRECT,
        ethernet(inward, SERVER_MAC, INSIDE_MAC),
    )
    assert (conn.in_packets, conn.timeout, conn.state) == (before[0] + 1, *before[1:])
    answer = frame(family, protocol, RIP[family], CLIENT[family])
    if port != 500:  # the server's IKE is at another port: the answer's connection is not found
        assert director.run(answer) == (XDP_PASS, answer)
        return
    outward = ip(VIP[family], CLIENT[family], protocol, BODY, ttl=63)
    assert director.run(answer) == (XDP_REDIRECT, ethernet(outward, ROUTER_MAC, OUTSIDE_MAC))


@cases
def test_direct_routing_and_tunnels(director: Director, family: int, protocol: int) -> None:
    asked = ip(CLIENT[family], VIP[family], protocol, BODY, ttl=63)
    outer = ip(DIP[family], RIP[family], IP_IN_IP[family], asked, ttl=63)
    for method, wanted in ((Forward.ROUTE, asked), (Forward.TUNNEL, outer)):
        director.reset()
        serve(director, family, method)
        director.exchange(ike(family).frame())
        sent = frame(family, protocol, CLIENT[family], VIP[family])
        assert director.run(sent) == (XDP_REDIRECT, ethernet(wanted, SERVER_MAC, INSIDE_MAC))


@cases
def test_without_ike_they_are_the_kernels(director: Director, family: int, protocol: int) -> None:
    serve(director, family, Forward.ROUTE)
    sent = frame(family, protocol, CLIENT[family], VIP[family])
    assert director.run(sent) == (XDP_PASS, sent)
    # NAT traversal, another port, another client: not IKE's connection.
    director.run(ike(family, sport=4500).frame())
    assert director.run(sent) == (XDP_PASS, sent)
    assert director.counted()["not_ours"] == 2
    assert len(director.connections()) == 1
