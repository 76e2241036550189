"""Mutated adverts against the receiver: ``python -m tests.interop.vrrp.attack [N] [SEED]``.

Each begins as one of keepalived's own packets. Nothing but PacketError may come of it; what is believed
must be what a sender with the same secrets would have written, byte for byte where bytes have a meaning.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.interop.vrrp.capture import VECTORS, instances
from xlvs.vrrp.check import check
from xlvs.vrrp.packet import (
    PROTOCOL_AH,
    Address,
    Advert,
    PacketError,
    Received,
    checksum,
    message,
    parse4,
    parse6,
)
from xlvs.vrrp.router import Router
from xlvs.vrrp.settings import Settings

NODE = IPv4Address("192.168.99.7")
INTERESTING = (0, 1, 2, 3, 7, 8, 16, 20, 40, 51, 112, 127, 128, 254, 255)
GROWTH = 8 << 20  # bytes that any number of packets may leave behind


def seeds() -> list[tuple[Settings, bytes]]:
    recorded = json.loads(VECTORS.read_text())
    return [(one, bytes.fromhex(text)) for one in instances() for text in recorded[one.name]]


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """One to four changes; half of the time the checksum is made right again."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(6)
        at = chance.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at] = chance.choice(INTERESTING)
        elif kind == 2:
            del data[at : at + chance.choice((1, 2, 4, 8, 16))]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 8, 16)))
        elif kind == 4:
            data[at:at] = data[at : at + 16]
        elif len(data) > 24:
            data[20] = chance.choice((0x21, 0x31, 0x22, 0x41, 0x11, 0x01))
    if chance.random() < 0.5 and len(data) >= 28 and data[0] >> 4 == 4:
        data[2:4] = len(data).to_bytes(2, "big")
        start = 44 if data[9] == PROTOCOL_AH else 20
        if len(data) >= start + 8:
            data[start + 6 : start + 8] = bytes(2)
            inner = bytes(data[start:])
            if inner[0] >> 4 == 3:
                inner = bytes(data[12:20]) + bytes((0, 112)) + len(inner).to_bytes(2, "big") + inner
            data[start + 6 : start + 8] = checksum(inner).to_bytes(2, "big")
    return bytes(data)


def read(whole: bytes) -> Received:
    """As the sockets hand them over: IPv6's header stays with the kernel."""
    if whole[:1] and whole[0] >> 4 == 6 and len(whole) >= 40:
        return parse6(whole[40:], IPv6Address(whole[8:24]), IPv6Address(whole[24:40]), whole[7])
    return parse4(whole)


def judge(settings: Settings, whole: bytes, received: Received) -> None:
    """What was believed is what a sender writes; fields that nobody reads are left out."""
    advert = Advert(
        version=received.version,
        router_id=received.router_id,
        priority=received.priority,
        interval=received.interval,
        addresses=received.addresses,
        auth=settings.auth,
        key=settings.key,
        sequence=received.sequence,
    )
    source: Address = received.source
    start = 40 if settings.family == 6 else (whole[0] & 0x0F) * 4 + (24 if settings.auth == "AH" else 0)
    total = len(whole) if settings.family == 6 else int.from_bytes(whole[2:4], "big")
    told = bytearray(whole[start:total])
    expected = bytearray(message(advert, source, received.destination, received.checksum_old))
    if settings.version == 2 and settings.auth != "PASS":
        del told[-8:], expected[-8:]  # authentication data that means nothing
    if settings.version == 3:
        told[4] &= 0x0F  # reserved
    told[6:8] = expected[6:8] = bytes(2)  # the checksum of what was left out
    assert told == expected, f"{settings.name} believed {whole.hex()}"


def attack(count: int, seed: int) -> tuple[int, int]:
    """Returns how many packets were readable, and how many were believed."""
    chance = random.Random(seed)
    told = instances()
    router = Router(told)
    for one in told:
        router.set_addresses(one.name, NODE, frozenset((NODE,)))
    router.start(0.0)
    readable = believed = 0
    now = 0.0
    everything = seeds()
    for _ in range(count):
        settings, whole = chance.choice(everything)
        whole = mutated(whole, chance)
        now += 0.001
        if (router.deadline or now) <= now:
            router.tick(now)
        try:
            received = read(whole)
            readable += 1
            router.receive(settings.name, received, now)
            check(settings, (), received)
        except PacketError:
            continue
        believed += 1
        judge(settings, whole, received)
    for machine in router.machines.values():
        assert len(machine._again) <= 64
        assert len(machine._heard) <= 64
    return readable, believed


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    attack(10_000, seed)  # whatever is made once is there
    before, began = resident(), time.monotonic()
    readable, believed = attack(count, seed)
    seconds, grown = time.monotonic() - began, resident() - before
    print(f"{count} packets in {seconds:.0f} s: {readable} readable, {believed} believed, {grown} bytes more")
    assert grown < GROWTH


if __name__ == "__main__":
    main()
