"""A local address counts the ports that were tried for a connection and were taken."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.packet.director import Director, Server
from tests.packet.frames import Datagram
from xlvs.model import Forward

VIP, SERVER, POOL = "10.80.0.1", "10.19.0.11", ("10.19.5.1", "10.19.5.2")


@pytest.fixture
def fullnat(director: Director) -> Director:
    """Two addresses of one port each."""
    key = director.service(VIP, 6, [Server(SERVER, method=Forward.FULLNAT)])
    change = director.transaction()
    change.add_local_addresses(key, [ip_address(each).packed for each in POOL])
    director.tables.apply(change.changes())
    settings = director.tables.settings
    settings.sysctl.local_port_low = settings.sysctl.local_port_high = 5000
    return director


def ask(director: Director, number: int) -> None:
    director.run(
        Datagram(source=f"198.18.9.{number}", target=VIP, sport=1024, dport=80, protocol=6, flags="S").frame()
    )


def conflicts(director: Director) -> list[int]:
    word = director.tables.service_row(0).locals[0]
    return [int(each.conflicts) for each in director.tables.local_rows(word & 0xFFFFFFFF, word >> 32)]


def test_taken_ports_are_counted(fullnat: Director) -> None:
    ask(fullnat, 1)
    ask(fullnat, 2)
    assert sorted(row.laddr[3] for row in fullnat.connections()) == [1, 2]
    before = conflicts(fullnat)  # another CPU may have begun with the same address
    ask(fullnat, 3)
    assert conflicts(fullnat) == [each + 1 for each in before]
    assert fullnat.counted()["drop_no_local"] == 1
