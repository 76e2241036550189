"""UDP: unmodified servers see clients that a datagram's option tells, and their answers go back."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from tests.netns.toa.site import ANY, CLIENT, LOCAL, SERVER, STRANGER, Site
from tests.netns.toa.wire import PATIENCE
from tests.packet import frames
from xlvs.dataplane import libbpf, pins

pytestmark = pytest.mark.root
PORT = 53
families = pytest.mark.parametrize("version", [4, 6])
kinds = pytest.mark.parametrize("kind", ["udp", "udp-message", "udp-connected", "udp-batch"])
NOP = b"\x01"


def ask(
    site: Site,
    local: tuple[str, int],
    request: str = "hello",
    client: tuple[str, int] | None = None,
    options: bytes | None = None,
) -> Any:
    """Send a datagram from the director; the server's answer, which must come back there."""
    server = SERVER[6 if ":" in local[0] else 4]
    site.wire.udp(local, (server, PORT), request.encode(), client, options)
    answer = site.wire.receive(frames.UDP, local, time.monotonic() + PATIENCE)
    assert answer, f"no answer to {local}"
    assert (answer.source, answer.sport) == (server, PORT)
    found = json.loads(answer.payload)
    assert found["request"] == request
    return found


@families
@kinds
def test_a_server_sees_the_client_and_answers_it(real_server: Site, version: int, kind: str) -> None:
    real_server.serve(kind, ANY[version], PORT)
    local, client = (LOCAL[version], 5000), (CLIENT[version], 1234)
    assert ask(real_server, (LOCAL[version], 5001))["seen"] == [LOCAL[version], 5001]
    real_server.attach()
    assert ask(real_server, local, client=client)["seen"] == list(client)
    # Told once, known for the datagrams that follow; again and again is no other client.
    for _ in range(3):
        assert ask(real_server, local)["seen"] == list(client)
        assert ask(real_server, local, client=client)["seen"] == list(client)
    assert ask(real_server, (LOCAL[version], 5002))["seen"] == [LOCAL[version], 5002]
    # The local port becomes another client's.
    other = (CLIENT[version], 4321)
    assert ask(real_server, local, client=other)["seen"] == list(other)
    assert ask(real_server, local)["seen"] == list(other)
    assert real_server.counters() == {"datagram_flows": 2}
    real_server.detach()
    assert ask(real_server, (LOCAL[version], 5003), client=client)["seen"] == [LOCAL[version], 5003]


@families
def test_connected_sockets_have_the_client_as_their_peer(real_server: Site, version: int) -> None:
    real_server.attach()
    real_server.serve("udp-connected", ANY[version], PORT)
    local, client = (LOCAL[version], 5000), (CLIENT[version], 1234)
    for by in ("listener", "child", "child"):
        found = ask(real_server, local, client=client if by == "listener" else None)
        assert (found["by"], found["seen"], found["getpeername"]) == (by, list(client), list(client))
        assert found["asked"] == [list(client), list(local)]


@kinds
def test_mapped_sockets(real_server: Site, kind: str) -> None:
    real_server.attach()
    real_server.serve(kind, ANY[6], PORT)
    client = (CLIENT[4], 1234)
    assert ask(real_server, (LOCAL[4], 5000), client=client)["seen"] == [f"::ffff:{CLIENT[4]}", 1234]
    assert ask(real_server, (LOCAL[6], 5000), client=(CLIENT[6], 1234))["seen"] == [CLIENT[6], 1234]


@families
def test_a_client_of_the_other_family_cannot_be_answered_and_is_not_shown(
    real_server: Site, version: int
) -> None:
    real_server.attach()
    real_server.serve("udp", ANY[6], PORT)
    local = (LOCAL[version], 5000)
    shown = LOCAL[6] if version == 6 else f"::ffff:{LOCAL[4]}"
    assert ask(real_server, local, client=(CLIENT[10 - version], 1234))["seen"] == [shown, 5000]


