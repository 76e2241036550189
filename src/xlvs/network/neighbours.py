"""Neighbours that the kernel keeps resolved, and VLAN devices: rtnetlink through pyroute2."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from xlvs.dataplane.host import VlanDevice
from xlvs.network.addresses import SocketHost

NTF_EXT_MANAGED = 1  # linux/neighbour.h: the kernel probes it for as long as it is there
_ETH_P_8021Q = 0x8100


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
        """Make the next hop's neighbour entry a managed one, for every address with a route."""
        with _netlink() as netlink:
            for family, device, hop in {*_next_hops(netlink, addresses)}:
                try:
                    netlink.neigh(
                        "replace",
                        family=family,
                        ifindex=device,
                        dst=hop,
                        state=0,
                        NDA_FLAGS_EXT=NTF_EXT_MANAGED,
                    )
                except _error_class() as error:
                    # A device without neighbours (a tunnel) or one that went away meanwhile.
                    if error.code not in (errno.EINVAL, errno.ENODEV, errno.ENETDOWN, errno.EOPNOTSUPP):
                        raise

    def release(self, addresses: Iterable[bytes]) -> None:
        """Delete the managed entries; the kernel makes plain ones when it needs them."""
        with _netlink() as netlink:
            for family, device, hop in {*_next_hops(netlink, addresses)}:
                try:
                    netlink.neigh("del", family=family, ifindex=device, dst=hop)
                except _error_class() as error:
                    if error.code not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
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
