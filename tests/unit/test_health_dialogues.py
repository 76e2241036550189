"""Conversations of health checks without a socket: HTTP, SMTP, datagrams, regular expressions."""

from __future__ import annotations

import hashlib
import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.daemon.checks.patient import Patient
from xlvs.health.answers import Answer, Dialogue
from xlvs.health.checks import DnsCheck, HttpCheck, SmtpCheck, UdpCheck, Url
from xlvs.health.datagrams import DnsExchange, EchoExchange, UdpExchange
from xlvs.health.http import HttpDialogue, request
from xlvs.health.regex import compiled
from xlvs.health.smtp import SmtpDialogue

ADDRESS = ip_address("192.0.2.1")
PIECES = st.integers(1, 90)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def fed(dialogue: Dialogue, data: bytes, piece: int = 1000) -> Answer:
    """All of the data in pieces, then the end."""
    dialogue.opened()
    for start in range(0, len(data), piece):
        step = dialogue.received(data[start : start + piece])
        if isinstance(step, Answer):
            return step
    return dialogue.ended()


def http(url: Url, data: bytes, piece: int = 1000, protocol: str = "1.0") -> Answer:
    return fed(
        HttpDialogue(HttpCheck(address=ADDRESS, port=80, urls=(url,), protocol=protocol), url), data, piece
    )


def reply(status: int = 200, body: bytes = b"hello", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} Some Words", "Server: x", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def test_requests_are_keepalived_s_to_the_byte() -> None:
    """As the real program (2.2.7) was seen to send them."""
    url = Url(path="/one")
    check = HttpCheck(address=ip_address("127.0.0.1"), port=8899, urls=(url,))
    plain = b"GET /one HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: 127.0.0.1:8899\r\n\r\n"
    assert request(check, url) == plain
    newer = HttpCheck(address=ip_address("2001:db8::1"), port=80, urls=(url,), protocol="1.1")
    assert request(newer, url).endswith(
        b"HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: [2001:db8::1]:80\r\n\r\n"
    )
    assert b"\r\nHost: www.example\r\n" in request(newer, Url(virtualhost="www.example"))


@given(PIECES)
def test_a_status_must_be_among_those_allowed(piece: int) -> None:
    assert http(Url(), reply(), piece).ok
    assert http(Url(), reply(299), piece).ok
    assert not http(Url(), reply(500), piece).ok
    assert not http(Url(), reply(301), piece).ok
    odd = Url(statuses=((301, 302), (404, 404)))
    assert [http(odd, reply(status), piece).ok for status in (200, 301, 302, 303, 404)] == [
        *(False, True, True, False, True)
    ]


@given(PIECES, st.sampled_from(("", "Content-Length: 5")))
def test_a_digest_is_of_the_body(piece: int, header: str) -> None:
    headers = (header,) if header else ()
    right, wrong = md5(b"hello"), md5(b"jello")
    assert http(Url(digest=right.upper()), reply(200, b"hello", *headers), piece).ok
    answer = http(Url(digest=wrong), reply(200, b"hello", *headers), piece)
    assert (answer.ok, answer.text) == (False, "MD5 digest error to")


@given(PIECES)
def test_a_chunked_body_s_digest_has_its_framing_in_it(piece: int) -> None:
    """As the real program was seen to take it, and genhash to print it."""
    raw = b"5\r\nhello\r\n0\r\n\r\n"
    chunked = reply(200, raw, "Transfer-Encoding: chunked")
    assert http(Url(digest=md5(raw)), chunked, piece, "1.1").ok
    assert not http(Url(digest=md5(b"hello")), chunked, piece, "1.1").ok


@given(PIECES)
def test_a_provisional_reply_is_passed_over(piece: int) -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + reply(200, b"hello", "Content-Length: 5")
    assert http(Url(digest=md5(b"hello")), data, piece).ok


def test_a_body_cut_short_counts_as_it_came() -> None:
    assert http(Url(), reply(200, b"hel", "Content-Length: 5")).ok


@given(
    PIECES,
    st.sampled_from(
        (
            b"HTTP/1.1 200 OK\r\nX Foo: a\r\n",
            b"HTTP/1.1 200 OK\r\nServer\r\n",
            b"HTTP/1.1 200 OK\r\nServer : x\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
            b"HTTP/2 200 OK\r\n",
            b"ICY 200 OK\r\n",
            b"http/1.1 200 ok\r\n",
        )
    ),
)
def test_a_head_may_be_wrong_where_its_status_is_right(piece: int, head: bytes) -> None:
    """The real program (2.2.7) was seen to take every one of these for a 200."""
    assert http(Url(digest=md5(b"hello")), head + b"\r\nhello", piece).ok
    assert not http(Url(), head.replace(b"200", b"500") + b"\r\nhello", piece).ok
    assert not http(Url(), head.replace(b"200", b"2000") + b"\r\nhello", piece).ok


