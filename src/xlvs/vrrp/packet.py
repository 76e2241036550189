"""VRRP adverts as bytes: version 2 (RFC 3768; RFC 2338's authentication) and 3 (RFC 5798, RFC 9568).

Over IPv4 a packet is the whole datagram, IP header included: an authentication header covers it, so
whoever sends must write it (IP_HDRINCL), and a raw socket hands it over like that. Over IPv6 a packet
is the VRRP message alone; addresses and hop limit come from the socket.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

PROTOCOL = 112  # IANA
PROTOCOL_AH = 51  # RFC 2402
GROUP4 = IPv4Address("224.0.0.18")  # RFC 5798 5.1.1.2
GROUP6 = IPv6Address("ff02::12")  # RFC 5798 5.1.2.2
TTL = 255  # RFC 5798 5.1.1.3
TOS = 0xC0  # internetwork control (RFC 791), as keepalived sends
OWNER = 255  # the priority of the router that the addresses belong to (RFC 5798 5.2.4)
STOPPING = 0  # the priority that says that the master leaves

AUTH_NONE, AUTH_PASS, AUTH_AH = 0, 1, 2  # RFC 2338 5.3.6
AUTH_TYPES = {"": AUTH_NONE, "PASS": AUTH_PASS, "AH": AUTH_AH}
AUTH_LENGTH = 8  # of the key, padded with zeros, behind version 2's addresses

_ADVERTISEMENT = 1  # the only type of packet
_IP = struct.Struct("!BBHHHBBH4s4s")
_AH = struct.Struct("!BBHII12s")
_AH_WORDS = 4  # length of the authentication header in words, less 2 (RFC 2402 2.2)
_ICV = slice(_IP.size + 12, _IP.size + 24)
_HEADER = struct.Struct("!BBBBHH")
_CENTISECONDS = 100
_MAX_INTERVAL = 0x0FFF  # version 3 has 12 bits for centiseconds (RFC 5798 5.2.7)


class Fault(Enum):
    """Why a packet is not believed; the values are the names of keepalived's counters."""

    LENGTH = "Length"
    TTL = "TTL"
    TYPE = "Invalid Type"
    VERSION = "Version"
    CHECKSUM = "Checksum"
    ROUTER_ID = "Invalid VRID"
    INTERVAL = "Advertisement Interval"
    ADDRESSES = "Address List"
    AUTH_TYPE = "Invalid Authentication Type"
    AUTH_MISMATCH = "Authentication Type Mismatch"
    AUTH_FAILURE = "Authentication Failure"
    SOURCE = "Unknown Source"
    OWN = "Own"  # a packet of our own come back: no error of anybody's


class PacketError(Exception):
    """A packet that is none: ``fault`` says which check it failed."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Advert:
    """What a router says of itself. ``interval`` is in seconds.

    ``auth`` is "", "PASS" or "AH", ``key`` its secret of at most 8 bytes; ``sequence`` counts the
    packets of an AH sender.
    """

    version: int
    router_id: int
    priority: int
    interval: float
    addresses: tuple[Address, ...]
    auth: str = ""
    key: bytes = b""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """A packet taken apart, nothing of it believed yet. ``raw`` is the datagram, for AH's check."""

    source: Address
    destination: Address
    ttl: int
    version: int
    router_id: int
    priority: int
    interval: float
    addresses: tuple[Address, ...]
    auth: int
    key: bytes
    sequence: int
    checksum_good: bool
    checksum_old: bool  # version 3 over IPv4 without, or with another, pseudo header: keepalived before 1.3.7
    authenticated: bool  # an authentication header is there
    raw: bytes


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``: 0 if that holds its own, right one."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF


def _pseudo(source: Address, destination: Address, length: int) -> bytes:
    """The pseudo header: RFC 8200 8.1 for IPv6; RFC 5798 5.2.8 has the like for IPv4."""
    layout = "!4s4sBBH" if source.version == 4 else "!16s16sIHBB"
    tail = (0, PROTOCOL, length) if source.version == 4 else (length, 0, 0, PROTOCOL)
    return struct.pack(layout, source.packed, destination.packed, *tail)


def message(advert: Advert, source: Address, destination: Address, old_checksum: bool = False) -> bytes:
    """The VRRP message alone, checksum filled in (which covers the two addresses in version 3).

    ``old_checksum`` is keepalived's ``old_unicast_checksum``: the one of its versions before 1.3.7.
    """
    if advert.version == 2:
        words = (AUTH_TYPES[advert.auth] << 8) | int(advert.interval)
    else:
        words = min(round(advert.interval * _CENTISECONDS), _MAX_INTERVAL)
    first = (advert.version << 4) | _ADVERTISEMENT
    count = len(advert.addresses)
    head = _HEADER.pack(first, advert.router_id, advert.priority, count, words, 0)
    body = b"".join(address.packed for address in advert.addresses)
    if advert.version == 2:
        secret = advert.key if advert.auth == "PASS" else b""
        body += secret[:AUTH_LENGTH].ljust(AUTH_LENGTH, b"\0")
        covered = b""
    elif old_checksum and source.version == 4:
        covered = _pseudo(source, GROUP4, len(head) + len(body))
    else:
        covered = _pseudo(source, destination, len(head) + len(body))
    return head[:6] + struct.pack("!H", checksum(covered + head + body)) + body


