"""What the helper reads and writes of frames: whose fragment one is, and a packet in parts."""

from __future__ import annotations

import struct

from xlvs.dataplane import layout, layout_events

_ETHERNET, _TAG = 14, 4
_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8)
_MORE, _OFFSET = 0x2000, 0x1FFF  # IPv4's flags and fragment offset, RFC 791
_FRAGMENT, _AUTHENTICATION = 44, 51  # next-header numbers, RFC 8200 and RFC 4302
_TCP, _ACK = 6, 0x10
_STAMPS = bytes((1, 1, 8, 10))  # timestamps as everybody lays them out (RFC 7323, appendix A)
_WALKED = (0, 43, 51, 60)  # those before a fragment header, as bpf/walk.h has them


def link_length(frame: bytes) -> int:
    """Bytes before the IP header."""
    at = _ETHERNET
    while int.from_bytes(frame[at - 2 : at], "big") in _TAGS:
        at += _TAG
    return at


def datagram_key(frame: bytes) -> bytes | None:
    """struct xlvs_datagram_key of a fragment; None for anything else."""
    at = link_length(frame)
    kind = int.from_bytes(frame[at - 2 : at], "big")
    if kind == _IPV4 and len(frame) >= at + 20:
        return _key(frame[at + 12 : at + 16], frame[at + 16 : at + 20], frame[at + 4 : at + 6], frame[at + 9])
    if kind == _IPV6 and len(frame) >= at + 40:
        following, header = frame[at + 6], at + 40
        while following in _WALKED and len(frame) >= header + 8:
            step = (
                (frame[header + 1] + 2) * 4 if following == _AUTHENTICATION else (frame[header + 1] + 1) * 8
            )
            following, header = frame[header], header + step
        if following == _FRAGMENT and len(frame) >= header + 8:
            return _key(frame[at + 8 : at + 24], frame[at + 24 : at + 40], frame[header + 4 : header + 8], 0)
    return None


def _key(source: bytes, target: bytes, identity: bytes, protocol: int) -> bytes:
    family = 2 if len(source) == 4 else 10
    row = layout_events.DatagramKey(protocol=protocol, family=family)
    row.saddr, row.daddr = layout.wire_address(source), layout.wire_address(target)
    row.id = int.from_bytes(identity.ljust(4, b"\0"), "little")
    return bytes(row)


def in_parts(frame: bytes, longest: int) -> list[bytes]:
    """An IPv4 packet's frame as fragments of at most ``longest`` bytes each (RFC 791, 3.2).

    Don't-fragment is taken off. Options go into every part: which of them are for the first
    one only is said by a bit of theirs that nobody has relied on since RFC 6814.
    """
    at = link_length(frame)
    header = (frame[at] & 15) * 4
    total, identity, word = struct.unpack_from("!HHH", frame, at + 2)
    content = frame[at + header : at + total]
    size = (longest - header) & ~7
    if size <= 0 or not content:
        return []
    first, more = word & _OFFSET, word & _MORE
    parts = []
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        last = start + size >= len(content)
        flags = more if last else _MORE
        head = bytearray(frame[at : at + header])
        struct.pack_into("!HHH", head, 2, header + len(piece), identity, flags | first + start // 8)
        head[10:12] = b"\0\0"
        struct.pack_into("!H", head, 10, _checksum(bytes(head)))
        parts.append(frame[:at] + head + piece)
    return parts


def client_ack(conn: layout.ConnRow) -> bytes:
    """The ACK by which the client of a connection of SYNPROXY's took the cookie, once more.

    For the data plane alone: its link header names nobody, its TCP checksum is not there. Where
    timestamps were agreed, it has those of the client's own (bpf/stamps.h).
    """
    ipv4 = conn.family == 2
    client, virtual = (layout.plain_address(each, conn.family) for each in (conn.caddr, conn.vaddr))
    numbers = ((conn.edge_in + 1) & 0xFFFFFFFF, (conn.seq_base + 1) & 0xFFFFFFFF)
    ports = struct.pack("=HH", conn.cport, conn.vport)  # in wire order already
    options = b""
    if conn.older & layout.OFFER_STAMPS:
        told, own = struct.unpack_from("=II", bytes(conn.laddr))
        options = _STAMPS + struct.pack("!II", own, told)
    offset = 5 + len(options) // 4 << 4
    segment = ports + struct.pack("!IIBBHHH", *numbers, offset, _ACK, conn.ftp >> 16, 0, 0) + options
    if ipv4:
        head = bytearray(
            struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, _TCP, 0) + client + virtual
        )
        struct.pack_into("!H", head, 10, _checksum(bytes(head)))
    else:
        head = bytearray(struct.pack("!IHBB", 6 << 28, len(segment), _TCP, 64) + client + virtual)
    return bytes(12) + struct.pack("!H", _IPV4 if ipv4 else _IPV6) + head + segment


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
