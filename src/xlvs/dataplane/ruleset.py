"""What the kernel's IPVS accepts: its checks, in its order, with its errno. Pure.

An engine asks, inside its transaction:

- add a service: EEXIST if it is there, then :func:`check_service`;
- edit a service: ESRCH if it is not there, then :func:`check_service`, and :func:`settle_service`;
- add a destination: ESRCH without its service, :func:`check_destination`, EEXIST if it
  is there, then :func:`check_address`;
- edit a destination: ESRCH, :func:`check_destination`, ENOENT if it is not there;
- add or delete local addresses: ESRCH, :func:`with_local_addresses` or :func:`without_local_addresses`;
- timeouts: :func:`merge_timeouts`;
- start a synchronisation daemon: :func:`settle_daemon`.

Every failure is an :class:`xlvs.errors.IpvsError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from errno import EEXIST, EINVAL, ENODEV, ENOENT, ERANGE

from xlvs.dataplane.host import Host
from xlvs.errors import IpvsError
from xlvs.model import (
    AF_INET6,
    L4,
    ClientAddress,
    Destination,
    Forward,
    Service,
    ServiceKey,
    SyncDaemon,
    SynProxy,
    Timeouts,
    TunnelType,
)

# Every scheduler of the kernel's source; "none" is its word for a service without one.
SCHEDULERS = frozenset(
    ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos", "none")
)
PERSISTENCE_ENGINES = frozenset(("sip",))

# What a synchronisation daemon does where nothing else is said (net/ip_vs.h: IP_VS_SYNC_GROUP and so on).
SYNC_GROUP = bytes((224, 0, 0, 81))
SYNC_PORT = 8848
_ETHERNET_MTU = 1500
_BACKUP_LEAST = 1024  # bytes that a backup is always ready to take
_DATAGRAM = 65535


def check_service(service: Service) -> None:
    """ENOENT for an unknown scheduler or persistence engine, EINVAL for a bad IPv6 prefix length."""
    if service.scheduler not in SCHEDULERS:
        raise IpvsError(ENOENT)
    if service.pe_name and service.pe_name not in PERSISTENCE_ENGINES:
        raise IpvsError(ENOENT)
    if service.key.family == AF_INET6 and not 1 <= service.netmask <= 128:
        raise IpvsError(EINVAL)


def settle_service(service: Service, old: Service | None = None) -> Service:
    """The service with what it does not say of ours as it was before, or as it begins."""
    if service.synproxy is None:
        service = replace(service, synproxy=old.synproxy if old else SynProxy.OFF)
    if service.client_address is None:
        told = old.client_address if old else ClientAddress.BY_METHOD
        service = replace(service, client_address=told)
    return service


def client_address(service: Service, methods: Iterable[Forward]) -> ClientAddress:
    """What becomes of ClientAddress.BY_METHOD with destinations of these methods; SCTP has no such option."""
    told = service.client_address or ClientAddress.NONE
    if told != ClientAddress.BY_METHOD:
        return told
    by_option = service.key.protocol != L4.SCTP and Forward.FULLNAT in methods
    return ClientAddress.TOA if by_option else ClientAddress.NONE


def with_local_addresses(there: Collection[bytes], added: Iterable[bytes]) -> list[bytes]:
    """Local addresses with more of them. EINVAL for one that is not unicast, EEXIST for one that is there.

    The error's text is the address.
    """
    found = dict.fromkeys(there)
    for address in added:
        if not _is_local_address(address):
            raise IpvsError(EINVAL, _text(address))
        if address in found:
            raise IpvsError(EEXIST, _text(address))
        found[address] = None
    return sorted(found, key=len)


def without_local_addresses(there: Collection[bytes], removed: Iterable[bytes]) -> list[bytes]:
    """Local addresses with fewer of them. ENOENT for one not there; the error's text is the address."""
    found = dict.fromkeys(there)
    for address in removed:
        if address not in found:
            raise IpvsError(ENOENT, _text(address))
        del found[address]
    return list(found)


