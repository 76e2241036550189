"""What this data plane does not carry yet, in one place: deleting a line here is how it arrives.

An engine asks after the kernel's own checks (``ruleset``), so that a wrong command gets
the kernel's answer and a right one is refused in words rather than accepted and ignored.
"""

from __future__ import annotations

from xlvs.errors import NotCarried
from xlvs.model import L4, Destination, Service, TunnelType


def require_service(service: Service) -> None:
    """Raise :class:`NotCarried` naming the first thing of a service that is not carried."""
    if service.key.protocol == L4.SCTP:
        _refuse("SCTP services (--sctp-service)")


def require_destination(destination: Destination) -> None:
    """Raise :class:`NotCarried` naming the first thing of a destination that is not carried."""
    if destination.tunnel.type != TunnelType.IPIP:
        _refuse(f"{destination.tunnel.type.name} tunnels (--tun-type)")


def _refuse(what: str) -> None:
    raise NotCarried(f"this data plane does not carry {what} yet")
