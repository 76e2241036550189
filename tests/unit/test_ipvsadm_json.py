"""Listings as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from tests.unit.ipvsadm_console import Console
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.model import AF_INET, L4, ConnectionEntry, Counters, Rates

NOTHING = {"connections": 0, "in_packets": 0, "out_packets": 0, "in_bytes": 0, "out_bytes": 0}


def document(console: Console, command: str) -> Any:
    assert console.run(command) == 0, console.err
    assert console.err == ""
    return json.loads(console.out)


def test_services_and_destinations() -> None:
    console = Console(MemoryDataPlane(size=1 << 20))
    console.run("-A -t 10.0.0.1:80 -s sh -b sh-port -p 60 -M 255.255.255.0")
    console.run("-a -t 10.0.0.1:80 -r [2001:db8::2] -i --tun-type gue --tun-port 6080")
    console.run("-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3 -x 9 -y 4")
    console.run("-a -t 10.0.0.1:80 -r 2001:db8::2 -i --tun-type gue --tun-port 6080 --tun-csum")
    console.run("-A -f 7 -6 -s rr")
    entry = next(one for one in console.plane.services() if not one.service.key.fwmark)
    console.plane.observe(entry.service.key, counters=Counters(1, 2, 3, 4, 2**40), rates=Rates(5, 6, 7, 8, 9))
    nat = next(one for one in entry.destinations if one.destination.weight == 3)
    seen = partial(replace, active=11, inactive=12, persistent=13, counters=Counters(2**40, 2, 3, 4, 5))
    console.plane.observe(entry.service.key, seen, nat.destination.key)

    answer = document(console, "-L --json")
    assert (answer["version"], answer["size"]) == ("1.2.1", 1 << 20)
    service, marked = answer["services"]
    assert marked["fwmark"] == 7
    assert (marked["family"], marked["protocol"], marked["address"], marked["port"]) == (
        "ipv6",
        None,
        None,
        None,
    )
    assert marked["persistence"] is None
    servers = service.pop("destinations")
    assert service == {
        "protocol": "tcp",
        "family": "ipv4",
        "address": "10.0.0.1",
        "port": 80,
        "fwmark": None,
        "scheduler": "sh",
        "scheduler_flags": ["flag-2"],
        "one_packet": False,
        "persistence": {"timeout": 60, "netmask": "255.255.255.0", "engine": None},
        "synproxy": "off",
        "client_address": "default",
        "local_addresses": [],
        "counters": {
            "connections": 1,
            "in_packets": 2,
            "out_packets": 3,
            "in_bytes": 4,
            "out_bytes": 2**40,
        },
        "rates": {"connections": 5, "in_packets": 6, "out_packets": 7, "in_bytes": 8, "out_bytes": 9},
    }
    by_address = {one["address"]: one for one in servers}
    assert by_address["10.1.0.1"] == {
        "family": "ipv4",
        "address": "10.1.0.1",
        "port": 8080,
        "forward": "nat",
        "weight": 3,
        "upper_threshold": 9,
        "lower_threshold": 4,
        "tunnel": None,
        "active_connections": 11,
        "inactive_connections": 12,
        "persistent_connections": 13,
        "counters": {
            "connections": 2**40,
            "in_packets": 2,
            "out_packets": 3,
            "in_bytes": 4,
            "out_bytes": 5,
        },
        "rates": NOTHING,
    }
    assert by_address["2001:db8::2"]["tunnel"] == {"type": "gue", "port": 6080, "flags": 1}


def test_one_service_only() -> None:
    console = Console()
    console.run("-A -t 10.0.0.1:80 -s rr")
    console.run("-A -t 10.0.0.2:80 -s rr")
    services = document(console, "-L --json -t 10.0.0.2:80")["services"]
    assert [one["address"] for one in services] == ["10.0.0.2"]
    assert console.run("-L --json -t 10.0.0.3:80") == 1
    assert (console.out, console.err) == ("", "No such service\n")


def test_connections() -> None:
    console = Console()
    client, virtual, server = (bytes((10, 0, 0, last)) for last in (1, 2, 3))
    console.plane.connection_entries = [
        ConnectionEntry(
            AF_INET, L4.UDP, client, 1024, virtual, 53, AF_INET, server, 5353, "UDP", 12.3456, in_packets=7
        )
    ] * 2
    connections = document(console, "-L -c --json")["connections"]
    assert (
        connections
        == [
            {
                "protocol": "udp",
                "state": "UDP",
                "expires": 12.346,
                "client": "10.0.0.1",
                "client_port": 1024,
                "virtual": "10.0.0.2",
                "virtual_port": 53,
                "local": None,
                "local_port": None,
                "destination": "10.0.0.3",
                "destination_port": 5353,
                "template": False,
                "persistence_engine": None,
                "persistence_data": None,
                "in_packets": 7,
            }
        ]
        * 2
    )


def test_the_rest_and_nothing_at_all() -> None:
    console = Console()
    assert document(console, "-L --json") == {"version": "1.2.1", "size": 4096, "services": []}
    assert document(console, "-L -c --json") == {"connections": []}
    assert document(console, "-L --timeout --json") == {"timeouts": {"tcp": 900, "tcp_fin": 120, "udp": 300}}
    assert document(console, "-L --daemon --json") == {"daemons": []}


def test_json_is_for_listings_only() -> None:
    console = Console()
    assert console.run("-S --json") == 2
    assert console.err == "Illegal 'json' option with the 'save' command\n"