def datagram(
    advert: Advert,
    source: IPv4Address,
    destination: IPv4Address,
    identification: int = 1,
    ttl: int = TTL,
    old_checksum: bool = False,
) -> bytes:
    """The whole IPv4 datagram. ``identification`` must not be 0: the kernel would choose another one,
    and an authentication header covers it.
    """
    inner = message(advert, source, destination, old_checksum)
    protocol = PROTOCOL
    if advert.auth == "AH":
        # The sender's address is the index, as keepalived has it: there is no negotiation.
        inner = _AH.pack(PROTOCOL, _AH_WORDS, 0, int(source), advert.sequence & 0xFFFFFFFF, bytes(12)) + inner
        protocol = PROTOCOL_AH
    length = _IP.size + len(inner)
    fields = (0x45, TOS, length, identification & 0xFFFF, 0, ttl, protocol)
    packed = (source.packed, destination.packed)
    head = _IP.pack(*fields, checksum(_IP.pack(*fields, 0, *packed)), *packed)
    if advert.auth != "AH":
        return head + inner
    whole = head + inner
    return whole[: _ICV.start] + _integrity(whole, advert.key) + whole[_ICV.stop :]


def _integrity(whole: bytes, key: bytes) -> bytes:
    """HMAC-MD5-96 (RFC 2403) over a datagram with an authentication header.

    The fields that may change on the way count as 0 (RFC 2402 3.3.3.1), but for the TTL of multicast,
    which keepalived leaves in: it is 255 on arrival, or the packet is refused anyhow.
    """
    blank = bytearray(whole)
    blank[1] = 0  # type of service
    blank[6:8] = bytes(2)  # flags and fragment offset
    if not IPv4Address(whole[16:20]).is_multicast:
        blank[8] = 0  # TTL
    blank[10:12] = bytes(2)  # header checksum
    blank[_ICV] = bytes(12)
    return hmac.digest(key[:AUTH_LENGTH].ljust(AUTH_LENGTH, b"\0"), bytes(blank), "md5")[:12]


def authentic(received: Received, key: bytes) -> bool:
    """The authentication header's integrity value is that of ``key``."""
    return received.authenticated and hmac.compare_digest(_integrity(received.raw, key), received.raw[_ICV])


def parse4(whole: bytes) -> Received:
    """Takes an IPv4 datagram apart. Raises PacketError."""
    if len(whole) < _IP.size:
        raise PacketError(Fault.LENGTH, f"{len(whole)} bytes are no IP header")
    first, _, total, _, _, ttl, protocol, _, source, destination = _IP.unpack_from(whole)
    header = (first & 0x0F) * 4
    if first >> 4 != 4 or header < _IP.size or not header <= total <= len(whole):
        raise PacketError(Fault.LENGTH, "the IP header's lengths do not fit")
    whole = whole[:total]  # Ethernet pads short frames
    inner = whole[header:]
    sequence = 0
    if protocol == PROTOCOL_AH:
        # With IP options the header would have to be walked to find what may change: nobody sends any.
        if header != _IP.size or len(inner) < _AH.size:
            raise PacketError(Fault.LENGTH, "no room for an authentication header")
        following, words, _, _, sequence, _ = _AH.unpack_from(inner)
        if following != PROTOCOL or words != _AH_WORDS:
            raise PacketError(Fault.TYPE, "the authentication header is of another kind")
        inner = inner[_AH.size :]
    elif protocol != PROTOCOL:
        raise PacketError(Fault.TYPE, f"IP protocol {protocol} is not VRRP")
    addresses = IPv4Address(source), IPv4Address(destination)
    received = _parse(inner, *addresses, ttl, before=len(whole) - len(inner))
    return replace(received, sequence=sequence, authenticated=protocol == PROTOCOL_AH, raw=whole)


def parse6(inner: bytes, source: IPv6Address, destination: IPv6Address, hop_limit: int) -> Received:
    """Takes the VRRP message of an IPv6 packet apart. Raises PacketError."""
    return _parse(inner, source, destination, hop_limit)


def _parse(inner: bytes, source: Address, destination: Address, ttl: int, before: int = 0) -> Received:
    """``before``: bytes of the datagram in front of the message, which lengths in messages count, too."""
    if len(inner) < _HEADER.size:
        raise PacketError(Fault.LENGTH, f"{len(inner)} bytes are no VRRP header")
    first, router_id, priority, count, words, _ = _HEADER.unpack_from(inner)
    version = first >> 4
    if first & 0x0F != _ADVERTISEMENT:
        raise PacketError(Fault.TYPE, f"Invalid packet type. {first & 0x0F} and expect {_ADVERTISEMENT}")
    if version not in (2, 3) or (version == 2 and source.version == 6):
        raise PacketError(Fault.VERSION, f"version {version} over IPv{source.version}")
    if router_id == 0:
        raise PacketError(Fault.ROUTER_ID, "virtual router id 0")
    size = len(source.packed)
    end = _HEADER.size + count * size
    length = end + (AUTH_LENGTH if version == 2 else 0)
    if len(inner) != length:
        size_word = "long" if len(inner) > length else "short"
        text = f"vrrp packet too {size_word}, length {before + len(inner)} and expect {before + length}"
        raise PacketError(Fault.LENGTH, text)
    kind = type(source)
    addresses = tuple(kind(inner[i : i + size]) for i in range(_HEADER.size, end, size))
    old = False
    if version == 2:
        good = checksum(inner) == 0
        auth, interval = words >> 8, float(words & 0xFF)
    else:
        good = checksum(_pseudo(source, destination, length) + inner) == 0
        if not good and source.version == 4:
            old = checksum(_pseudo(source, GROUP4, length) + inner) == 0
        auth, interval = AUTH_NONE, (words & _MAX_INTERVAL) / _CENTISECONDS
    return Received(
        source=source,
        destination=destination,
        ttl=ttl,
        version=version,
        router_id=router_id,
        priority=priority,
        interval=interval,
        addresses=addresses,
        auth=auth,
        key=inner[end:],
        sequence=0,
        checksum_good=good,
        checksum_old=old,
        authenticated=False,
        raw=b"",
    )
