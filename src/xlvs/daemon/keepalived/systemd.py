"""What systemd wants to hear of a service of Type=notify (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def tell(*lines: str) -> None:
    """Send states such as ``READY=1``; nothing happens where nobody asked for them."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
        messenger.sendto("\n".join(lines).encode(), address)


def reloading() -> tuple[str, str]:
    """What goes before the ``READY=1`` that ends a reload."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