def test_a_body_broken_off_by_a_reset_is_a_failure() -> None:
    url = Url()
    dialogue = HttpDialogue(HttpCheck(address=ADDRESS, port=80, urls=(url,)), url)
    assert dialogue.received(reply(200, b"hel", "Content-Length: 5")) == b""
    assert not dialogue.ended(reset=True).ok


def test_no_reply_and_no_http_are_failures() -> None:
    assert http(Url(), b"").text == "Read, no data received from"
    assert not http(Url(), b"220 mail.example ESMTP\r\n").ok
    assert not http(Url(), b"\0" * 200_000).ok
    assert not http(Url(), b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000).ok


def test_a_regex_is_searched_between_its_offsets() -> None:
    body = b"abc hello xyz"
    assert http(Url(regex="hel+o"), reply(200, body)).ok
    assert not http(Url(regex="HELLO"), reply(200, body)).ok
    assert http(Url(regex="HELLO", regex_options=("caseless",)), reply(200, body)).ok
    assert not http(Url(regex="hello", regex_no_match=True), reply(200, body)).ok
    assert http(Url(regex="hello", regex_min_offset=4), reply(200, body)).ok
    assert not http(Url(regex="hello", regex_min_offset=5), reply(200, body)).ok
    assert not http(Url(regex="hello", regex_max_offset=3), reply(200, body)).ok
    assert http(Url(regex="hello", regex_max_offset=4), reply(200, body)).ok


@pytest.mark.parametrize("header", ["", "Content-Length: 60"])
def test_a_page_that_a_regex_takes_for_ever_over_is_a_failure(header: str) -> None:
    url = Url(regex="(a+)+b")
    dialogue = Patient(HttpDialogue(HttpCheck(address=ADDRESS, port=80, urls=(url,)), url))
    answer = fed(dialogue, reply(200, b"a" * 60, *filter(None, (header,))))
    assert answer == Answer(False, "Regex match took too long")


@given(st.binary(max_size=400), PIECES)
def test_a_server_may_answer_anything(data: bytes, piece: int) -> None:
    for url in (Url(), Url(digest="0" * 32), Url(regex="x+")):
        assert isinstance(http(url, data, piece), Answer)
        assert isinstance(http(url, reply(200) + data, piece), Answer)
    assert isinstance(fed(SmtpDialogue(SmtpCheck(address=ADDRESS, port=25)), data, piece), Answer)


# -- SMTP ---------------------------------------------------------------------------


def smtp(*replies: bytes) -> tuple[list[bytes], Answer]:
    """What is said to a server that gives these replies, and what that comes to."""
    dialogue = SmtpDialogue(SmtpCheck(address=ADDRESS, port=25, helo_name="me.example"))
    assert dialogue.opened() == b""
    said: list[bytes] = []
    for line in replies:
        step = dialogue.received(line)
        if isinstance(step, Answer):
            return said, step
        if step:
            said.append(step)
    return said, dialogue.ended()


def test_an_smtp_conversation() -> None:
    said, answer = smtp(b"220 hi\r\n", b"250 there\r\n", b"221 bye\r\n")
    assert said == [b"HELO me.example\r\n", b"QUIT\r\n"]
    assert answer.ok
    assert smtp(b"220-one\r\n", b"220 two\r\n", b"250-a\r\n250 b\r\n", b"221 bye\r\n")[1].ok
    assert smtp(b"22", b"0 hi\r", b"\n", b"250 x\r\n", b"500 what\r\n")[1].ok
    assert not smtp(b"2200 hi\r\n")[1].ok
    assert smtp(b"554 no\r\n")[1] == Answer(False, "Bad greeting banner from server")
    assert smtp(b"220 hi\r\n", b"550 no\r\n")[1] == Answer(False, "Bad HELO response from server")
    assert not smtp(b"220 hi\r\n")[1].ok
    assert not smtp(b"220 hi" * 1000)[1].ok


# -- datagrams ----------------------------------------------------------------------


def udp(**changes: object) -> UdpExchange:
    return UdpExchange(UdpCheck(address=ADDRESS, port=1, **changes), b"r" * 64)  # type: ignore[arg-type]


def test_udp_replies() -> None:
    assert udp().silence.ok
    assert udp(payload=b"ask").request == b"ask"
    assert not udp(require_reply=True).silence.ok
    assert udp(require_reply=True).received(b"anything") == Answer(True)
    assert udp(require_reply=True, min_reply=9).received(b"anything") == Answer(True)
    limits = udp(require_reply=True, min_reply=2, max_reply=3, reply=((0x78, 0xFF),))
    assert [bool((limits.received(b"x" * size) or Answer(False)).ok) for size in (1, 2, 3, 4)] == [
        *(False, True, True, False)
    ]
    masked = udp(require_reply=True, reply=((0xAB, 0xFF), (0x10, 0xF0)))
    answers = [masked.received(data) for data in (b"\xab\x1f", b"\xab\x2f", b"\xab", b"\xab\x10more")]
    assert [answer.ok for answer in answers if answer] == [True, False, True, True]


