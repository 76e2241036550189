"""bpf/abi/event.h and bpf/abi/fragment.h in Python: what the helper is told, and looks up.

Compared with the compiled objects' BTF in tests/abi, as layout.py is.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint32

from xlvs.dataplane.layout import Address

EVENTS_SIZE, EVENT_FRAME, EVENT_SHORT = 1 << 20, 3392, 192
# enum xlvs_event_kind
EVENT_EARLY, EVENT_FIRST, EVENT_SPLIT, EVENT_EXPIRED = range(4)
EVENT_UNANSWERED, EVENT_HELD, EVENT_ANSWERED = range(4, 7)
DATAGRAMS, WAITING = 32768, 4096
DATAGRAM_FLOW, DATAGRAM_KERNEL, DATAGRAM_BROKEN = range(3)


class EventHead(ctypes.Structure):
    """struct xlvs_event"""

    _fields_ = (
        ("kind", c_uint32),
        ("ifindex", c_uint32),
        ("slot", c_uint32),
        ("phase", c_uint32),
        ("length", c_uint32),
        ("value", c_uint32),
    )


class DatagramKey(ctypes.Structure):
    """struct xlvs_datagram_key"""

    _fields_ = (
        ("saddr", Address),
        ("daddr", Address),
        ("id", c_uint32),
        ("protocol", c_uint8),
        ("family", c_uint8),
        ("pad", c_uint8 * 2),
    )


class DatagramRow(ctypes.Structure):
    """struct xlvs_datagram"""

    _fields_ = (
        ("kind", c_uint32),
        ("ref", c_uint32),
        ("generation", c_uint32),
        ("seen", c_uint32),
        ("ports", c_uint32),
    )
