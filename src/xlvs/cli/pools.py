"""What `xlvs status` says of FULLNAT's local addresses."""

from __future__ import annotations

import socket
from typing import Any

from xlvs.cli.engine import open_data_plane
from xlvs.dataplane import layout
from xlvs.dataplane.host import Host
from xlvs.dataplane.tables import Tables
from xlvs.ipvsadm.listing import pool_gaps
from xlvs.model import Forward

_NAMED = 5  # addresses in a line


def collect(tables: Tables, host: Host) -> dict[str, Any] | None:
    """Addresses in use, those that are no address of this host, and what is missing; None without FULLNAT."""
    if not (tables.settings.locals_next or _has_servers(tables)):
        return None
    entries = open_data_plane("xdp").services()
    used = dict.fromkeys(address for entry in entries for address in entry.local_addresses)
    return {
        "used": len(used),
        "not_of_this_host": [_text(address) for address in used if not host.is_local(address)],
        "missing": [gap for entry in entries for gap in pool_gaps(entry)],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    strange = found["not_of_this_host"]
    named = ", ".join(strange[:_NAMED]) + (", ..." if len(strange) > _NAMED else "")
    warning = f", {len(strange)} of them no address of this host: answers must be routed here ({named})"
    text = [f"locals:     {found['used']}{warning if strange else ''}"]
    return text + [f"missing:    {gap}" for gap in found["missing"]]


def _has_servers(tables: Tables) -> bool:
    # The method is the fourth byte of the word that begins with the port.
    words = tables.column("dests", layout.DestRow, "port", tables.settings.dests_high)
    return any(word >> 24 == Forward.FULLNAT for word in words)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
