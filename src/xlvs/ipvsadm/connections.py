"""The listing of connections (``-L -c``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xlvs.ipvsadm.names import Names, endpoint
from xlvs.model import L4, ConnectionEntry

TITLE = "IPVS connection entries"
_COLUMNS = f"pro expire {'state':<11} {'source':<18} {'virtual':<18} "
_PLAIN = f"{_COLUMNS}destination"
_PERSISTENT = f"{_COLUMNS}{'destination':<18} {'pe name':<16} pe_data"
# IPVS's names of protocols; a template of a firewall mark has none, which is IP.
_PROTOCOL = {0: "IP", 6: "TCP", 17: "UDP", 132: "SCTP", 50: "ESP", 51: "AH", 1: "ICMP", 58: "ICMPv6"}
_NAMED = (L4.TCP, L4.UDP, L4.SCTP)


def connection_lines(
    entries: Iterable[ConnectionEntry], persistent: bool, names: Names | None
) -> Iterator[str]:
    """Title, columns and one line a connection, in the data plane's own order."""
    yield TITLE
    yield _PERSISTENT if persistent else _PLAIN
    for entry in entries:
        protocol = entry.protocol if entry.protocol in _NAMED else 0
        client = endpoint(entry.family, entry.client, entry.client_port, protocol, names)
        virtual = endpoint(entry.family, entry.virtual, entry.virtual_port, protocol, names)
        server = endpoint(
            entry.destination_family, entry.destination, entry.destination_port, protocol, names
        )
        name = protocol_name(entry.protocol)
        minutes, seconds = divmod(max(0, int(entry.expires)), 60)
        line = f"{name:<3} {f'{minutes:02d}:{seconds:02d}':<6} {entry.state:<11} {client:<18} {virtual:<18} "
        if persistent and entry.pe_name and entry.pe_data:
            yield f"{line}{server:<16} {entry.pe_name:<18} {entry.pe_data}"
        else:
            yield line + server


def protocol_name(protocol: int) -> str:
    """IPVS's name of an IP protocol."""
    return _PROTOCOL.get(protocol) or f"IP_{protocol}"
