"""What the timer does besides ending connections whose time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.netns.alone import Alone

pytestmark = [pytest.mark.root, pytest.mark.slow]
DIRECTOR = Alone("xlvs-time")
VIP, SERVERS = "10.80.0.1", ("10.19.0.11", "10.19.0.12")

# SYNs of that many clients, given to the programs as if they had come by wire.
KNOCK = """
import sys
from tests.packet.frames import TCP, Datagram
from xlvs.dataplane import libbpf
from xlvs.dataplane.tables import Tables
program = libbpf.get_pinned(f"{Tables().generation_folder()}/xlvs_known")
for number in range(int(sys.argv[1])):
    client = f"198.18.{number >> 8}.{number & 255}"
    libbpf.test_run(program, Datagram(client, "10.80.0.1", 40000, 80, TCP, "S").frame())
"""


def xlvs(*words: str) -> str:
    return DIRECTOR.xlvs(*words).stdout


def knock(clients: int) -> None:
    DIRECTOR.python(KNOCK, str(clients))


def listed(what: str = "TCP") -> list[list[str]]:
    """The rows of the connection listing that begin so."""
    lines = xlvs("ipvsadm", "-Lnc").splitlines()
    return [line.split() for line in lines if line.startswith(what)]


def soon(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


@pytest.fixture
def director() -> Iterator[None]:
    with DIRECTOR.made():
        DIRECTOR.run("ip", "link", "set", "eth0", "up")
        DIRECTOR.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        xlvs("up", "eth0", "--connections", "4096")
        yield


def serve(*options: str) -> None:
    xlvs("ipvsadm", "-A", "-t", f"{VIP}:80", "-s", "rr", *options)
    for server in SERVERS:
        xlvs("ipvsadm", "-a", "-t", f"{VIP}:80", "-r", f"{server}:80", "-m")


@pytest.mark.usefixtures("director")
@pytest.mark.parametrize("expire", [0, 1])
def test_expire_nodest_conn_ends_a_deleted_servers_connections(expire: int) -> None:
    xlvs("sysctl", f"expire_nodest_conn={expire}")
    serve("-p", "300")
    knock(6)
    assert len(listed()) == 12  # with their templates
    xlvs("ipvsadm", "-d", "-t", f"{VIP}:80", "-r", f"{SERVERS[0]}:80")
    assert soon(lambda: len(listed()) == 6, 40 if expire else 4) is bool(expire)
    if expire:
        assert {row[5] for row in listed()} == {f"{SERVERS[1]}:80"}


@pytest.mark.usefixtures("director")
def test_a_template_waits_for_its_connections() -> None:
    serve("-p", "2")
    knock(1)
    time.sleep(4)
    (template,) = (row for row in listed() if row[3].endswith(":0"))
    minutes, seconds = template[1].split(":")
    assert 30 <= int(minutes) * 60 + int(seconds) <= 60


@pytest.mark.usefixtures("director")
def test_drop_entry_thins_out_half_open_connections() -> None:
    serve()
    knock(1000)
    assert len(listed()) == 1000
    xlvs("sysctl", "drop_entry=3")
    assert soon(lambda: len(listed()) < 950, 40)
    xlvs("sysctl", "drop_entry=0")
