"""The text of `xlvs defence export` and `import`: what is written is read back, and mistakes are named."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli import defence_file
from xlvs.errors import XlvsError
from xlvs.model import AF_INET, AF_INET6, L4, Defence, ServiceKey

WEB = ServiceKey(AF_INET, L4.TCP, bytes((10, 1, 252, 161)), 80)


def one(text: str) -> Defence:
    (found,) = defence_file.read(f"service -t 10.1.252.161:80\n{text}".splitlines(), "F").values()
    return found[0]


def test_a_file() -> None:
    text = """
    # the shop
    service -t 10.1.252.161:80
    new 2000            # in all
    per-source 20
    every-packet
    deny 203.0.113.0/24 198.51.100.9
    allow 203.0.113.7/32
    service -f 5 -6
    deny ::/0
    service --sctp-service [fd80::1]:9
    """
    found = defence_file.read(text.splitlines(), "F")
    assert [defence_file.service_text(key) for key in found] == [
        "-t 10.1.252.161:80",
        "-f 5 -6",
        "--sctp-service [fd80::1]:9",
    ]
    assert [line for _, line in found.values()] == [3, 9, 11]
    shop = found[WEB][0]
    assert (shop.limit, shop.source_limit, shop.every_packet) == (2000, 20, True)
    assert shop.clients == {
        (bytes((203, 0, 113, 0)), 24): False,
        (bytes((198, 51, 100, 9)), 32): False,
        (bytes((203, 0, 113, 7)), 32): True,
    }
    assert [defence for defence, _ in found.values()][2] == Defence()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("drop 10.0.0.1", "'drop' is none of service, new, per-source, every-packet, deny, allow"),
        ("deny", "'deny' of whom?"),
        ("deny 10.0.0.0/33", "'10.0.0.0/33' has no length from 0 to 32 behind its slash"),
        ("deny 10.0.0.0/", "'10.0.0.0/' has no length"),
        ("deny 10.0.0.0/+8", "'10.0.0.0/+8' has no length"),
        ("deny 10.0.0.1/8", "10.0.0.0/8 is the prefix, 10.0.0.1 an address"),
        ("deny 10.0.0", "'10.0.0' is no address or prefix"),
        ("deny fd80::1", "'fd80::1' is of the other family"),
        ("deny 10.0.0.9 10.0.0.x", "'10.0.0.x' is no address or prefix"),
        ("allow 10.9.0.0/16", "10.9.0.0/16 is denied in line 2"),
        ("new", "'new' takes one number"),
        ("new 1 2", "'new' takes one number"),
        ("new -1", "'-1' is no number of connections: 0 to 4294967295"),
        ("per-source 4294967296", "'4294967296' is no number of connections"),
        ("per-source ²", "'²' is no number of connections"),
        ("every-packet on", "'every-packet' stands alone"),
        ("service -t 10.1.252.161:80", "-t 10.1.252.161:80 is in line 1 already"),
        ("service 10.0.0.1:80", "a service is named as for ipvsadm"),
        ("service -t 10.0.0.1:80 -6", "a service is named as for ipvsadm"),
        ("service -t 10.0.0.1:no-such-port", "is no address and port of a service"),
        ("service -f 0", "'0' is no firewall mark: 1 to 4294967295"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_word(line: str, said: str) -> None:
    with pytest.raises(XlvsError) as refused:
        one(f"deny 10.9.0.0/16\n{line}\n")
    assert str(refused.value).startswith("F, line 3: ")
    assert said in str(refused.value)


def test_a_file_begins_with_a_service() -> None:
    with pytest.raises(XlvsError, match=r"^F, line 2: 'deny' stands before any service$"):
        defence_file.read(["", "deny 10.0.0.1"], "F")


NETWORKS = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 32)),
    st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 128)),
)
LIMITS = st.integers(0, 0xFFFFFFFF)


@given(st.lists(st.tuples(NETWORKS, st.booleans())), LIMITS, LIMITS, st.booleans(), st.integers(0, 65535))
def test_what_is_written_is_read_back(
    clients: list[tuple[tuple[bytes, int], bool]], new: int, source: int, every: bool, port: int
) -> None:
    written = []
    for family, size in ((AF_INET, 4), (AF_INET6, 16)):
        listed = {}
        for (address, bits), allowed in clients:
            if len(address) == size:
                network = ip_network((ip_address(address), bits), strict=False)
                listed[network.network_address.packed, bits] = allowed
        for key in (ServiceKey(family, L4.UDP, bytes([9] * size), port), ServiceKey(family, 0, b"", 0, 77)):
            written.append((key, Defence(new, source, every, listed)))
    lines = list(defence_file.write(written))
    assert {key: defence for key, (defence, _) in defence_file.read(lines, "F").items()} == dict(written)
