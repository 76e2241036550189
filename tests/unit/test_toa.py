"""xlvs toa: what an operator writes, and what the maps make of it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli import main
from xlvs.errors import XlvsError
from xlvs.realserver import toa

STATE = Path(__file__).resolve().parents[2] / "bpf" / "toa" / "state.h"

networks = st.one_of(
    st.builds(
        lambda address, bits: ipaddress.ip_network((address, bits), strict=False),
        st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address),
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, bits: ipaddress.ip_network((address, bits), strict=False),
        st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
        st.integers(0, 128),
    ),
)


@given(networks)
def test_a_prefix_comes_back_from_its_key(network: toa.Network) -> None:
    assert toa.prefix_of(toa.key_of(network)) == network


@given(networks, networks)
def test_no_two_prefixes_share_a_key(one: toa.Network, other: toa.Network) -> None:
    assert (toa.key_of(one) == toa.key_of(other)) is (one == other)


def test_prefixes_as_they_are_written() -> None:
    found = toa.networks(["10.0.0.0/8", "10.9.8.7", "2001:db8::/32", "10.0.0.0/8"])
    assert [str(each) for each in found] == ["10.0.0.0/8", "10.9.8.7/32", "2001:db8::/32"]


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "10.0.0.1/8", "example.org", "::ffff:10.0.0.1", "10.0.0"]
)
def test_prefixes_that_are_none(text: str) -> None:
    with pytest.raises(XlvsError):
        toa.networks([text])


def test_counters_have_the_names_of_the_program() -> None:
    (body,) = re.findall(r"enum counter \{(.*?)COUNTERS", STATE.read_text(), re.DOTALL)
    names = re.findall(r"^\s*([A-Z_]+),", body, re.MULTILINE)
    assert tuple(name.lower() for name in names) == toa.COUNTERS


@pytest.mark.parametrize("kind", ["0", "1", "2", "256", "-1", "x"])
def test_kinds_that_cannot_be(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["xlvs", "toa", "attach", "--from", "10.0.0.0/8", "--kind", kind])
    assert "kind" in capsys.readouterr().err
