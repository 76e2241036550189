"""What a lab consists of: a pure description, made from a method and a few numbers.

The machines are those of the NAT article: its VIP and RIPs where the method allows.
Every interface is one end of a veth pair; the other end is a port of a bridge in one
more namespace, the ``switch``, which has no addresses and stands for the wires.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from xlvs.errors import XlvsError

SWITCH = "switch"
MOST_REAL_SERVERS = 200
PORT = 80
GUE_PORT = 6080  # as in the kernel's own examples of GUE

# Behind one router: the client's network, the network of the VIP, and the real servers' own.
CLIENTS, FRONT, BACK = "clients", "front", "back"

# 172.16.0.10 hashes (sh) to RS2 with equal weights and with 2:1, as the article's client did.
_IPV4 = {CLIENTS: "172.16.0.{}/24", FRONT: "10.1.{}/16", BACK: "192.168.22.{}/24"}
_IPV6 = {CLIENTS: "2001:db8:1::{}/64", FRONT: "2001:db8:a::{}/64", BACK: "2001:db8:22::{}/64"}
VIP4, VIP6 = "10.1.252.161", "2001:db8:a::161"


class Method(StrEnum):
    """The forwarding methods a lab can be built for."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"

    @property
    def option(self) -> str:
        """The option of ``ipvsadm -a`` that means this method."""
        return {"nat": "-m", "dr": "-g", "tun": "-i"}[self.value]

    @property
    def listed(self) -> str:
        """The word that ``ipvsadm -L`` prints for it."""
        return {"nat": "Masq", "dr": "Route", "tun": "Tunnel"}[self.value]


class Encapsulation(StrEnum):
    """What a lab of method tun wraps packets in."""

    IPIP = "ipip"
    GRE = "gre"
    GUE = "gue"

    @property
    def options(self) -> str:
        """Options of ``ipvsadm -a`` behind the method's, each with a blank before it."""
        return {"ipip": "", "gre": " --tun-type gre", "gue": f" --tun-type gue --tun-port {GUE_PORT}"}[
            self.value
        ]


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface: its segment, and its addresses with prefix lengths."""

    name: str
    segment: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the lab."""

    name: str
    interfaces: tuple[Interface, ...]
    gateways: tuple[str, ...] = ()
    forwarding: bool = False

    @property
    def addresses(self) -> list[str]:
        """Every address of the node, without prefix lengths."""
        return [address.partition("/")[0] for port in self.interfaces for address in port.addresses]


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole lab. ``vips`` has the IPv4 VIP and, in a lab with IPv6, the IPv6 one."""

    method: Method
    ipv6: bool
    client: Node
    router: Node
    director: Node
    real_servers: tuple[Node, ...]

    @property
    def vips(self) -> tuple[str, ...]:
        return (VIP4, VIP6) if self.ipv6 else (VIP4,)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.client, self.router, self.director, *self.real_servers)

    @property
    def segments(self) -> list[str]:
        return sorted({port.segment for node in self.nodes for port in node.interfaces})

    def rip(self, number: int, ipv6: bool = False) -> str:
        """The address of real server ``number``, counted from 1 as RS1 is."""
        return self.real_servers[number - 1].addresses[1 if ipv6 else 0]

    def service(self, ipv6: bool = False) -> str:
        """The service's address and port as ipvsadm and URLs write it."""
        return host_port(VIP6 if ipv6 else VIP4)

    def url(self, ipv6: bool = False) -> str:
        """What a client asks for."""
        return f"http://[{VIP6}]" if ipv6 else f"http://{VIP4}"


def host_port(address: str, port: int = PORT) -> str:
    """``10.0.0.1:80`` or ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def make(method: Method, real_servers: int = 2, ipv6: bool = False) -> Topology:
    """Describe a lab.

    NAT: the director stands between the front and the real servers' network and is
    their gateway. DR: director and real servers share the front. TUN: the real servers
    are in another network, behind the router. Outside NAT their gateway is the router,
    so that replies do not pass the director.
    """
    if not 1 <= real_servers <= MOST_REAL_SERVERS:
        raise XlvsError(f"a lab has 1 to {MOST_REAL_SERVERS} real servers, not {real_servers}")

    def interface(name: str, segment: str, host4: str, host6: str) -> Interface:
        addresses = (_IPV4[segment].format(host4),)
        return Interface(name, segment, (*addresses, _IPV6[segment].format(host6)) if ipv6 else addresses)

    def gateways(port: Interface) -> tuple[str, ...]:
        return tuple(address.partition("/")[0] for address in port.addresses)

    nat = method is Method.NAT
    router_ports = [interface("eth0", CLIENTS, "1", "1"), interface("eth1", FRONT, "0.1", "1")]
    front = interface("eth0", FRONT, "252.160", "160")
    front = Interface("eth0", FRONT, (*front.addresses, f"{VIP4}/32", *([f"{VIP6}/128"] if ipv6 else [])))
    director_ports = [front]
    if nat:
        director_ports.append(interface("eth1", BACK, "1", "1"))
        gateway = director_ports[-1]
    elif method is Method.TUN:
        router_ports.append(interface("eth2", BACK, "1", "1"))
        gateway = router_ports[-1]
    else:
        gateway = router_ports[1]

    servers = []
    for number in range(1, real_servers + 1):
        host = 17 + number
        if method is Method.DR:
            port = interface("eth0", FRONT, f"22.{host}", f"22:{host}")
        else:
            port = interface("eth0", BACK, f"{host}", f"{host}")
        servers.append(Node(f"rs{number}", (port,), gateways(gateway)))

    return Topology(
        method=method,
        ipv6=ipv6,
        client=Node("client", (interface("eth0", CLIENTS, "10", "10"),), gateways(router_ports[0])),
        router=Node("router", tuple(router_ports), forwarding=True),
        director=Node("director", tuple(director_ports), gateways(router_ports[1]), forwarding=True),
        real_servers=tuple(servers),
    )


def drawing(topology: Topology) -> str:
    """A few lines of text that show who stands where (IPv4 addresses)."""
    router, director = topology.router, topology.director
    names = [f"{node.name} {node.addresses[0]}" for node in topology.real_servers]
    client = f"client {topology.client.addresses[0]}"
    vip = f"VIP {VIP4}"
    if topology.method is Method.NAT:
        dip = director.interfaces[1].addresses[0].partition("/")[0]
        head = f"{client} ── router ── director ({vip}, DIP {dip})"
        column = head.index("director") + 3
        note = "gateway: the DIP, so replies pass the director"
        return _tree(head, column, names, note)
    if topology.method is Method.DR:
        head = f"{client} ── router ─┬─ director ({vip})"
        note = f"{vip} on lo, ARP silent; gateway: the router"
        return _tree(head, head.index("┬"), names, note)
    back = router.interfaces[2].addresses[0].partition("/")[0]
    head = f"{client} ── router ─┬─ director ({vip})"
    note = f"another network, behind the router ({back}); decapsulate; {vip} on lo"
    return _tree(head, head.index("┬"), names, note)


def _tree(head: str, column: int, names: list[str], note: str) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"… {names[-1]}"]
    branches = [f"{' ' * column}{'├' if name is not shown[-1] else '└'}─ {name}" for name in shown]
    return "\n".join([head, *branches, f"{' ' * column}   ({note})"])
