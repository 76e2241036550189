"""What the kernel's IPVS accepts: its checks, in its order, with its errno. Pure.

An engine asks, inside its transaction:

- add a service: EEXIST if it is there, then :func:`check_service`;
- edit a service: ESRCH if it is not there, then :func:`check_service`;
- add a destination: ESRCH without its service, :func:`check_destination`, EEXIST if it
  is there, then :func:`check_address`;
- edit a destination: ESRCH, :func:`check_destination`, ENOENT if it is not there;
- timeouts: :func:`merge_timeouts`.

Every failure is an :class:`xlvs.errors.IpvsError`.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ERANGE

from xlvs.errors import IpvsError
from xlvs.model import AF_INET6, Destination, Forward, Service, ServiceKey, Timeouts, TunnelType

# Every scheduler of the kernel's source; "none" is its word for a service without one.
SCHEDULERS = frozenset(
    ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos", "none")
)
PERSISTENCE_ENGINES = frozenset(("sip",))


def check_service(service: Service) -> None:
    """ENOENT for an unknown scheduler or persistence engine, EINVAL for a bad IPv6 prefix length."""
    if service.scheduler not in SCHEDULERS:
        raise IpvsError(ENOENT)
    if service.pe_name and service.pe_name not in PERSISTENCE_ENGINES:
        raise IpvsError(ENOENT)
    if service.key.family == AF_INET6 and not 1 <= service.netmask <= 128:
        raise IpvsError(EINVAL)


def check_destination(key: ServiceKey, destination: Destination) -> None:
    """EINVAL for a mixed family outside a tunnel or GUE without a port, ERANGE for bad numbers."""
    if destination.key.family != key.family and destination.forward != Forward.TUNNEL:
        raise IpvsError(EINVAL)
    if destination.weight < 0 or destination.lower > destination.upper:
        raise IpvsError(ERANGE)
    if destination.tunnel.type == TunnelType.GUE and not destination.tunnel.port:
        raise IpvsError(EINVAL)


def check_address(destination: Destination, *, local: bool = False) -> None:
    """EINVAL unless a new destination's address is unicast.

    ``local`` says that the address is this machine's own, which allows an IPv6
    link-local one. A broadcast address of one of its networks is for the engine to
    refuse: only it knows them.
    """
    address = destination.key.address
    if destination.key.family == AF_INET6:
        unicast = _is_unicast6(address, link_local=local)
    else:
        # The kernel's inet_addr_type(): 0.0.0.0 and 255.255.255.255 are broadcast, 224/4 is multicast.
        unicast = address[0] >> 4 != 14 and address not in (bytes(4), b"\xff\xff\xff\xff")
    if not unicast:
        raise IpvsError(EINVAL)


def merge_timeouts(current: Timeouts, wanted: Timeouts) -> Timeouts:
    """The timeouts after a change, in which a 0 leaves that one as it is."""
    return Timeouts(
        tcp=wanted.tcp or current.tcp,
        tcp_fin=wanted.tcp_fin or current.tcp_fin,
        udp=wanted.udp or current.udp,
    )


def _is_unicast6(address: bytes, *, link_local: bool) -> bool:
    """Unicast in the sense of the kernel's ipv6_addr_type(), link-local ones where allowed."""
    if address[0] == 0xFF or address == bytes(16):
        return False
    if address[0] == 0xFE and address[1] & 0xC0 == 0x80:
        return link_local
    return address[:12] != bytes(10) + b"\xff\xff"  # v4-mapped has a type of its own there
