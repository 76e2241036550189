"""A virtual server of the configuration as the services and destinations of a data plane."""

from __future__ import annotations

from xlvs.health.checks import Address
from xlvs.keepalived.config import RealServer, Vip, VirtualServer
from xlvs.model import (
    AF_INET,
    AF_INET6,
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceFlag,
    ServiceKey,
)

# The flags' names in keepalived.conf. What they mean is the scheduler's to say (linux/ip_vs.h).
_FLAGS = {
    "flag-1": ServiceFlag.SCHED1,
    "flag-2": ServiceFlag.SCHED2,
    "flag-3": ServiceFlag.SCHED3,
    "sh-fallback": ServiceFlag.SCHED1,
    "sh-port": ServiceFlag.SCHED2,
    "mh-fallback": ServiceFlag.SCHED1,
    "mh-port": ServiceFlag.SCHED2,
}
# A service without persistence tells clients apart by whole addresses.
_WHOLE = {AF_INET: 0xFFFFFFFF, AF_INET6: 128}


def service_of(server: VirtualServer, vip: Vip) -> Service:
    """The service of one address or mark of a virtual server."""
    flags = ServiceFlag(0)
    for name in server.flags:
        flags |= _FLAGS.get(name, ServiceFlag(0))
    if server.persistence is not None:
        flags |= ServiceFlag.PERSISTENT
    if server.ops:
        flags |= ServiceFlag.ONEPACKET
    whole = _WHOLE[vip.family]
    return Service(
        key_of(server, vip),
        server.scheduler,
        flags,
        server.persistence or 0,
        whole if server.granularity is None else server.granularity,
        server.persistence_engine,
        server.synproxy,
    )


def key_of(server: VirtualServer, vip: Vip) -> ServiceKey:
    """What that service is found by."""
    if vip.fwmark or vip.address is None:
        return ServiceKey(vip.family, 0, b"", 0, vip.fwmark)
    return ServiceKey(vip.family, server.protocol, vip.address.packed, vip.port)


def destination_of(real: RealServer, vip: Vip, weight: int) -> Destination:
    """A real server in the service of this address, with this weight."""
    return Destination(destination_key(real, vip), real.forward, weight, real.upper, real.lower, real.tunnel)


def destination_key(real: RealServer, vip: Vip) -> DestinationKey:
    """What it is found by there. Only NAT and FULLNAT can change the port; without one it stays."""
    mapped = real.forward in (Forward.MASQ, Forward.FULLNAT)
    port = real.port if real.port and mapped else vip.port
    return DestinationKey(family_of(real.address), real.address.packed, port)


def local_addresses(server: VirtualServer) -> tuple[bytes, ...]:
    """FULLNAT's addresses of all its services, packed."""
    return tuple(address.packed for address in server.local_addresses)


def family_of(address: Address) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6