def test_dns_answers() -> None:
    exchange = DnsExchange(DnsCheck(address=ADDRESS, port=53, type="AAAA", name="www.example"), 0x1234)
    assert exchange.request == (b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0\x03www\x07example\0\x00\x1c\x00\x01")
    assert exchange.received(b"\x12\x34\x81\x80" + exchange.request[4:]) == Answer(True)
    refused = exchange.received(b"\x12\x34\x81\x83" + exchange.request[4:])
    assert refused is not None
    assert not refused.ok
    assert exchange.received(b"\x12\x35\x81\x80" + exchange.request[4:]) is None  # another question's
    assert exchange.received(exchange.request) is None  # no answer
    assert exchange.received(b"\x12\x34\x81") is None
    for kind in ("A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA"):
        assert DnsExchange(DnsCheck(address=ADDRESS, port=53, type=kind, name="."), 1).request


def test_echo_replies() -> None:
    exchange = EchoExchange(4, 77)
    assert exchange.received(b"\0" + exchange.request[1:]) == Answer(True)
    assert exchange.received(exchange.request) is None
    assert EchoExchange(6, 78).received(b"\x81" + EchoExchange(6, 78).request[1:]) == Answer(True)
    assert exchange.received(b"\0" + EchoExchange(4, 78).request[1:]) is None


# -- regular expressions ------------------------------------------------------------


def matches(pattern: str, body: bytes, *options: str) -> bool:
    return compiled(pattern, options)(body, 0, 0)


@pytest.mark.parametrize(
    ("pattern", "options", "yes", "no"),
    [
        ("^<title>[[:alpha:]]+", (), b"<title>Hello", b"<title>1"),
        (r"^a\h*b\z", (), b"a\t b", b"a b\n"),
        (r"b\Z", (), b"b\n", b"b\nc"),
        (r"\Qa.b\E+", (), b"a.bb", b"axb"),
        (r"(?<word>ab)(?P=word)", (), b"abab", b"ab"),
        (r"a$", (), b"a\n", b"ab"),
        (r"a$", ("dollar_endonly",), b"a", b"a\n"),
        (r"x.y", ("dotall",), b"x\ny", b"xy"),
        (r"^b", ("multiline",), b"a\nb", b"ab"),
        (r"a b # said", ("extended",), b"ab", b"a b"),
        (r"b", ("firstline",), b"ab\n", b"a\nb"),
        (r"a\x{41}", (), b"aA", b"a41"),
        (r"[]x]y", (), b"]y", b"zy"),
        (r"[^[:digit:]_]z", (), b"az", b"1z"),
        (r"a\Rb", (), b"a\r\nb", b"ab"),
        ("grüß", (), "grüß".encode(), b"gruss"),
        (r"(?i)ok", (), b"OK", b"no"),
        (r"a++b", (), b"aab", b"b"),
        (r"status\": ?\"(green|yellow)\"", ("utf", "ucp"), b'"status":"green"', b'"status":"red"'),
    ],
)
def test_perl_s_expressions(pattern: str, options: tuple[str, ...], yes: bytes, no: bytes) -> None:
    assert matches(pattern, yes, *options)
    assert not matches(pattern, no, *options)


def test_ungreedy_is_greedy_turned_round() -> None:
    assert compiled("a+b??$", ("ungreedy",))(b"aab", 0, 0)
    assert compiled(r"(?<n>a)b", ())(b"xab", 0, 0)


@pytest.mark.parametrize(
    "pattern", ["(", "[a", r"\p{L}", "(?R)", "(?|a|b)", "[[:nope:]]", r"\x{zz}", "a{3,1}"]
)
def test_what_is_not_understood_says_so(pattern: str) -> None:
    with pytest.raises(ValueError, match="regex"):
        compiled(pattern)
    with pytest.raises(ValueError, match="unknown regex option"):
        compiled("a", ("sideways",))


@given(st.text(st.sampled_from("ab\\[](){}?*+.^$|<:>QExz'0 "), max_size=14))
def test_a_pattern_is_understood_or_refused(pattern: str) -> None:
    try:
        search = compiled(pattern)
    except ValueError:
        return
    assert search(b"", 0, 0) in (True, False)


@given(st.text(st.sampled_from("abc1. "), max_size=8), st.text(st.sampled_from("abc1. "), max_size=12))
def test_plain_patterns_mean_what_they_mean_in_python(pattern: str, body: str) -> None:
    assert matches(pattern, body.encode()) == bool(re.search(pattern, body))