@families
@kinds
def test_a_thousand_clients_at_once(real_server: Site, version: int, kind: str) -> None:
    real_server.attach()
    real_server.serve(kind, ANY[version], PORT)
    server = (SERVER[version], PORT)
    # Four clients behind each address, and local ports that say nothing of the client's.
    clients = {
        (LOCAL[version], 20000 + (number * 7919) % 1000): (address(version, number // 4), 3000 + number % 4)
        for number in range(1000)
    }
    missing = dict(clients)
    for again in range(2):
        missing = dict(clients)
        waiting, late = list(clients), time.monotonic() + 3 * PATIENCE
        while missing and time.monotonic() < late:
            for local in waiting[:100]:  # so many are under way: no queue overflows
                told = clients[local] if not again else None
                real_server.wire.udp(local, server, f"{local[1]}".encode(), told)
            del waiting[:100]
            quiet = 0.0 if waiting else 1.0
            while found := real_server.wire.next(frames.UDP, quiet):
                answer = json.loads(found.payload)
                local = (found.target, found.dport)
                assert answer["request"] == f"{local[1]}"
                assert tuple(answer["seen"]) == clients[local], f"{local} took the place of another"
                missing.pop(local, None)
            if not waiting:
                waiting = list(missing)  # what was lost on the way
        assert not missing
    assert real_server.counters() == {"datagram_flows": 1000}


def test_a_flow_that_was_silent_is_nobodys(real_server: Site) -> None:
    """The local port may be another client's by then; the datagram that ends the silence tells."""
    real_server.attach()
    real_server.serve("udp", ANY[4], PORT)
    local, client = (LOCAL[4], 5000), (CLIENT[4], 1234)
    assert ask(real_server, local, client=client)["seen"] == list(client)
    folder = f"{pins.bpffs_folder()}/toa-{real_server.status()['id']:016x}"
    flows = libbpf.get_pinned(f"{folder}/flows")
    try:
        for silence, known in ((5, True), (40, False)):
            (key,) = libbpf.keys(flows, 40)  # struct flow
            value = libbpf.lookup(flows, key, 32) or b""  # struct flow_client: when is its last word
            seen = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - silence * 10**9
            libbpf.update(flows, key, value[:24] + seen.to_bytes(8, "little"))
            assert ask(real_server, local)["seen"] == list(client if known else local)
    finally:
        os.close(flows)
    assert ask(real_server, local, client=client)["seen"] == list(client)


def test_two_ways_to_one_client(real_server: Site) -> None:
    """The client's one port came by two services: each answer goes where the question came from."""
    real_server.attach()
    real_server.serve("udp", ANY[4], PORT)
    for lport in (5000, 5001, 5000, 5001):
        assert ask(real_server, (LOCAL[4], lport), client=(CLIENT[4], 1234))["seen"] == [CLIENT[4], 1234]


def test_who_comes_here_himself_is_answered_himself(real_server: Site) -> None:
    """A client that was shown for the director's sake, and then asks without the director."""
    real_server.attach()
    real_server.serve("udp", ANY[4], PORT)
    client = (STRANGER[4], 1234)
    assert ask(real_server, (LOCAL[4], 5000), client=client)["seen"] == list(client)
    assert ask(real_server, client)["seen"] == list(client)


@families
def test_strangers_are_not_believed(real_server: Site, version: int) -> None:
    real_server.attach()
    real_server.serve("udp", ANY[version], PORT)
    found = ask(real_server, (STRANGER[version], 5000), client=(CLIENT[version], 1234))
    assert found["seen"] == [STRANGER[version], 5000]
    assert real_server.counters() == {"foreign": 1}


def test_malformed_options_tell_nothing_and_break_nothing(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("udp", ANY[4], PORT)
    told = bytes((4, 210, 203, 0, 113, 77))
    for number, options in enumerate(
        (
            bytes((31, 7)) + told[:5] + NOP,
            bytes((31, 9)) + told + NOP * 4,
            bytes((0, 31, 8)) + told + bytes(3),
            bytes((130, 8)) + told,
            bytes((31, 4, 4, 210)),
        )
    ):
        local = (LOCAL[4], 5000 + number)
        assert ask(real_server, local, options=options)["seen"] == list(local)
    # What the kernel itself drops, or takes, must not matter to what comes next.
    for options in (bytes((31, 0, 4, 210)), bytes((31, 1, 4, 210)), b"\x1f" * 40, bytes((31, 200, 1, 1))):
        real_server.wire.udp((LOCAL[4], 5900), (SERVER[4], PORT), b"?", None, options)
    assert ask(real_server, (LOCAL[4], 6000), client=(CLIENT[4], 1234))["seen"] == [CLIENT[4], 1234]


def test_malformed_destination_options(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("udp", ANY[6], PORT)
    head, told = bytes((17, 0)), bytes((4, 210, 203, 0))
    local = (LOCAL[6], 5000)
    assert ask(real_server, local, options=head + bytes((31, 4)) + told)["seen"] == list(local)
    for options in (
        head + bytes((31, 5)) + told,
        head + bytes((31, 255)) + told,
        head + b"\x1f" * 6,
        bytes((17, 255, 31, 6)) + told,
        bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 9,
    ):
        real_server.wire.udp((LOCAL[6], 5900), (SERVER[6], PORT), b"?", None, options)
    client = (CLIENT[6], 1234)
    assert ask(real_server, (LOCAL[6], 6000), client=client)["seen"] == list(client)


def test_the_option_is_found_among_others(real_server: Site) -> None:
    real_server.attach()
    real_server.serve("udp", ANY[4], PORT)
    told = bytes((31, 8, 4, 210, 203, 0, 113, 77))
    for number, options in enumerate((NOP * 32 + told, told + bytes(32), bytes((148, 4, 0, 0)) + told)):
        assert ask(real_server, (LOCAL[4], 5000 + number), options=options)["seen"] == [CLIENT[4], 1234]


def address(version: int, number: int) -> str:
    return f"203.0.{number >> 8}.{number & 255}" if version == 4 else f"2001:db8:77::{number + 1:x}"
