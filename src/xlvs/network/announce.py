"""Gratuitous ARP and unsolicited neighbour advertisements: who has an address from now on."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_ETH_P_IPV6, _ETH_P_ARP = 0x86DD, 0x0806
_ARP = struct.Struct("!HHBBH")
_ARP_REQUEST = 1  # RFC 5227 3: an announcement is a request
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464 7
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT, _TARGET_LINK_ADDRESS = 136, 2  # RFC 4861 4.4 and 4.6.1
_ROUTER, _OVERRIDE = 0x80000000, 0x20000000


def gratuitous_arp(mac: bytes, address: IPv4Address, hardware: int = 1) -> bytes:
    """The ARP message that tells everybody; ``hardware`` is the link's ARPHRD number."""
    everybody = b"\xff" * len(mac)
    head = _ARP.pack(hardware, 0x0800, len(mac), 4, _ARP_REQUEST)
    return head + mac + address.packed + everybody + address.packed


def unsolicited_na(mac: bytes, address: IPv6Address, router: bool = False) -> bytes:
    """The whole IPv6 packet of an unsolicited advertisement from the address to all nodes."""
    option = bytes((_TARGET_LINK_ADDRESS, (len(mac) + 2 + 7) // 8)) + mac
    option += bytes(-len(option) % 8)
    flags = _OVERRIDE | (_ROUTER if router else 0)
    body = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, flags) + address.packed + option
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", len(body), _ICMPV6)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(body)) // 2}H", pseudo + body))
    total = (total & 0xFFFF) + (total >> 16)
    total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + address.packed + _ALL_NODES.packed + body


class Announcer:
    """A packet socket through which announcements leave by any interface."""

    def __init__(self) -> None:
        # Protocol 0: it receives nothing.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def announce(self, interface: str, mac: bytes, address: IPv4Address | IPv6Address) -> None:
        """Tell the segment behind ``interface`` that ``address`` is at ``mac`` (its own)."""
        if isinstance(address, IPv4Address):
            self._send(interface, _ETH_P_ARP, b"\xff" * len(mac), gratuitous_arp(mac, address))
        else:
            packet = unsolicited_na(mac, address, _forwards(interface))
            self._send(interface, _ETH_P_IPV6, _ALL_NODES_MAC, packet)

    def _send(self, interface: str, protocol: int, to: bytes, packet: bytes) -> None:
        self._socket.sendto(packet, (interface, protocol, 0, 0, to))


def _forwards(interface: str) -> bool:
    """Whether the interface routes IPv6, which an advertisement has to say (RFC 4861 4.4)."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{interface}/forwarding").read_text().strip() not in ("0", "")
    except OSError:
        return False
