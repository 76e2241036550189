"""What the data plane remembers of fragmented datagrams, for the helper."""

from __future__ import annotations

import ctypes

from xlvs.dataplane import layout_events, libbpf
from xlvs.dataplane.tables import Tables

LIFE = 30  # seconds, as DATAGRAM_SECONDS of bpf/fragment.h: net.ipv4.ipfrag_time


def first_came(tables: Tables, key: bytes) -> bool:
    """Whether the first fragment of the datagram with this key (struct xlvs_datagram_key) came lately."""
    found = libbpf.lookup(tables.fd("datagrams"), key, ctypes.sizeof(layout_events.DatagramRow))
    if found is None:
        return False
    settings, row = tables.settings, layout_events.DatagramRow.from_buffer_copy(found)
    age: int = (settings.now - row.seen) & 0xFFFFFFFF
    return age < LIFE * settings.hz or age > 0x7FFFFFFF  # seen after the last tick


def count_given_up(tables: Tables, frames: int) -> None:
    """Count frames that the helper gave up."""
    settings = tables.settings
    settings.helper_dropped = (settings.helper_dropped + frames) & 0xFFFFFFFF
