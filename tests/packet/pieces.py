"""Datagrams cut into fragments and put together again, written from RFC 791 and RFC 8200."""

from __future__ import annotations

import struct

from tests.packet.frames import checksum

FRAGMENT = 44
MORE = 0x2000


def cut(packet: bytes, *sizes: int, identity: int = 77, before: int = 40) -> list[bytes]:
    """Fragments of these sizes, the rest in a last one; IPv6's header goes in after ``before`` bytes."""
    ipv4 = packet[0] >> 4 == 4
    header = (packet[0] & 15) * 4 if ipv4 else before
    data, pieces, at = packet[header:], [], 0
    for size in (*sizes, len(data) - sum(sizes)):
        more = at + size < len(data)
        piece = data[at : at + size]
        if ipv4:
            pieces.append(_head4(packet[:header], len(piece), identity, at, more) + piece)
        else:
            pieces.append(_head6(packet[:header], len(piece), identity, at, more) + piece)
        at += size
    return pieces


def _head4(head: bytes, size: int, identity: int, offset: int, more: bool) -> bytes:
    new = bytearray(head)
    struct.pack_into("!HHH", new, 2, len(head) + size, identity, offset // 8 | (MORE if more else 0))
    new[10:12] = b"\0\0"
    new[10:12] = checksum(bytes(new)).to_bytes(2, "big")
    return bytes(new)


def _head6(head: bytes, size: int, identity: int, offset: int, more: bool) -> bytes:
    new = bytearray(head)
    following = 6 if len(head) == 40 else 40  # the last extension header's first byte names what follows
    fragment = struct.pack("!BBHI", new[following], 0, offset | more, identity)
    new[following] = FRAGMENT
    struct.pack_into("!H", new, 4, len(head) - 40 + 8 + size)
    return bytes(new) + fragment


def join(packets: list[bytes], before: int = 40) -> bytes:
    """The datagram of all its fragments, whatever their order; every header but the offset must agree."""
    ipv4 = packets[0][0] >> 4 == 4
    parts: dict[int, tuple[bytes, bool]] = {}
    heads: set[tuple[object, ...]] = set()
    for packet in packets:
        if ipv4:
            header = (packet[0] & 15) * 4
            assert not checksum(packet[:header]), "header checksum"
            total, identity, word = struct.unpack_from("!HHH", packet, 2)
            assert total == len(packet)
            offset, more = (word & 0x1FFF) * 8, bool(word & MORE)
            heads.add((packet[:2], identity, word & 0x4000, packet[8:10], packet[12:header]))
            parts[offset] = (packet[header:], more)
        else:
            at = before
            assert struct.unpack_from("!H", packet, 4)[0] == len(packet) - 40
            following, _, word, identity = struct.unpack_from("!BBHI", packet, at)
            heads.add((packet[:4], packet[6:at], following, identity))
            parts[word & ~7] = (packet[at + 8 :], bool(word & 1))
    assert len(heads) == 1, heads
    data, more = b"", True
    for offset, (part, follows) in sorted(parts.items()):
        assert offset == len(data), "hole or overlap"
        data, more = data + part, follows
    assert not more, "the last one is missing"
    first = packets[0]
    if ipv4:
        header = (first[0] & 15) * 4
        new = bytearray(first[:header])
        struct.pack_into("!HHH", new, 2, header + len(data), struct.unpack_from("!H", first, 4)[0], 0)
        new[10:12] = b"\0\0"
        new[10:12] = checksum(bytes(new)).to_bytes(2, "big")
        return bytes(new) + data
    new = bytearray(first[:before])
    new[6 if before == 40 else 40] = first[before]
    struct.pack_into("!H", new, 4, before - 40 + len(data))
    return bytes(new) + data
