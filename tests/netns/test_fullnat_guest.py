"""FULLNAT from end to end on Debian's 6.1: the same tests, those that differ between kernels.

The guest emulates every instruction, some thirty times as slow: there are 1,000 connections of each
family compared byte for byte, where this machine takes 6,000, 1,000 at once through one local address
for 20,000, 3,000 while addresses come and go for 200,000, and 50 honest requests beside a flood for
1,000 (tests/scale.py). What is looked at is the same.
"""

from __future__ import annotations

import sys

import pytest

from bench.build import compiled
from tests.guest import run_in_guest
from tests.netns import crowd

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

CHOSEN = (
    "test_fullnat_lab.py::test_nginx_logs_the_clients_own_address_and_port[IPv4]",
    "test_fullnat_lab.py::test_nginx_logs_the_clients_own_address_and_port[IPv6]",
    "test_fullnat_lab.py::test_the_listings_tell",
    "test_fullnat_streams.py::test_ten_thousand_connections_byte_for_byte[IPv4]",
    "test_fullnat_streams.py::test_ten_thousand_connections_byte_for_byte[IPv6]",
    "test_fullnat_streams.py::test_behind_cookies_no_byte_is_lost[-IPv4]",
    "test_fullnat_streams.py::test_both_ends_close_at_the_same_time",
    "test_fullnat_pool.py::test_one_address_and_twenty_thousand_connections_at_once",
    "test_fullnat_pool.py::test_addresses_come_and_go_under_two_hundred_thousand_connections",
    "test_flood.py::test_spoofed_syns_reach_no_real_server[fullnat]",
    "test_flood.py::test_stray_segments_reach_no_real_server[fullnat-ACK-]",
    "test_flood.py::test_stray_segments_reach_no_real_server[fullnat-RST-tcp_drop_entry]",
    "test_forged.py::test_who_claims_to_be_another_is_known_as_himself[IPv4]",
    "test_forged.py::test_who_claims_to_be_another_is_known_as_himself[IPv6]",
    "test_forged.py::test_where_nobody_is_told_a_claim_is_not_believed_either[IPv4]",
    "test_forged.py::test_other_ways_in[fragments-IPv4]",
    "test_forged.py::test_other_ways_in[extension-IPv6]",
    "test_forged.py::test_malformed_options_break_nothing[IPv6]",
)


@pytest.mark.timeout(1500)
def test_on_6_1() -> None:
    # Compiled here, where it is quick.
    crowd.program()
    compiled("traffic")
    names = " ".join(f"'tests/netns/{name}'" for name in CHOSEN)
    command = f"modprobe -a veth bridge && {sys.executable} -m pytest -q -p no:cacheprovider {names}"
    done = run_in_guest(command, timeout=1440)
    assert done.status == 0, done.stdout + done.stderr
    assert f"{len(CHOSEN)} passed" in done.stdout
