"""What is taken for an announcement: the data plane's reader against a small model of ip_vs_ftp's grammar."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.packet.director import Director
from tests.packet.ftp_talk import CLIENT, DATA, RIP, VIP, Talk, announced, serve

pytestmark = pytest.mark.root

Found = tuple[str, int] | None

fuzzed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(text: str, opening: str, *, digits: bool) -> str:
    """What follows the opening character(s), before which anything may stand; in the old form, a digit."""
    for at, character in enumerate(text):
        if character == opening:
            return text[at:].lstrip(opening)
        if digits and character in "0123456789":
            return text[at:]
    return ""


def old_form(text: str, opening: str) -> Found:
    """h,h,h,h,p,p and something behind it; a number left out is 0."""
    rest = opened(text, opening, digits=True)
    match = re.match(r"(\d*),(\d*),(\d*),(\d*),(\d*),(\d*)\D", rest, re.ASCII)
    numbers = [int(number or 0) for number in match.groups()] if match else []
    if not numbers or max(numbers) > 255:
        return None
    return ".".join(map(str, numbers[:4])), numbers[4] << 8 | numbers[5]


def address_of(text: str, family: int) -> str | None:
    if family == 4:
        numbers = text.split(".") if re.fullmatch(r"\d+(\.\d+){3}", text, re.ASCII) else []
        if not numbers or max(map(int, numbers)) > 255:
            return None
        return ".".join(str(int(number)) for number in numbers)
    try:
        return str(IPv6Address(text)) if "%" not in text else None
    except ValueError:
        return None


def extended_form(text: str, opening: str, family: int, server: str = "") -> Found:
    """|family|address|port|, or |||port| where ``server`` is the address that may be left out."""
    rest = opened(text, opening, digits=False)
    if not rest or not 33 <= ord(rest[0]) <= 126:
        return None
    mark = re.escape(rest[0])
    number = "1" if family == 4 else "2"
    match = re.match(rf"{mark}(?:{number}{mark}([^{mark}]*)|{mark}){mark}(\d+){mark}", rest, re.ASCII)
    if not match or not 0 < int(match[2]) < 65536 or (match[1] is None and not server):
        return None
    address = server if match[1] is None else address_of(match[1], family)
    return (address, int(match[2])) if address else None


NUMBER = st.one_of(
    st.integers(0, 255).map(str), st.sampled_from(["", "256", "300", "007", "0255", "99999999999"])
)
OLD = st.builds(
    lambda numbers, end: ",".join(numbers) + end,
    st.lists(NUMBER, min_size=5, max_size=7),
    st.sampled_from([")\r\n", "\r\n", "", ",", "x", ").", "\n"]),
)
GROUP = st.sampled_from(["", "0", "1", "ffff", "ABcd", "12345", "g", "255", "256"])
ADDRESS4 = st.one_of(
    st.ip_addresses(v=4).map(str), st.lists(NUMBER, min_size=3, max_size=5).map(".".join), st.just("")
)
ADDRESS6 = st.one_of(
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.lists(GROUP, min_size=1, max_size=9).map(":".join),
    st.builds("{}:{}".format, st.sampled_from(["::ffff", ":", "1:2:3:4:5:6", "1:2:3"]), ADDRESS4),
    st.just(""),
)
PORT = st.one_of(
    st.integers(0, 65535).map(str), st.sampled_from(["", "65536", "70000", "00021", " 21", "4294967301"])
)
DELIMITER = st.sampled_from(["|", "|", "|", "!", "#", "z"])
FAMILY = st.sampled_from(["1", "2", "1", "2", "", "3", "12"])
END = st.sampled_from([")\r\n", "\r\n", "", "|"])


def extended(address: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda d, family, address, port, last, end: f"{d}{family}{d}{address}{d}{port}{last or d}{end}",
        DELIMITER,
        FAMILY,
        address,
        PORT,
        st.sampled_from(["", "", "", "?", " "]),
        END,
    )


def talk_of(director: Director, family: int) -> Talk:
    director.reset()
    serve(director, family)
    return Talk(director, family).open()


def heard(director: Director, talk: Talk, command: bytes, reply: str) -> Found:
    """What of the server's reply was noted."""
    talk.says(command)
    talk.hears(reply.encode())
    waiting = announced(director)
    assert len(waiting) < 2
    for client, client_port, vip, vport, server, port in waiting:
        assert (client, client_port, vip, vport) == (CLIENT[talk.family], 0, VIP[talk.family], port)
        return server, port
    return None


