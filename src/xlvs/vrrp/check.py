"""Whether an advert is believed (RFC 5798 7.1, RFC 3768 7.1), in the order that keepalived checks in."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from xlvs.vrrp.packet import (
    AUTH_LENGTH,
    AUTH_TYPES,
    STOPPING,
    TTL,
    Address,
    Fault,
    PacketError,
    Received,
    authentic,
)
from xlvs.vrrp.settings import Settings


def check(
    settings: Settings, local: Collection[Address], packet: Received, known: Address | None = None
) -> None:
    """Raises PacketError where ``packet`` is not to be believed.

    ``local`` are the node's own addresses, ``known`` the master whose addresses were compared before.
    """
    source = packet.source
    if source in local:
        raise PacketError(Fault.OWN, f"a packet of our own, from {source}")
    if settings.unicast and settings.check_unicast_source and source not in settings.peers:
        raise PacketError(Fault.SOURCE, f"unicast source address {source} not a unicast peer")
    limits = dict(zip(settings.peers, settings.peer_ttl, strict=False)).get(source)
    if settings.unicast and limits is not None and not limits[0] <= packet.ttl <= limits[1]:
        text = f"TTL/HL {packet.ttl} not in range {limits[0]} - {limits[1]}"
        raise PacketError(Fault.TTL, text)
    if not settings.unicast and packet.ttl != TTL:
        raise PacketError(Fault.TTL, f"invalid TTL/HL. Received {packet.ttl} and expect {TTL}")
    if packet.version != settings.version:
        text = f"wrong version. Received {packet.version} and expect {settings.version}"
        raise PacketError(Fault.VERSION, text)
    _check_checksum(settings, packet)
    _check_authentication(settings, packet)
    if settings.version == 2 and packet.interval != settings.advert:
        text = f"advertisement interval mismatch mine={settings.advert:g} sec rcv'd={packet.interval:g} sec"
        raise PacketError(Fault.INTERVAL, text)
    if settings.version == 3 and packet.interval == 0 and packet.priority != STOPPING:
        # With no interval no time would ever pass without an advert: every backup would take over.
        raise PacketError(Fault.INTERVAL, f"advertisement interval 0 from {source}")
    if settings.skip_known_addresses and source == known:
        return
    theirs, ours = len(packet.addresses), len(settings.addresses)
    if theirs != ours:
        text = f"received an unexpected ip number count {theirs}, expected {ours}!"
        raise PacketError(Fault.ADDRESSES, text)
    told = set(packet.addresses)
    for address in settings.addresses:
        if address not in told:
            text = f"ip address associated with VRID {settings.router_id} not present in MASTER advert"
            raise PacketError(Fault.ADDRESSES, f"{text}: {address}")


def _check_checksum(settings: Settings, packet: Received) -> None:
    old = settings.unicast and settings.old_checksum_heard and packet.checksum_old
    if not packet.checksum_good and not old:
        raise PacketError(Fault.CHECKSUM, f"Invalid VRRPv{packet.version} checksum")


def _check_authentication(settings: Settings, packet: Received) -> None:
    if settings.version == 3:
        return
    wanted = AUTH_TYPES[settings.auth]
    if packet.auth not in AUTH_TYPES.values():
        raise PacketError(Fault.AUTH_TYPE, f"received an unknown authentication type {packet.auth}")
    if packet.auth != wanted or packet.authenticated != (settings.auth == "AH"):
        raise PacketError(Fault.AUTH_MISMATCH, f"received a {packet.auth} auth, expecting {wanted}!")
    key = settings.key[:AUTH_LENGTH].ljust(AUTH_LENGTH, b"\0")
    if settings.auth == "PASS" and not hmac.compare_digest(packet.key, key):
        raise PacketError(Fault.AUTH_FAILURE, "received an invalid passwd!")
    if settings.auth == "AH" and not authentic(packet, settings.key):
        text = "IPSEC-AH : invalid IPSEC HMAC-MD5 value. Due to fields mutation or bad password !"
        raise PacketError(Fault.AUTH_FAILURE, text)
