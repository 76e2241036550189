"""What instances need of the node besides addresses: virtual MACs, sysctls, filters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from xlvs.daemon.vrrp.places import Place, Site, promoted
from xlvs.keepalived.config import Config
from xlvs.network import virtual_mac
from xlvs.network.ip_commands import Commands, filter_now
from xlvs.network.links import Links
from xlvs.network.virtual_mac import Filter, VirtualMac

# With a virtual MAC above it, an interface answers for its own addresses alone.
_PARENT_SETTINGS = (("arp_ignore", "1"), ("arp_filter", "1"))

log = logging.getLogger(__name__)


class Devices:
    """Keeps the node as the configuration wants it, and gives back what it changed."""

    def __init__(self, links: Links, commands: Commands) -> None:
        self._links, self._commands = links, commands
        self._vmacs: dict[str, VirtualMac] = {}
        self._sysctls: dict[tuple[str, str], str | None] = {}
        self._refused: dict[str, tuple[Place, ...]] = {}
        self._filter_settings = Filter()
        self._filtered = Filter()  # what nft was asked for last
        self._filter_due = False

    def load(self, config: Config, sites: Mapping[str, Site]) -> None:
        """Make what is new, remove what is not wanted any more."""
        self._filter_settings = _filter_settings(config)
        wanted = {vmac.name: vmac for site in sites.values() for vmac in site.vmacs}
        for name in set(self._vmacs) - set(wanted):
            self._remove_vmac(name)
        new = [device for name, device in wanted.items() if self._vmacs.get(name) != device]
        self._vmacs |= {device.name: device for device in new}
        self._make_vmacs(new)
        self._set_sysctls(config)
        self._filter()

    def restore(self, changed: Collection[str]) -> None:
        """A parent that was away is back, whose virtual MACs went with it; or somebody took one away."""
        back = [
            device
            for device in self._vmacs.values()
            if {device.parent, device.name} & set(changed)
            and self._links.get(device.parent)
            and not self._links.get(device.name)
        ]
        if back:
            self._filtered = Filter()  # rules that named the parent named one that is no more
            self._make_vmacs(back)
            self._filter()
            self._links.read()

    def unload(self) -> None:
        """Give everything back."""
        for name in list(self._vmacs):
            self._remove_vmac(name)
        self._refused = {}
        self._filter()
        for (interface, name), value in self._sysctls.items():
            if value is not None:
                virtual_mac.set_sysctl("ipv4", interface, name, value)
        self._sysctls.clear()

    def refuse(self, name: str, places: tuple[Place, ...]) -> None:
        """While an instance without accept mode is master, nobody talks to its addresses."""
        before = self._refused.pop(name, ())
        if places:
            self._refused[name] = places
        if places != before and not self._filter_due:
            # Many instances change at once: one filter for all of them.
            self._filter_due = True
            asyncio.get_running_loop().call_soon(self._filter)

    # -- the parts ----------------------------------------------------------------------

    def _make_vmacs(self, devices: Collection[VirtualMac]) -> None:
        """Those whose parent is there. The filter comes first: a backup's virtual MAC must not be heard."""
        found = [(device, parent) for device in devices if (parent := self._links.get(device.parent))]
        if any(device.mac is not None for device, _ in found):
            filter_now(self._wanted_filter().text())
        for device, parent in found:
            masters = (
                link.name for link in self._links if link.index == parent.master and link.kind == "vrf"
            )
            virtual_mac.make(device, parent.addresses, next(masters, ""))
            log.debug("Success creating VMAC interface %s", device.name)

    def _remove_vmac(self, name: str) -> None:
        virtual_mac.remove(name)
        del self._vmacs[name]
        log.debug("Success removing VMAC interface %s", name)

    def _set_sysctls(self, config: Config) -> None:
        wanted = {
            (device.parent, name): value
            for device in self._vmacs.values()
            for name, value in _PARENT_SETTINGS
        }
        wanted |= {(interface, "promote_secondaries"): "1" for interface in promoted(config.instances)}
        if "disable_local_igmp" in config.globals.others:
            # The other way to keep reports of a backup's virtual MAC off the wire.
            wanted["", "igmp_link_local_mcast_reports"] = "0"
        for (interface, name), value in wanted.items():
            if (interface, name) not in self._sysctls:
                self._sysctls[interface, name] = virtual_mac.get_sysctl("ipv4", interface, name)
                virtual_mac.set_sysctl("ipv4", interface, name, value)
        for interface, name in set(self._sysctls) - set(wanted):
            was = self._sysctls.pop((interface, name))
            if was is not None:
                virtual_mac.set_sysctl("ipv4", interface, name, was)

    def _filter(self) -> None:
        self._filter_due = False
        wanted, before = self._wanted_filter(), self._filtered
        self._filtered = wanted
        if before and before.table != wanted.table:
            self._commands.load_filter(Filter(before.table).text())
        if wanted != before and (wanted or before):
            self._commands.load_filter(wanted.text())

    def _wanted_filter(self) -> Filter:
        refused = {
            (place.address.address.ip, place.device): None
            for each in self._refused.values()
            for place in each
        }
        macvlans = (
            (one.name, one.parent)
            for one in self._vmacs.values()
            if one.mac is not None and self._links.get(one.parent)
        )
        return replace(self._filter_settings, macvlans=tuple(macvlans), refused=tuple(refused))


def _filter_settings(config: Config) -> Filter:
    others = config.globals.others
    named, priority = others.get("nftables", ()), others.get("nftables_priority", ())
    settings = Filter(counters="nftables_counters" in others)
    if named:
        settings = replace(settings, table=named[0])
    return replace(settings, priority=int(priority[0])) if priority else settings
