"""Packets of Debian's keepalived (capture.py) are read as what they are, and written to the byte."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.interop.vrrp.capture import VECTORS, instances
from xlvs.vrrp.check import check
from xlvs.vrrp.packet import AUTH_TYPES, PROTOCOL_AH, Advert, authentic, datagram, message, parse4, parse6
from xlvs.vrrp.settings import Settings

RECORDED: dict[str, list[str]] = json.loads(VECTORS.read_text())


@pytest.mark.parametrize("settings", instances(), ids=lambda settings: str(settings.name))
def test_packets_are_keepalived_s_own(settings: Settings) -> None:
    packets = [bytes.fromhex(text) for text in RECORDED[settings.name]]
    assert len(packets) == 3
    for whole, priority in zip(packets, (settings.priority, settings.priority, 0), strict=True):
        if settings.family == 4:
            received = parse4(whole)
        else:
            source, group = IPv6Address(whole[8:24]), IPv6Address(whole[24:40])
            received = parse6(whole[40:], source, group, whole[7])
        check(settings, (), received)
        assert (received.priority, received.router_id) == (priority, settings.router_id)
        assert (received.interval, received.addresses) == (settings.advert, settings.addresses)
        assert received.auth == AUTH_TYPES[settings.auth]
        assert received.checksum_old == settings.old_checksum
        assert authentic(received, settings.key) == (settings.auth == "AH")
        advert = Advert(
            version=settings.version,
            router_id=settings.router_id,
            priority=priority,
            interval=settings.advert,
            addresses=settings.addresses,
            auth=settings.auth,
            key=settings.key,
            sequence=received.sequence,
        )
        if settings.family == 4:
            assert isinstance(received.source, IPv4Address)
            assert isinstance(received.destination, IPv4Address)
            number = int.from_bytes(whole[4:6], "big")
            ends = (received.source, received.destination)
            assert datagram(advert, *ends, number, whole[8], settings.old_checksum) == whole
            assert (whole[9] == PROTOCOL_AH) == (settings.auth == "AH")
        else:
            assert message(advert, received.source, received.destination) == whole[40:]
