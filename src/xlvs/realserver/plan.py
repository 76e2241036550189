"""Which steps a real server needs: pure, from the method, the VIPs and what the machine has."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from xlvs.errors import XlvsError
from xlvs.realserver.steps import Decapsulator, Ip6Tunnel, ModuleTunnel, Step, Sysctl, VipAddress

METHODS = ("dr", "tun")
# The devices of --kernel-tunnel: two that their modules bring along, and our own for IPv6 outside.
IP6_TUNNEL = "xlvs-ip6tnl"
TUNNEL_DEVICES = ("tunl0", "sit0", IP6_TUNNEL)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the plan must know of the machine.

    ``addresses`` are each interface's addresses with prefix lengths; ``rp_filter`` the
    reverse path filter in force on the interface (the greater of ``all`` and its own).
    """

    interface: str
    addresses: dict[str, list[str]]
    rp_filter: int

    @property
    def own(self) -> tuple[str, ...]:
        """The interface's addresses: where tunnels end."""
        return tuple(address.partition("/")[0] for address in self.addresses.get(self.interface, []))


def plan(
    method: str,
    vips: list[str],
    machine: Machine,
    kernel_tunnel: bool = False,
    gue_ports: tuple[int, ...] = (),
) -> list[Step]:
    """The steps in the order to do them in: silence before the address, the tunnel end last.

    Our own tunnel end takes in IP in IP and GRE, and GUE by ``gue_ports``.

    Raises XlvsError where a VIP is no unicast address or sits on another interface,
    where it would be answered for.
    """
    chosen = tuple(dict.fromkeys(_checked(vip, machine) for vip in vips))
    ipv4 = [vip for vip in chosen if ":" not in vip]
    steps: list[Step] = []
    if ipv4:
        # Answer ARP only for addresses of the asked interface, and never ask in a VIP's name.
        # IPv6 needs neither: a neighbour solicitation is answered for the interface's own only.
        for scope in ("all", machine.interface):
            steps.append(_conf(scope, "arp_ignore", "1"))
            steps.append(_conf(scope, "arp_announce", "2"))
    if method == "tun" and ipv4 and machine.rp_filter == 1:
        # Packets come by another way than the route back to the client would go.
        steps.append(_conf(machine.interface, "rp_filter", "2"))
    steps += [VipAddress(vip) for vip in chosen]
    if method == "tun":
        if not machine.own:
            raise XlvsError(f"{machine.interface} has no address for a tunnel to end at")
        steps += _kernel_tunnels(chosen, machine) if kernel_tunnel else []
        steps += [] if kernel_tunnel else [Decapsulator(machine.interface, machine.own, chosen, gue_ports)]
    return steps


def _kernel_tunnels(vips: tuple[str, ...], machine: Machine) -> list[Step]:
    steps: list[Step] = []
    ipv4, ipv6 = [vip for vip in vips if ":" not in vip], [vip for vip in vips if ":" in vip]
    ends4, ends6 = ([end for end in machine.own if (":" in end) is six] for six in (False, True))
    if ends4 and ipv4:
        steps += [ModuleTunnel("tunl0", "ipip"), *_lets_in("tunl0", ipv4)]
    if ends4 and ipv6:
        steps.append(ModuleTunnel("sit0", "sit"))
    for number, end in enumerate(ends6):
        device = f"{IP6_TUNNEL}{number}"
        steps += [Ip6Tunnel(device, end), *_lets_in(device, ipv4)]
    return steps


def _lets_in(device: str, ipv4: list[str]) -> list[Step]:
    """A device without an address fails even the loose reverse path filter: it gets the VIPs too."""
    if not ipv4:
        return []
    return [_conf(device, "rp_filter", "2"), *(VipAddress(vip, device) for vip in ipv4)]


def _conf(scope: str, name: str, value: str) -> Sysctl:
    # sysctl(8) reads a name with slashes literally, which a dot in an interface's name needs.
    path = f"net/ipv4/conf/{scope}/{name}"
    return Sysctl(path if "." in scope else path.replace("/", "."), value)


def _checked(vip: str, machine: Machine) -> str:
    try:
        address = ipaddress.ip_address(vip)
    except ValueError as error:
        raise XlvsError(f"'{vip}' is no IP address: a VIP is written without a prefix length") from error
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
        raise XlvsError(f"{vip} cannot be a VIP: it is no unicast address that clients can reach")
    for interface, present in machine.addresses.items():
        silent = interface == "lo" or interface.startswith(TUNNEL_DEVICES)
        if not silent and str(address) in (entry.partition("/")[0] for entry in present):
            raise XlvsError(
                f"{vip} is on {interface}, which answers for it on the wire: take it off, it belongs on lo"
            )
    return str(address)
