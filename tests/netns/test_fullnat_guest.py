"""FULLNAT from end to end on Debian's 6.1: the same tests, those that differ between kernels."""

from __future__ import annotations

import sys

import pytest

from tests.guest import run_in_guest
from tests.netns import crowd

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

CHOSEN = (
    "test_fullnat_lab.py::test_nginx_logs_the_clients_own_address_and_port[IPv4]",
    "test_fullnat_lab.py::test_nginx_logs_the_clients_own_address_and_port[IPv6]",
    "test_fullnat_lab.py::test_the_listings_tell",
    "test_fullnat_streams.py::test_ten_thousand_connections_byte_for_byte[IPv4]",
    "test_fullnat_streams.py::test_ten_thousand_connections_byte_for_byte[IPv6]",
    "test_fullnat_streams.py::test_both_ends_close_at_the_same_time",
    "test_forged.py::test_who_claims_to_be_another_is_known_as_himself[IPv4]",
    "test_forged.py::test_malformed_options_break_nothing[IPv6]",
)


@pytest.mark.timeout(900)
def test_on_6_1() -> None:
    crowd.program()  # compiled here, where it is quick
    names = " ".join(f"'tests/netns/{name}'" for name in CHOSEN)
    command = f"modprobe -a veth bridge && {sys.executable} -m pytest -q -p no:cacheprovider {names}"
    done = run_in_guest(command, timeout=840)
    assert done.status == 0, done.stdout + done.stderr
    assert f"{len(CHOSEN)} passed" in done.stdout
