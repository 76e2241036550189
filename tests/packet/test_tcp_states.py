"""IPVS's table of TCP states: every view, every event, every old state.

The table here is typed from the kernel's documentation of it (ip_vs_proto_tcp.c), not
taken from bpf/tcp.h: rows by what a packet says, columns by the state it meets.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packet.director import XDP_PASS, XDP_REDIRECT, Director, Server
from tests.packet.frames import TCP, Datagram
from xlvs.dataplane import layout
from xlvs.model import Forward

pytestmark = pytest.mark.root

VIP, CLIENT, RIP = "10.80.0.1", "198.18.0.1", "10.19.0.11"

NAMES = {
    "no": "NONE",
    "es": "ESTABLISHED",
    "ss": "SYN_SENT",
    "sr": "SYN_RECV",
    "fw": "FIN_WAIT",
    "tw": "TIME_WAIT",
    "cl": "CLOSE",
    "cw": "CLOSE_WAIT",
    "la": "LAST_ACK",
    "li": "LISTEN",
    "sa": "SYNACK",
}
COLUMNS = "no es ss sr fw tw cl cw la li sa".split()  # noqa: SIM905  read as the rows below
TABLE = {
    "in": {
        "S": "sr es es sr sr sr sr sr sr sr sr",
        "F": "cl cw ss tw tw tw cl cw la li tw",
        "A": "es es ss es fw tw cl cw cl li es",
        "R": "cl cl cl sr cl cl cl cl la li sr",
    },
    "out": {
        "S": "ss es ss sr ss ss ss ss ss li sr",
        "F": "tw fw ss tw fw tw cl tw la li tw",
        "A": "es es ss es fw tw cl cw la es es",
        "R": "cl cl ss cl cl tw cl cl cl cl cl",
    },
    # The answers of DR and TUN go another way.
    "in only": {
        "S": "sr es es sr sr sr sr sr sr sr sr",
        "F": "cl fw ss tw fw tw cl cw la li tw",
        "A": "es es ss es fw tw cl cw cl li es",
        "R": "cl cl cl sr cl cl cl cl la li cl",
    },
}
ACTIVE = {"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"}
SECONDS = {
    "NONE": 2,
    "ESTABLISHED": 900,
    "SYN_SENT": 120,
    "SYN_RECV": 60,
    "FIN_WAIT": 120,
    "TIME_WAIT": 120,
    "CLOSE": 10,
    "CLOSE_WAIT": 60,
    "LAST_ACK": 30,
    "LISTEN": 120,
    "SYNACK": 120,
}
# A packet with several flags counts as the first of these that it has.
FLAGS = {
    "S": ["S", "SA", "SF", "SP"],
    "F": ["F", "FA", "FPA"],
    "A": ["A", "PA"],
    "R": ["R", "RA", "RS", "RF"],
}

CASES = [
    (view, flags, event, old, new)
    for view, rows in TABLE.items()
    for event, row in rows.items()
    for old, new in zip(COLUMNS, row.split(), strict=True)
    for flags in FLAGS[event]
    # That one ends the connection: see the last test.
    if not (flags == "RS" and view != "out" and old in ("tw", "cl"))
]


def opened(director: Director, method: Forward) -> layout.ConnRow:
    director.service(VIP, TCP, [Server(RIP, 8080 if method == Forward.MASQ else 80, method)])
    director.exchange(Datagram(CLIENT, VIP, protocol=TCP).frame())
    (conn,) = director.connections()
    return conn


def put(director: Director, conn: layout.ConnRow, state: str) -> None:
    """Have the connection be in a state, and counted as such."""
    inactive = state not in ACTIVE
    conn.state = layout.TCP_STATES.index(state) | (layout.STATE_INACTIVE if inactive else 0)
    load = director.tables.load_row(conn.dest)
    load.active, load.inactive = int(not inactive), int(inactive)


def state_of(conn: layout.ConnRow) -> str:
    return layout.TCP_STATES[conn.state & 0xF]


def packet(view: str, flags: str) -> Datagram:
    if view == "out":
        return Datagram(RIP, CLIENT, 8080, 40000, TCP, flags)
    return Datagram(CLIENT, VIP, protocol=TCP, flags=flags)


@pytest.mark.parametrize("view", TABLE)
def test_every_state_and_event(director: Director, view: str) -> None:
    opened(director, Forward.ROUTE if view == "in only" else Forward.MASQ)
    for _, flags, event, old, new in (case for case in CASES if case[0] == view):
        (conn,) = director.connections()
        put(director, conn, NAMES[old])
        verdict, _ = director.run(packet(view, flags).frame())
        (conn,) = director.connections()
        what = f"{view}: {flags} ({event}) in {NAMES[old]}"
        assert verdict == XDP_REDIRECT, what
        assert state_of(conn) == NAMES[new], what
        active = NAMES[new] in ACTIVE
        assert director.loads(RIP) == (int(active), int(not active)), what
        assert conn.timeout == SECONDS[NAMES[new]] * director.tables.settings.hz, what


@pytest.mark.parametrize("view", TABLE)
@pytest.mark.parametrize("old", NAMES.values())
def test_a_packet_without_any_flag_closes(director: Director, view: str, old: str) -> None:
    conn = opened(director, Forward.ROUTE if view == "in only" else Forward.MASQ)
    put(director, conn, old)
    director.exchange(packet(view, "P").frame())
    assert state_of(conn) == "CLOSE"


def test_the_state_before_is_kept(director: Director) -> None:
    conn = opened(director, Forward.ROUTE)
    director.exchange(packet("in only", "A").frame())
    director.exchange(packet("in only", "F").frame())
    assert [layout.TCP_STATES[conn.state >> shift & 0xF] for shift in (0, 8)] == ["FIN_WAIT", "ESTABLISHED"]


def test_a_whole_conversation_by_nat(director: Director) -> None:
    conn = opened(director, Forward.MASQ)
    seen = [state_of(conn)]
    for view, flags in (("out", "SA"), ("in", "A"), ("out", "PA"), ("in", "FA"), ("out", "FA"), ("in", "A")):
        director.exchange(packet(view, flags).frame())
        seen.append(state_of(conn))
    assert seen == [
        "SYN_RECV",
        "SYN_RECV",
        "ESTABLISHED",
        "ESTABLISHED",
        "CLOSE_WAIT",
        "TIME_WAIT",
        "TIME_WAIT",
    ]
    assert director.loads(RIP) == (0, 1)


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_a_new_connection_from_an_old_port_is_scheduled_afresh(director: Director, state: str) -> None:
    """conn_reuse_mode 1."""
    servers = [Server("10.19.0.11", method=Forward.ROUTE), Server("10.19.0.12", method=Forward.ROUTE)]
    director.service(VIP, TCP, servers)
    syn = Datagram(CLIENT, VIP, protocol=TCP)
    director.exchange(syn.frame())
    (conn,) = director.connections()
    first = bytes(conn.daddr)
    put(director, conn, state)
    director.exchange(replace(syn, sequence=99).frame())
    (conn,) = director.connections()
    assert bytes(conn.daddr) != first
    assert state_of(conn) == "SYN_RECV"
    assert sorted([director.loads("10.19.0.11"), director.loads("10.19.0.12")]) == [(0, 0), (1, 0)]
    assert director.index_size() == 1


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_what_opens_nothing_ends_the_old_connection_nevertheless(director: Director, state: str) -> None:
    """As in IPVS: a SYN flag on an old port is looked at before whether the packet may open anything."""
    conn = opened(director, Forward.ROUTE)
    put(director, conn, state)
    assert director.run(packet("in only", "RS").frame())[0] == XDP_PASS
    assert director.connections() == []
    assert director.index_size() == 0
    assert director.loads(RIP) == (0, 0)
