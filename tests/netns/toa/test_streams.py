"""TCP: accept() and getpeername() of programs that were there before, and after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.netns.toa.site import ANY, CLIENT, LOCAL, SERVER, STRANGER, Site
from tests.netns.toa.wire import Stream, tcp_option

pytestmark = pytest.mark.root
PORT = 80
families = pytest.mark.parametrize("version", [4, 6])
NOP = b"\x01"


def ask(
    site: Site, version: int, lport: int, options: bytes = b"", source: str = "", *, bare_ack: bool = True
) -> Any:
    local = (source or LOCAL[version], lport)
    stream = Stream(site.wire, local, (SERVER[version], PORT), options, bare_ack=bare_ack)
    return json.loads(stream.ask(b"hello"))


def seen(address: str, port: int, director: tuple[str, int]) -> dict[str, object]:
    """The answer of a server that sees a client, by whatever way it asks."""
    end = [address, port]
    return {"accept": end, "getpeername": end, "asked": [end, list(director)], "request": "hello"}


def unseen(address: str, port: int) -> dict[str, object]:
    """The answer of a server that sees the director."""
    end = [address, port]
    return {"accept": end, "getpeername": end, "asked": None, "request": "hello"}


@families
@pytest.mark.parametrize("kind", [254, 200])
def test_a_server_sees_the_client(real_server: Site, version: int, kind: int) -> None:
    real_server.serve("tcp", ANY[version], PORT)
    assert ask(real_server, version, 5000) == unseen(LOCAL[version], 5000)
    real_server.attach()
    option = tcp_option(CLIENT[version], 1234, kind)
    assert ask(real_server, version, 5001, option) == seen(CLIENT[version], 1234, (LOCAL[version], 5001))
    # The handshake's end may be lost, so that the first data ends it.
    answer = ask(real_server, version, 5002, option, bare_ack=False)
    assert answer == seen(CLIENT[version], 1234, (LOCAL[version], 5002))
    assert ask(real_server, version, 5004) == unseen(LOCAL[version], 5004)
    real_server.detach()
    assert ask(real_server, version, 5005, option) == unseen(LOCAL[version], 5005)


def test_mapped_sockets_see_clients_of_either_family(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[6], PORT)
    found = ask(real_server, 4, 5000, tcp_option(CLIENT[4], 1234))
    assert found["accept"] == found["getpeername"] == [f"::ffff:{CLIENT[4]}", 1234]
    assert found["asked"] == [[CLIENT[4], 1234], [LOCAL[4], 5000]]
    # A director that translates between the families.
    for version in (4, 6):
        other = 10 - version
        found = ask(real_server, version, 5001, tcp_option(CLIENT[other], 4321))
        client = CLIENT[6] if other == 6 else f"::ffff:{CLIENT[4]}"
        assert found["accept"] == found["getpeername"] == [client, 4321]
        assert found["asked"] == [[CLIENT[other], 4321], [LOCAL[version], 5001]]


def test_an_ipv6_client_does_not_fit_an_ipv4_socket(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT)
    found = ask(real_server, 4, 5000, tcp_option(CLIENT[6], 1234))
    assert found["accept"] == found["getpeername"] == [LOCAL[4], 5000]
    assert found["asked"] == [[CLIENT[6], 1234], [LOCAL[4], 5000]]


@families
def test_strangers_are_not_believed(real_server: Site, version: int) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[version], PORT)
    option = tcp_option(CLIENT[version], 1234)
    answer = ask(real_server, version, 5000, option, source=STRANGER[version])
    assert answer == unseen(STRANGER[version], 5000)
    assert real_server.counters() == {"foreign": 1}
    # The prefixes are of the peer, whatever the family of the socket is.
    real_server.toa("attach", "--from", f"{STRANGER[version]}", "--cgroup", real_server.cgroup)
    answer = ask(real_server, version, 5001, option, source=STRANGER[version])
    assert answer == seen(CLIENT[version], 1234, (STRANGER[version], 5001))
    assert ask(real_server, version, 5002, option) == unseen(LOCAL[version], 5002)


def test_everybody_of_ipv6_is_nobody_of_ipv4(real_server: Site) -> None:
    real_server.toa("attach", "--from", "::/0", "--cgroup", real_server.cgroup)
    real_server.serve("tcp", ANY[6], PORT)
    assert ask(real_server, 4, 5000, tcp_option(CLIENT[4], 1234))["asked"] is None
    assert ask(real_server, 6, 5001, tcp_option(CLIENT[6], 1234))["accept"] == [CLIENT[6], 1234]


def test_a_server_that_waits_for_data_and_one_that_hands_out_cookies(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT, "defer")
    option = tcp_option(CLIENT[4], 1234)
    assert ask(real_server, 4, 5000, option) == seen(CLIENT[4], 1234, (LOCAL[4], 5000))
    sysctl(real_server, "net.ipv4.tcp_syncookies=2")  # always
    real_server.serve("tcp", ANY[4], PORT + 1)
    stream = Stream(real_server.wire, (LOCAL[4], 5001), (SERVER[4], PORT + 1), option)
    assert json.loads(stream.ask(b"hello")) == seen(CLIENT[4], 1234, (LOCAL[4], 5001))


def test_a_client_that_is_told_of_late(real_server: Site) -> None:
    """By the first data only: who asks before learns what was known then."""
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT)
    option = tcp_option(CLIENT[4], 1234)
    stream = Stream(real_server.wire, (LOCAL[4], 5000), (SERVER[4], PORT), option, on_ack=False)
    found = json.loads(stream.ask(b"hello"))
    assert found["getpeername"] == [CLIENT[4], 1234]
    assert real_server.counters() == {"connections": 1}


def test_only_the_kinds_that_were_asked_for(real_server: Site) -> None:
    real_server.attach("--kind", "77")
    real_server.serve("tcp", ANY[4], PORT)
    for kind, client in ((254, False), (200, False), (77, True)):
        answer = ask(real_server, 4, 5000 + kind, tcp_option(CLIENT[4], 1234, kind))
        assert (answer["asked"] is not None) is client
    assert real_server.status()["kinds"] == [77]


HOSTILE = (
    bytes((254, 0, 0, 0)),
    bytes((254, 1, 1, 1)),
    bytes((254, 7, 4, 210, 203, 0, 113, 0)),
    bytes((254, 9, 4, 210, 203, 0, 113, 77, 1, 1, 1, 1)),
    bytes((254, 200, 1, 1)),
    bytes((254, 12, 4, 210, 203, 0, 113, 77)),
    bytes((5, 200, 1, 1)),
    bytes((1, 1, 254, 8, 4, 210, 203, 0)),
    bytes((1, 1, 1, 254)),
    bytes((0, 254, 8, 4, 210, 203, 0, 113, 77, 1, 1, 1)),
    # Longer ones than this Linux drops by itself, for it looks for MD5 signatures in them.
    bytes((254, 255)) + b"\xff" * 10,
    b"\xff" * 16,
    b"\x02" * 40,
)


def test_malformed_options_tell_nothing_and_break_nothing(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT)
    for number, options in enumerate(HOSTILE):
        assert ask(real_server, 4, 5000 + number, options) == unseen(LOCAL[4], 5000 + number), options.hex()
    assert set(real_server.counters()) == {"malformed"}
    good = tcp_option(CLIENT[4], 1234)
    assert ask(real_server, 4, 6000, good) == seen(CLIENT[4], 1234, (LOCAL[4], 6000))


@pytest.mark.parametrize(
    "options",
    [
        NOP * 32 + tcp_option(CLIENT[4], 1234),
        bytes((254, 6, 1, 2, 3, 4, 1, 1)) + tcp_option(CLIENT[4], 1234),
        bytes((8, 10)) + bytes(8) + NOP * 2 + tcp_option(CLIENT[4], 1234) + NOP * 4,
        bytes((254, 8)) + tcp_option(CLIENT[4], 1234)[2:] + tcp_option("198.51.100.1", 1),
    ],
    ids=["after padding", "after another's experiment", "after a timestamp", "the first counts"],
)
def test_the_option_is_found_among_others(real_server: Site, options: bytes) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT)
    assert ask(real_server, 4, 5000, options) == seen(CLIENT[4], 1234, (LOCAL[4], 5000))


def test_connections_keep_their_clients_through_a_new_attach(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("tcp", ANY[4], PORT)
    before = real_server.status()
    stream = Stream(real_server.wire, (LOCAL[4], 5000), (SERVER[4], PORT), tcp_option(CLIENT[4], 1234))
    real_server.attach()
    assert json.loads(stream.ask(b"hello")) == seen(CLIENT[4], 1234, (LOCAL[4], 5000))
    after = real_server.status()
    assert (after["id"], after["from"], after["complete"]) == (before["id"], before["from"], True)
    assert real_server.counters() == {"connections": 1}


def sysctl(site: Site, setting: str) -> None:
    process = site.start(["sysctl", "-q", "-w", setting])
    assert process.wait() == 0