def _is_local_address(address: bytes) -> bool:
    """One that a real server can answer to: unicast, and no loopback or link-local address."""
    if len(address) == 16:
        return _is_unicast6(address, link_local=False) and address != bytes(15) + b"\1"
    return 0 < address[0] < 224 and address[0] != 127


def _text(address: bytes) -> str:
    from ipaddress import ip_address  # for messages only: a restore of rules needs none

    return str(ip_address(address))


def check_destination(key: ServiceKey, destination: Destination, *, synchronised: bool = False) -> None:
    """EINVAL for a mixed family outside a tunnel and FULLNAT or GUE without a port, ERANGE for bad numbers.

    ``synchronised`` says that a synchronisation daemon runs: its protocol knows no mixed families.
    """
    mixed = destination.key.family != key.family
    if mixed and (synchronised or destination.forward not in (Forward.TUNNEL, Forward.FULLNAT)):
        raise IpvsError(EINVAL)
    if destination.weight < 0 or destination.lower > destination.upper:
        raise IpvsError(ERANGE)
    if destination.tunnel.type == TunnelType.GUE and not destination.tunnel.port:
        raise IpvsError(EINVAL)


def check_address(destination: Destination, *, local: bool = False, broadcast: bool = False) -> None:
    """EINVAL unless a new destination's address is unicast.

    ``local`` says that the address is this machine's own, which allows an IPv6
    link-local one; ``broadcast`` that it is the broadcast address of one of its networks.
    """
    address = destination.key.address
    if destination.key.family == AF_INET6:
        unicast = _is_unicast6(address, link_local=local)
    else:
        # The kernel's inet_addr_type(): 0.0.0.0 and 255.255.255.255 are broadcast, 224/4 is multicast.
        unicast = not (broadcast or address[0] >> 4 == 14 or address in (bytes(4), b"\xff\xff\xff\xff"))
    if not unicast:
        raise IpvsError(EINVAL)


def merge_timeouts(current: Timeouts, wanted: Timeouts) -> Timeouts:
    """The timeouts after a change, in which a 0 leaves that one as it is."""
    return Timeouts(
        tcp=wanted.tcp or current.tcp,
        tcp_fin=wanted.tcp_fin or current.tcp_fin,
        udp=wanted.udp or current.udp,
    )


def settle_daemon(daemon: SyncDaemon, running: Collection[str], host: Host, *, mixed: bool) -> SyncDaemon:
    """The daemon with its defaults filled in and its numbers made to fit, as start_sync_thread() does.

    ``running`` are the roles that run, ``mixed`` says that there are destinations of another
    family than their service. EINVAL, ENODEV, EEXIST, and what the interface says (ENETUNREACH).
    """
    if mixed:
        raise IpvsError(EINVAL)
    mtu = host.interface_mtu(daemon.interface)
    if mtu is None:
        raise IpvsError(ENODEV)
    if daemon.role in running:
        raise IpvsError(EEXIST)
    backup = daemon.role == "backup"
    group = daemon.group or SYNC_GROUP
    if error := host.multicast_error(daemon.interface, group, sending=not backup):
        raise IpvsError(error)
    headers = (20 if len(group) == 4 else 40) + 8
    if daemon.maxlen:
        least = _BACKUP_LEAST if backup else 1
        maxlen = min(max(daemon.maxlen, least), _DATAGRAM - headers)
    else:
        maxlen = (min(max(mtu, _ETHERNET_MTU), _DATAGRAM) if backup else _ETHERNET_MTU) - headers
    return replace(daemon, group=group, maxlen=maxlen, port=daemon.port or SYNC_PORT, ttl=daemon.ttl or 1)


def _is_unicast6(address: bytes, *, link_local: bool) -> bool:
    """Unicast in the sense of the kernel's ipv6_addr_type(), link-local ones where allowed."""
    if address[0] == 0xFF or address == bytes(16):
        return False
    if address[0] == 0xFE and address[1] & 0xC0 == 0x80:
        return link_local
    return address[:12] != bytes(10) + b"\xff\xff"  # v4-mapped has a type of its own there
