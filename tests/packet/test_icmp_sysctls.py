"""nat_icmp_send and schedule_icmp: what real servers are told, and what errors may begin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import XDP_DROP, XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import CLIENT_MAC, DIRECTOR_MAC, TCP, UDP, Datagram, ethernet, icmp_error
from tests.packet.test_icmp import CLIENT, FAR, PORT, RIP, VIP, error, link, quoted_as
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import swap16
from xlvs.model import Forward

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
DIP = {4: "10.19.0.1", 6: "fd19::1"}
UNREACHABLE = {4: (3, 3), 6: (1, 4)}


def icmp_send(director: Director, value: str = "1") -> None:
    change = director.transaction()
    change.set_sysctl("nat_icmp_send", value)
    director.tables.apply(change.changes())


def said(family: int, protocol: int, flags: str = "PA", port: int = PORT) -> Datagram:
    return Datagram(RIP[family], CLIENT[family], port, 50000, protocol=protocol, flags=flags)


@families
@protocols
@pytest.mark.parametrize("first", [True, False])
def test_a_server_that_nobody_knows_is_told(
    director: Director, family: int, protocol: int, first: bool
) -> None:
    if first:
        icmp_send(director)
    director.service(VIP[family], protocol, [Server(RIP[family], PORT)])
    if not first:
        icmp_send(director)
    spoken = said(family, protocol)
    quote = replace(spoken, ttl=63).packet()
    want = icmp_error(DIP[family], RIP[family], *UNREACHABLE[family], 0, quote)
    assert director.run(spoken.frame()) == (XDP_REDIRECT, ethernet(want, CLIENT_MAC, DIRECTOR_MAC))
    assert director.counted() == {"drop_unknown_answer": 1}


@families
def test_others_are_the_kernels(director: Director, family: int) -> None:
    """Resets, other ports and addresses, servers by other methods; and all where it is off."""
    director.service(VIP[family], TCP, [Server(RIP[family], PORT)])
    far = RIP[family] + "2"
    director.service(VIP[family], TCP, [Server(far, 81, Forward.ROUTE)], port=81)
    icmp_send(director)
    strangers = [
        said(family, TCP, "R"),
        said(family, TCP, "RA"),
        said(family, TCP, port=PORT + 1),
        said(family, UDP),
        replace(said(family, TCP), source=far, sport=81),
    ]
    for spoken in strangers:
        assert director.run(spoken.frame()) == (XDP_PASS, spoken.frame())
    icmp_send(director, "0")
    frame = said(family, TCP).frame()
    assert director.run(frame) == (XDP_PASS, frame)
    assert director.counted() == {"not_ours": len(strangers) + 1}


def test_a_server_that_left_is_forgotten(director: Director) -> None:
    key = director.service(VIP[4], TCP, [Server(RIP[4], PORT)])
    other = director.service(VIP[4], TCP, [Server(RIP[4], PORT)], port=81)
    icmp_send(director)
    for each, verdict in ((key, XDP_REDIRECT), (other, XDP_PASS)):
        director.remove(each, Server(RIP[4], PORT))
        assert director.run(said(4, TCP).frame())[0] == verdict
    addresses = director.tables.fd("addresses")
    assert len(list(libbpf.keys(addresses, 20))) == 1  # the VIP


def schedule(director: Director) -> None:
    director.tables.settings.sysctl.schedule_icmp = 1


@families
@protocols
def test_an_error_about_nothing_known_makes_a_connection(
    director: Director, family: int, protocol: int
) -> None:
    director.service(VIP[family], protocol, [Server(RIP[family], PORT)])
    answered = Datagram(VIP[family], CLIENT[family], 80, 40000, protocol=protocol, flags="PA")
    quote = answered.packet()
    frame = link(error(FAR[family], VIP[family], *UNREACHABLE[family], 0, quote))
    assert director.run(frame) == (XDP_PASS, frame)
    schedule(director)
    told = quoted_as(
        replace(answered, source=RIP[family], sport=PORT).packet(), quote, 16 if protocol == TCP else 6
    )
    for _ in range(2):
        verdict, after = director.run(frame)
        if verdict != XDP_REDIRECT:  # a way that nobody has asked for yet: a new connection's
            verdict, after = director.run(frame)
        assert verdict == XDP_REDIRECT
        assert after[14:] == error(FAR[family], RIP[family], *UNREACHABLE[family], 0, told, ttl=63)
    (connection,) = director.connections()
    assert connection.state & 0xFF == 0  # NONE
    assert connection.timeout == 3 * director.tables.settings.hz
    assert connection.in_packets == 0
    assert director.tables.counter_sums(layout.ROW_SERVICE)[0] == 1


@families
def test_without_a_server_errors_are_not_answered(director: Director, family: int) -> None:
    director.service(VIP[family], UDP, [])
    schedule(director)
    quote = Datagram(VIP[family], CLIENT[family], 80, 40000).packet()
    frame = link(error(FAR[family], VIP[family], *UNREACHABLE[family], 0, quote))
    assert director.run(frame)[0] == XDP_DROP
    assert director.counted() == {"drop_no_destination": 1}
    # Others still are.
    asked = Datagram(CLIENT[family], VIP[family])
    assert director.run(asked.frame())[0] == XDP_REDIRECT


@families
def test_errors_for_no_service_are_the_kernels(director: Director, family: int) -> None:
    schedule(director)
    quote = Datagram(VIP[family], CLIENT[family], 80, 40000).packet()
    frame = link(error(FAR[family], VIP[family], *UNREACHABLE[family], 0, quote))
    assert director.run(frame) == (XDP_PASS, frame)
    assert director.connections() == []


# What IPVS (Linux 6.1.192) chose among servers 1 to 5 for errors to twelve clients, one each: dh and
# lblc take the client for the target, since the packet that an error quotes went the other way.
CHOSEN_FOR_ERRORS = {
    "dh": [5, 5, 4, 3, 3, 1, 5, 5, 4, 3, 3, 1],
    "sh": [5, 5, 4, 3, 3, 1, 5, 5, 4, 3, 3, 1],
    "lblc": [5, 3, 2, 1, 5, 3, 2, 1, 5, 3, 2, 1],
}


@pytest.mark.parametrize(("scheduler", "wanted"), CHOSEN_FOR_ERRORS.items())
def test_whom_errors_are_scheduled_to(director: Director, scheduler: str, wanted: list[int]) -> None:
    director.service("10.80.9.1", UDP, [Server(f"10.19.1.{n}", 80) for n in range(1, 6)], scheduler)
    schedule(director)
    chosen = []
    for number in range(12):
        client = f"11.{number * 17}.3.{number * 5 + 1}"
        own = Datagram(client, "10.80.9.1", 6000 + number)
        quote = Datagram("10.80.9.1", client, 80, 5000 + number).packet()
        director.run(link(error(FAR[4], "10.80.9.1", 3, 1, 0, quote)))
        director.run(own.frame())
        (about,) = [row for row in director.connections() if swap16(row.cport) == 5000 + number]
        chosen.append(bytes(about.daddr)[3])
    assert chosen == wanted
