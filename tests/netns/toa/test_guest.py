"""The same on Debian's 6.1, with nginx and dnsmasq, and with a director: what differs between kernels."""

from __future__ import annotations

import sys

import pytest

from tests.guest import run_in_guest

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow]

REAL_SERVER = (
    "test_streams.py::test_a_server_sees_the_client[254-4]",
    "test_streams.py::test_a_server_sees_the_client[200-6]",
    "test_streams.py::test_mapped_sockets_see_clients_of_either_family",
    "test_streams.py::test_a_server_that_waits_for_data_and_one_that_hands_out_cookies",
    "test_streams.py::test_a_client_that_is_told_of_late",
    "test_streams.py::test_strangers_are_not_believed[4]",
    "test_datagrams.py::test_a_server_sees_the_client_and_answers_it[udp-4]",
    "test_datagrams.py::test_a_server_sees_the_client_and_answers_it[udp-batch-6]",
    "test_datagrams.py::test_connected_sockets_have_the_client_as_their_peer[4]",
    "test_datagrams.py::test_connected_sockets_have_the_client_as_their_peer[6]",
    "test_datagrams.py::test_mapped_sockets[udp-message]",
    "test_datagrams.py::test_a_thousand_clients_at_once[udp-4]",
    "test_programs.py::test_nginx_logs_the_clients[6]",
    "test_programs.py::test_dnsmasq_answers_clients_that_it_sees[4]",
    "test_attaching.py::test_a_cgroup_and_one_inside_it_do_not_disturb_each_other",
)


DIRECTOR = (
    "test_director.py::test_accept_and_getpeername_give_the_client[IPv6]",
    "test_director.py::test_a_thousand_clients_are_seen_and_answered[udp-IPv4]",
    "test_director.py::test_a_thousand_clients_are_seen_and_answered[udp-connected-IPv6]",
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chosen", [REAL_SERVER, DIRECTOR], ids=["real server", "director"])
def test_on_6_1(chosen: tuple[str, ...]) -> None:
    names = " ".join(f"'tests/netns/toa/{name}'" for name in chosen)
    command = f"modprobe -a veth bridge && {sys.executable} -m pytest -q -p no:cacheprovider {names}"
    done = run_in_guest(command, timeout=840)
    assert done.status == 0, done.stdout + done.stderr
    assert f"{len(chosen)} passed" in done.stdout
