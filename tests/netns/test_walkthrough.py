"""The walk-through of the NAT article, typed as it types it: answers and listings as printed there.

Each sequence has a lab of its own, so that it begins with an empty connection table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root

VIP, RS1, RS2 = "10.1.252.161:80", "192.168.22.18", "192.168.22.19"

HEAD = """\
IP Virtual Server version 1.2.1 (size={size})
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
"""
LISTING = (
    HEAD
    + """\
TCP  10.1.252.161:80 {scheduler}
  -> 192.168.22.18:80             Masq    {weight}      0          {first}         
  -> 192.168.22.19:80             Masq    1      0          {second}         
"""  # noqa: W291  the real program's trailing spaces
)


class Article:
    """The article's three machines: what is typed on the director, and what the client gets."""

    def __init__(self, made: build.Lab) -> None:
        self._lab = made

    def ipvsadm(self, line: str) -> str:
        return labs.xlvs(self._lab, "director", "ipvsadm", *line.split())

    def begin(self) -> None:
        """The first steps of every sequence."""
        self.ipvsadm(f"-A -t {VIP} -s rr")
        self.ipvsadm(f"-a -t {VIP} -r {RS1} -m")
        self.ipvsadm(f"-a -t {VIP} -r {RS2} -m")

    def weigh(self, scheduler: str) -> None:
        """From rr to a scheduler that heeds weights, RS1 twice RS2."""
        self.ipvsadm(f"-E -t {VIP} -s {scheduler}")
        self.ipvsadm(f"-e -t {VIP} -r {RS1} -m -w 2")
        self.ipvsadm(f"-e -t {VIP} -r {RS2} -m -w 1")

    def listing(self) -> tuple[str, int]:
        """``ipvsadm -L -n``, and the table's size in it."""
        text = self.ipvsadm("-L -n")
        found = re.search(r"\(size=(\d+)\)", text)
        assert found
        return text, int(found[1])

    def ten_curls(self) -> str:
        return " ".join(
            answer.removeprefix("<h1>").removesuffix("</h1>") for answer in labs.answers(self._lab, 10)
        )


@pytest.fixture
def article() -> Iterator[Article]:
    with labs.lab(Method.NAT, rules=False) as made:
        yield Article(made)


def test_an_empty_listing(article: Article) -> None:
    text, size = article.listing()
    assert text == HEAD.format(size=size)
    assert size.bit_count() == 1


def test_rr(article: Article) -> None:
    article.begin()
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="rr", weight=1, first=0, second=0)
    assert article.ten_curls() == "RS2 RS1 RS2 RS1 RS2 RS1 RS2 RS1 RS2 RS1"
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="rr", weight=1, first=5, second=5)


def test_wrr(article: Article) -> None:
    article.begin()
    article.weigh("wrr")
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="wrr", weight=2, first=0, second=0)
    assert article.ten_curls() == "RS2 RS1 RS1 RS2 RS1 RS1 RS2 RS1 RS1 RS2"
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="wrr", weight=2, first=6, second=4)


def test_sh(article: Article) -> None:
    article.begin()
    article.weigh("wrr")
    article.ipvsadm(f"-E -t {VIP} -s sh")
    # The lab's client hashes to the server that the article's did.
    assert article.ten_curls() == " ".join(["RS2"] * 10)
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="sh", weight=2, first=0, second="10").replace(
        "10         \n", "10        \n"
    )


def test_wlc(article: Article) -> None:
    article.begin()
    article.weigh("wrr")
    article.ipvsadm(f"-E -t {VIP} -s wlc")
    assert article.ten_curls() == "RS2 RS1 RS1 RS2 RS1 RS1 RS2 RS1 RS1 RS2"
    text, size = article.listing()
    assert text == LISTING.format(size=size, scheduler="wlc", weight=2, first=6, second=4)
