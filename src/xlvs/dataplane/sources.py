"""The director's own address towards each real server, where the data plane speaks in its name.

Tunnels have it as their outer source; ICMP to a real server under NAT or FULLNAT (nat_icmp_send), too.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.dataplane import journal, layout
from xlvs.dataplane.host import Host
from xlvs.dataplane.journal import Write
from xlvs.dataplane.tables import Tables
from xlvs.model import Forward


def needed(forward: int, settings: layout.Settings) -> bool:
    """Whether a destination of this method needs a source."""
    translated = forward in (Forward.MASQ, Forward.FULLNAT)
    return forward == Forward.TUNNEL or (translated and settings.sysctl.nat_icmp_send != 0)


def under_nat(tables: Tables, host: Host) -> Iterator[Write]:
    """The sources of all destinations of NAT and FULLNAT: when nat_icmp_send begins to need them."""
    used = tables.settings.dests_high
    flags = tables.column("dests", layout.DestRow, "flags", used)
    for number, flag in enumerate(flags):
        row = tables.dest_row(number)
        if flag & layout.DEST_AVAILABLE and row.forward in (Forward.MASQ, Forward.FULLNAT):
            source = host.source_towards(layout.plain_address(row.address, row.family))
            if source:
                yield from journal.field("dests", layout.DestRow, number, source=layout.wire_address(source))
