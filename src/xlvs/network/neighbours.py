"""Neighbours that the kernel keeps resolved, and VLAN devices: rtnetlink through pyroute2."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from xlvs.dataplane.host import VlanDevice
from xlvs.network.addresses import SocketHost

NTF_EXT_MANAGED = 1  # linux/neighbour.h: the kernel probes it for as long as it is there
PROTOCOL = 0x76  # "v": who made an entry (NDA_PROTOCOL), so that it can be found again
_ETH_P_8021Q = 0x8100
_BY_HAND = 0x80 | 0x40  # NUD_PERMANENT, NUD_NOARP
# Addresses that only a default route leads to: they stand for every client's.
_ANYWHERE = (bytes((240, 0, 0, 1)), bytes((0x40, *bytes(14), 1)))
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.ENETDOWN, errno.EOPNOTSUPP)


class NetlinkHost(SocketHost):
    """:class:`xlvs.dataplane.host.Host`; opens a netlink socket only when asked for links."""

    def vlan_devices(self, parents: Iterable[int]) -> list[VlanDevice]:
        """VLAN devices whose lowest device is one of ``parents``."""
        with _netlink() as netlink:
            links = {link["index"]: link for link in netlink.get_links()}
        wanted = set(parents)
        found = []
        for index in links:
            tags: list[tuple[int, int]] = []
            at = index
            while at in links and _kind(links[at]) == "vlan":
                tags.insert(0, _tag(links[at]))
                at = links[at].get_attr("IFLA_LINK")
            if tags and len(tags) <= 2 and at in wanted:
                found.append(VlanDevice(index, at, tuple(tags)))
        return found

    def keep_resolved(self, addresses: Iterable[bytes]) -> None:
        """Make the entries of next hops and default gateways managed; those not needed any more go.

        What an operator has set by hand (permanent entries) stays as it is.
        """
        with _netlink() as netlink:
            there = {_name(entry): entry for entry in netlink.get_neighbours()}
            wanted = {*_next_hops(netlink, (*addresses, *_ANYWHERE))}
            for name in wanted:
                entry = there.get(name)
                if entry is None or not (_is_managed(entry) or entry["state"] & _BY_HAND):
                    _try(
                        netlink,
                        "replace",
                        name,
                        state=0,
                        NDA_FLAGS_EXT=NTF_EXT_MANAGED,
                        NDA_PROTOCOL=PROTOCOL,
                    )
            for name, entry in there.items():
                if name not in wanted and entry.get_attr("NDA_PROTOCOL") == PROTOCOL:
                    _try(netlink, "del", name)

    def release(self) -> None:
        """Delete the managed entries; the kernel makes plain ones when it needs them."""
        with _netlink() as netlink:
            for entry in netlink.get_neighbours():
                if entry.get_attr("NDA_PROTOCOL") == PROTOCOL:
                    _try(netlink, "del", _name(entry))


def _name(entry: Any) -> tuple[int, int, str]:
    return entry["family"], entry["ifindex"], entry.get_attr("NDA_DST")


def _is_managed(entry: Any) -> bool:
    return bool((entry.get_attr("NDA_FLAGS_EXT") or 0) & NTF_EXT_MANAGED)


def _try(netlink: Any, command: str, name: tuple[int, int, str], **options: int) -> None:
    """Change an entry; the world may have changed faster."""
    family, device, address = name
    try:
        netlink.neigh(command, family=family, ifindex=device, dst=address, **options)
    except _error_class() as error:
        # A device without neighbours (a tunnel) or one that went away meanwhile.
        if error.code not in _GONE:
            raise


def _netlink() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def _error_class() -> type[Any]:
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError  # type: ignore[no-any-return]


def _next_hops(netlink: Any, addresses: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """Family, ifindex and address of the neighbour towards each address that has one."""
    for address in addresses:
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        text = socket.inet_ntop(family, address)
        try:
            routes = netlink.route("get", dst=text, family=family)
        except _error_class():
            continue
        for route in routes:
            if route["type"] != 1:  # RTN_UNICAST
                continue
            device = route.get_attr("RTA_OIF")
            via = route.get_attr("RTA_VIA")
            if via:
                yield via["family"], device, via["addr"]
            else:
                yield family, device, route.get_attr("RTA_GATEWAY") or text


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def _tag(link: Any) -> tuple[int, int]:
    data = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    protocol = data.get_attr("IFLA_VLAN_PROTOCOL") or _ETH_P_8021Q
    return data.get_attr("IFLA_VLAN_ID"), protocol