def said(director: Director, talk: Talk, command: str) -> Found:
    """What of the client's command was noted."""
    assert talk.says(command.encode()).text == command.encode()
    waiting = announced(director)
    assert len(waiting) < 2
    for client, port, vip, vport, server, server_port in waiting:
        assert (vip, vport, server, server_port) == (VIP[talk.family], DATA, RIP[talk.family], DATA)
        return client, port
    return None


@fuzzed
@given(before=st.sampled_from([" ", "  ", "", "x", " x", "\t", "x "]), numbers=OLD)
def test_port(director: Director, before: str, numbers: str) -> None:
    command = f"PORT{before}{numbers}"
    assert said(director, talk_of(director, 4), command) == old_form(before + numbers, " ")


@fuzzed
@given(before=st.sampled_from(["Entering (", "", "=", "((", "x(y", "a b (", "2nd ("]), numbers=OLD)
def test_227(director: Director, before: str, numbers: str) -> None:
    reply = f"227 {before}{numbers}"
    found = heard(director, talk_of(director, 4), b"pasv\r\n", reply)
    assert found == old_form(before + numbers, "(")


@fuzzed
@example(family=6, before=" ", data="|2|::1:2|5|\r\n")
@given(
    family=st.sampled_from([4, 6]),
    before=st.sampled_from([" ", "  ", "", "x", " x"]),
    data=st.one_of(extended(ADDRESS4), extended(ADDRESS6)),
)
def test_eprt(director: Director, family: int, before: str, data: str) -> None:
    command = f"eprt{before}{data}"
    assert said(director, talk_of(director, family), command) == extended_form(before + data, " ", family)


@fuzzed
@given(
    family=st.sampled_from([4, 6]),
    before=st.sampled_from(["(", "Extended (", "((", "", "(x"]),
    data=st.one_of(extended(ADDRESS4), extended(ADDRESS6)),
)
def test_229(director: Director, family: int, before: str, data: str) -> None:
    found = heard(director, talk_of(director, family), b"EPSV\r\n", f"229 {before}{data}")
    assert found == extended_form(before + data, "(", family, RIP[family])


@pytest.mark.parametrize(
    ("family", "command", "rewritten"),
    [
        (4, "PASV\r\n", True),
        (4, "NOOP\r\nPaSv\r\n", True),
        (4, "XPASV\r\n", True),
        (4, "PASV\n", False),
        (4, "PASV \r\n", False),
        (6, "PASV\r\n", False),
        (4, "x" * 1400 + "PASV\r\n", True),
    ],
)
def test_who_asks_for_passive_mode(director: Director, family: int, command: str, rewritten: bool) -> None:
    talk = talk_of(director, family)
    assert (heard(director, talk, command.encode(), "227 (10,19,0,11,4,1)\r\n") is not None) == rewritten


@pytest.mark.parametrize(
    ("family", "command", "rewritten"),
    [
        (4, "EPSV\r\n", True),
        (4, "EPSV 1\r\n", True),
        (4, "EPSV 2\r\n", False),
        (6, "EPSV 2\r\n", True),
        (6, "EPSV 1\r\n", False),
        (4, "EPSV ALL\r\n", False),
        (4, "NOOP\r\nepsv\r\n", True),
        (4, "EPSV 1", False),
    ],
)
def test_who_asks_for_extended_passive_mode(
    director: Director, family: int, command: str, rewritten: bool
) -> None:
    talk = talk_of(director, family)
    found = heard(director, talk, command.encode(), "229 (|||1025|)\r\n")
    assert found == ((str(ip_address(RIP[family])), 1025) if rewritten else None)
