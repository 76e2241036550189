"""What of a configuration and of the node's interfaces makes an instance's place on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from xlvs.daemon.vrrp.pools import Key, Membership
from xlvs.keepalived.config import Config, Instance
from xlvs.network.links import Link
from xlvs.vrrp.packet import TTL
from xlvs.vrrp.settings import Settings

Address = IPv4Address | IPv6Address


def identity(instance: Instance) -> tuple[object, ...]:
    """What makes it another virtual router: nothing of the old one's state is worth keeping.

    As keepalived has it: one that goes on in the other version of the protocol stays what it was.
    """
    return (
        instance.interface,
        instance.router_id,
        instance.family,
        instance.unicast,
        instance.vmac,
        instance.ipvlan,
        instance.vmac_name,
        instance.vmac_addr,
    )


def membership(
    settings: Settings,
    instance: Instance,
    wire: Link | None,
    source: Address | None,
    others: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Membership:
    """The socket that an instance uses, and what it sends with; ``others`` are those of global_defs."""
    unicast = instance.unicast
    key = Key(
        interface=wire.name if wire else instance.vrf,
        ifindex=wire.index if wire else 0,
        family=settings.family,
        authenticated=settings.auth == "AH",
        group=None if unicast else settings.destinations[0],
        source=source if unicast else None,
    )
    return Membership(
        key=key,
        router_id=settings.router_id,
        destinations=settings.destinations,
        ttl=instance.ttl or TTL,
        receive_buffer=instance.kernel_rx_buf or _receive_buffer(settings, wire, others),
    )


def _receive_buffer(settings: Settings, wire: Link | None, others: Mapping[str, tuple[str, ...]]) -> int:
    """Bytes that a socket holds on an instance's account (vrrp_rx_bufs_policy); 0: as the system has it."""
    policy = others.get("vrrp_rx_bufs_policy", ("0",))[0]
    if policy not in ("MTU", "ADVERT"):
        return int(policy)
    if policy == "MTU":
        size = wire.mtu if wire else 0
    else:
        # The whole packet as keepalived counts it: IPv6's own header is not in.
        size = 8 + len(settings.addresses) * (4 if settings.family == 4 else 16)
        size += (20 if settings.family == 4 else 0) + (8 if settings.version == 2 else 0)
        size += 24 if settings.auth == "AH" else 0
    return size * int(others.get("vrrp_rx_bufs_multiplier", ("3",))[0])


def primary(link: Link | None, instance: Instance, virtual: set[Address]) -> Address | None:
    """The interface's own address that adverts come from: IPv6 ones must be link-local (RFC 5798 5.1.2.1)."""
    if link is None:
        return None
    if instance.ipvlan_address is not None and instance.ipvlan_address.ip in link.addresses:
        return instance.ipvlan_address.ip
    six = instance.family != 2  # AF_INET
    for address in link.addresses:
        if address in virtual or (address.version == 6) != six or (six and not address.is_link_local):
            continue
        return address
    return None


def tracked_interfaces(config: Config) -> set[str]:
    """Every interface that an instance or a group tracks."""
    return {
        one.name
        for tracked in (
            *(instance.track_interfaces for instance in config.instances),
            *(group.track_interfaces for group in config.groups),
        )
        for one in tracked
    }
