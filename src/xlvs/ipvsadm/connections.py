"""The listing of connections (``-L -c``)."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

from xlvs.dataplane.conntable import ConnectionBlock
from xlvs.ipvsadm.names import Names, endpoint
from xlvs.model import AF_INET, AF_INET6, L4

TITLE = "IPVS connection entries"
_COLUMNS = f"pro expire {'state':<11} {'source':<18} {'virtual':<18} "
_LOCAL = f"{'local':<18} "
_PLAIN = "destination"
_PERSISTENT = f"{'destination':<18} {'pe name':<16} pe_data"
# IPVS's names of protocols; a template of a firewall mark has none, which is IP.
_PROTOCOL = {0: "IP", 6: "TCP", 17: "UDP", 132: "SCTP", 50: "ESP", 51: "AH", 1: "ICMP", 58: "ICMPv6"}
_NAMED = (L4.TCP, L4.UDP, L4.SCTP)


def connection_pieces(
    blocks: Iterable[ConnectionBlock], persistent: bool, names: Names | None, *, local: bool = False
) -> Iterator[str]:
    """Title, columns and one line a connection, in the data plane's own order; a piece a block.

    ``local`` adds FULLNAT's column, where DPVS's program has it.
    """
    yield f"{TITLE}\n{_COLUMNS}{_LOCAL if local else ''}{_PERSISTENT if persistent else _PLAIN}\n"
    for block in blocks:
        yield _text(block, persistent, names, local=local)


def protocol_name(protocol: int) -> str:
    """IPVS's name of an IP protocol."""
    return _PROTOCOL.get(protocol) or f"IP_{protocol}"


def _text(block: ConnectionBlock, persistent: bool, names: Names | None, *, local: bool) -> str:
    lines = [
        f"{head}{client:<18} {virtual:<18} {between}{server}\n"
        for head, client, virtual, between, server in zip(
            _heads(block),
            _endpoints(block, block.family, block.client, block.client_port, names),
            _endpoints(block, block.family, block.virtual, block.virtual_port, names),
            _locals(block, names) if local else repeat("", len(block.family)),
            _endpoints(block, block.destination_family, block.destination, block.destination_port, names),
            strict=True,
        )
    ]
    if persistent:
        for number, (name, data) in block.engines.items():
            if name and data:
                # The real program pads the server to sixteen here.
                before, _, server = lines[number][:-1].rpartition(" ")
                lines[number] = f"{before} {server:<16} {name:<18} {data}\n"
    return "".join(lines)


def _locals(block: ConnectionBlock, names: Names | None) -> list[str]:
    texts = _endpoints(block, block.destination_family, block.local, block.local_port, names)
    ports = block.local_port.tolist()
    return [f"{text if port else '-':<18} " for text, port in zip(texts, ports, strict=True)]


def _heads(block: ConnectionBlock) -> list[str]:
    """Protocol, expiry and state: few of them differ, so each is made once."""
    import numpy

    seconds = block.expires.astype(numpy.int64).clip(0)
    keys, places = numpy.unique(
        seconds << 16 | block.protocol.astype(numpy.int64) << 8 | block.state, return_inverse=True
    )
    made = []
    for key in keys.tolist():
        minutes, rest = divmod(key >> 16, 60)
        expiry = f"{minutes:02d}:{rest:02d}"
        state = block.state_names[key & 0xFF]
        made.append(f"{protocol_name(key >> 8 & 0xFF):<3} {expiry:<6} {state:<11} ")
    return [made[place] for place in places.tolist()]


def _endpoints(
    block: ConnectionBlock, family: Any, address: Any, port: Any, names: Names | None
) -> Iterable[str]:
    if names is not None:
        protocols = (protocol if protocol in _NAMED else 0 for protocol in block.protocol.tolist())
        return [
            endpoint(kind, bytes(each[: 4 if kind == AF_INET else 16]), number, protocol, names)
            for kind, each, number, protocol in zip(
                family.tolist(), address, port.tolist(), protocols, strict=True
            )
        ]
    if (family == AF_INET).all():
        return [
            f"{a}.{b}.{c}.{d}:{number}"
            for (a, b, c, d), number in zip(address[:, :4].tolist(), port.tolist(), strict=True)
        ]
    return [
        f"{each[0]}.{each[1]}.{each[2]}.{each[3]}:{number}"
        if kind == AF_INET
        else f"[{socket.inet_ntop(AF_INET6, each.tobytes())}]:{number}"
        for kind, each, number in zip(family.tolist(), address, port.tolist(), strict=True)
    ]
