"""What a lab consists of: a pure description, made from a method and a few numbers.

The machines are those of the NAT article: its VIP and RIPs where the method allows.
Every interface is one end of a veth pair; the other end is a port of a bridge in one
more namespace, the ``switch``, which has no addresses and stands for the wires.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from xlvs.errors import XlvsError

SWITCH = "switch"
MOST_REAL_SERVERS = 200
LOCAL_ADDRESSES, MOST_LOCAL_ADDRESSES = 28, 4096  # of FULLNAT; 28 as in the article
PORT = 80
GUE_PORT = 6080  # as in the kernel's own examples of GUE

# Behind one router: the client's network, the network of the VIP, and the real servers' own.
CLIENTS, FRONT, BACK = "clients", "front", "back"
# FULLNAT: between the director and the inside router, and behind that a network for every other server.
INSIDE, BACK2 = "inside", "back2"

# 172.16.0.10 hashes (sh) to RS2 with equal weights and with 2:1, as the article's client did.
_IPV4 = {
    CLIENTS: "172.16.0.{}/24",
    FRONT: "10.1.{}/16",
    BACK: "192.168.22.{}/24",
    BACK2: "192.168.23.{}/24",
    INSIDE: "10.2.{}/16",
}
_IPV6 = {
    CLIENTS: "2001:db8:1::{}/64",
    FRONT: "2001:db8:a::{}/64",
    BACK: "2001:db8:22::{}/64",
    BACK2: "2001:db8:23::{}/64",
    INSIDE: "2001:db8:2::{}/64",
}
_NETWORKS = {BACK: ("192.168.22.0/24", "2001:db8:22::/64"), BACK2: ("192.168.23.0/24", "2001:db8:23::/64")}
_LOCALS = ("10.2.1.1", "2001:db8:2::1:1")  # the first ones
VIP4, VIP6 = "10.1.252.161", "2001:db8:a::161"


class Method(StrEnum):
    """The forwarding methods a lab can be built for."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    FULLNAT = "fullnat"

    @property
    def option(self) -> str:
        """The option of ``ipvsadm -a`` that means this method."""
        return {"nat": "-m", "dr": "-g", "tun": "-i", "fullnat": "-b"}[self.value]

    @property
    def translates(self) -> bool:
        """Whether real servers get packets for their own addresses, and answer through the director."""
        return self in (Method.NAT, Method.FULLNAT)

    @property
    def listed(self) -> str:
        """The word that ``ipvsadm -L`` prints for it."""
        return {"nat": "Masq", "dr": "Route", "tun": "Tunnel", "fullnat": "FullNat"}[self.value]


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
    routes: tuple[tuple[str, str], ...] = ()  # networks behind another gateway, and that

    @property
    def addresses(self) -> list[str]:
        """Every address of the node, without prefix lengths."""
        return [address.partition("/")[0] for port in self.interfaces for address in port.addresses]


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole lab. ``vips`` has the IPv4 VIP and, in a lab with IPv6, the IPv6 one.

    ``inside`` is the inside router of a lab of FULLNAT; ``local_addresses`` are how many each
    director has of each family. In a lab with a pair of directors ``backup`` is the second, and
    the addresses that VRRP moves are on neither.
    """

    method: Method
    ipv6: bool
    client: Node
    router: Node
    director: Node
    real_servers: tuple[Node, ...]
    inside: Node | None = None
    local_addresses: int = 0
    backup: Node | None = None

    @property
    def directors(self) -> tuple[Node, ...]:
        return (self.director, self.backup) if self.backup else (self.director,)

    @property
    def moving(self) -> tuple[tuple[str, str], ...]:
        """What VRRP moves between a pair: addresses with prefix lengths, each with its interface."""
        vips = [(f"{vip}/{128 if ':' in vip else 32}", "eth0") for vip in self.vips]
        gateways = [(address, "eth1") for address in _addresses(BACK, "1", "1", self.ipv6)]
        return (*vips, *(gateways if self.method is Method.NAT else []))

    @property
    def vips(self) -> tuple[str, ...]:
        return (VIP4, VIP6) if self.ipv6 else (VIP4,)

    @property
    def nodes(self) -> tuple[Node, ...]:
        routers = (self.inside,) if self.inside else ()
        return (self.client, self.router, *self.directors, *routers, *self.real_servers)

    @property
    def segments(self) -> list[str]:
        return sorted({port.segment for node in self.nodes for port in node.interfaces})

    def rip(self, number: int, ipv6: bool = False) -> str:
        """The address of real server ``number``, counted from 1 as RS1 is."""
        return self.real_servers[number - 1].addresses[1 if ipv6 else 0]

    def pool(self, ipv6: bool = False, director: int = 0) -> str:
        """A director's local addresses of a family for FULLNAT, as ``ipvsadm -z`` takes them."""
        first = _local(director, 0, ipv6)
        last = _local(director, self.local_addresses - 1, ipv6)
        return first if first == last else f"{first}-{last}"

    @property
    def pools(self) -> tuple[str, ...]:
        """The prefixes that local addresses are of: whom real servers may believe."""
        return ("10.2.0.0/16", "2001:db8:2::/64") if self.ipv6 else ("10.2.0.0/16",)

    def service(self, ipv6: bool = False) -> str:
        """The service's address and port as ipvsadm and URLs write it."""
        return host_port(VIP6 if ipv6 else VIP4)

    def url(self, ipv6: bool = False) -> str:
        """What a client asks for."""
        return f"http://[{VIP6}]" if ipv6 else f"http://{VIP4}"


def host_port(address: str, port: int = PORT) -> str:
    """``10.0.0.1:80`` or ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _local(director: int, number: int, ipv6: bool) -> str:
    return str(ip_address(_LOCALS[ipv6]) + director * MOST_LOCAL_ADDRESSES + number)


def _addresses(segment: str, host4: str, host6: str, ipv6: bool) -> tuple[str, ...]:
    """A host's addresses in a segment, with prefix lengths."""
    return (_IPV4[segment].format(host4), *([_IPV6[segment].format(host6)] if ipv6 else []))


def make(
    method: Method,
    real_servers: int = 2,
    ipv6: bool = False,
    local_addresses: int = LOCAL_ADDRESSES,
    pair: bool = False,
) -> Topology:
    """Describe a lab.

    NAT: the director stands between the front and the real servers' network and is
    their gateway. DR: director and real servers share the front. TUN: the real servers
    are in another network, behind the router. FULLNAT: they are in two networks behind an
    inside router of their own, which knows nobody but them and the director's inside. Outside
    NAT their gateway is a router, so that only FULLNAT's replies pass the director.
    ``pair``: two directors side by side; the VIP and NAT's gateway are whose VRRP says.
    """
    if not 1 <= real_servers <= MOST_REAL_SERVERS:
        raise XlvsError(f"a lab has 1 to {MOST_REAL_SERVERS} real servers, not {real_servers}")
    if not 1 <= local_addresses <= MOST_LOCAL_ADDRESSES:
        raise XlvsError(f"a lab has 1 to {MOST_LOCAL_ADDRESSES} local addresses, not {local_addresses}")

    def interface(name: str, segment: str, host4: str, host6: str) -> Interface:
        return Interface(name, segment, _addresses(segment, host4, host6, ipv6))

    fullnat = method is Method.FULLNAT
    router_ports = [interface("eth0", CLIENTS, "1", "1"), interface("eth1", FRONT, "0.1", "1")]
    inside_ports: list[Interface] = []
    segments = [FRONT if method is Method.DR else BACK]
    if fullnat:
        segments.append(BACK2)
        inside_ports = [interface("eth0", INSIDE, "0.1", "1")]
        inside_ports += [interface(f"eth{at}", each, "1", "1") for at, each in enumerate(segments, 1)]
        gateways = inside_ports[1:]
    elif method is Method.NAT:
        gateways = [interface("eth1", BACK, "1", "1")]  # a single director's, or one that moves
    elif method is Method.TUN:
        router_ports.append(interface("eth2", BACK, "1", "1"))
        gateways = router_ports[2:]
    else:
        gateways = router_ports[1:]

    def director(number: int) -> Node:
        host = 160 - number
        front = interface("eth0", FRONT, f"252.{host}", f"{host}")
        vips = () if pair else (f"{VIP4}/32", *([f"{VIP6}/128"] if ipv6 else []))
        ports = [Interface("eth0", FRONT, (*front.addresses, *vips))]
        if fullnat:
            back = interface("eth1", INSIDE, f"0.{host}", f"{host}")
            ports.append(_with_locals(back, number, local_addresses, ipv6))
        elif method is Method.NAT:
            own = f"{2 + number}" if pair else "1"
            ports.append(interface("eth1", BACK, own, own))
        return Node(
            "director2" if number else "director",
            tuple(ports),
            _bare(router_ports[1]),
            forwarding=True,
            routes=_routes(segments, _bare(inside_ports[0])) if fullnat else (),
        )

    servers = []
    for number in range(1, real_servers + 1):
        host, turn = 17 + number, (number - 1) % len(segments)
        hosts = (f"22.{host}", f"22:{host}") if method is Method.DR else (f"{host}", f"{host}")
        port = interface("eth0", segments[turn], *hosts)
        servers.append(Node(f"rs{number}", (port,), _bare(gateways[turn])))

    return Topology(
        method=method,
        ipv6=ipv6,
        client=Node("client", (interface("eth0", CLIENTS, "10", "10"),), _bare(router_ports[0])),
        router=Node("router", tuple(router_ports), forwarding=True),
        director=director(0),
        real_servers=tuple(servers),
        inside=Node("inside", tuple(inside_ports), forwarding=True) if fullnat else None,
        local_addresses=local_addresses if fullnat else 0,
        backup=director(1) if pair else None,
    )


def _bare(port: Interface) -> tuple[str, ...]:
    """The addresses of an interface without prefix lengths: those of a gateway."""
    return tuple(address.partition("/")[0] for address in port.addresses)


def _with_locals(port: Interface, director: int, count: int, ipv6: bool) -> Interface:
    """A director's inside interface, with local addresses beside its own."""
    pools = [(False, 32), *([(True, 128)] if ipv6 else [])]
    added = [f"{_local(director, number, six)}/{length}" for six, length in pools for number in range(count)]
    return Interface(port.name, port.segment, (*port.addresses, *added))


def _routes(segments: list[str], gateways: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The way to each network behind the gateways, which are one machine's IPv4 and IPv6 addresses."""
    return tuple(
        (network, gateway)
        for segment in segments
        for network, gateway in zip(_NETWORKS[segment], gateways, strict=False)
    )


def drawing(topology: Topology) -> str:
    """A few lines of text that show who stands where (IPv4 addresses)."""
    router = topology.router
    names = [f"{node.name} {node.addresses[0]}" for node in topology.real_servers]
    client = f"client {topology.client.addresses[0]}"
    vip = f"VIP {VIP4}"
    if topology.backup:
        vip = f"and director2; {vip} is one's"
    if topology.method is Method.NAT:
        dip = _bare(Interface("eth1", BACK, _addresses(BACK, "1", "1", False)))[0]
        head = f"{client} ── router ── director ({vip}, DIP {dip})"
        column = head.index("director") + 3
        note = "gateway: the DIP, so replies pass the director"
        return _tree(head, column, names, note)
    if topology.inside:
        head = f"{client} ── router ── director ({vip}) ── inside"
        note = f"gateway: the inside router; replies go to local addresses, {topology.pool()}"
        return _tree(head, head.rindex("inside") + 2, names, note)
    if topology.method is Method.DR:
        head = f"{client} ── router ─┬─ director ({vip})"
        note = f"VIP {VIP4} on lo, ARP silent; gateway: the router"
        return _tree(head, head.index("┬"), names, note)
    back = router.interfaces[2].addresses[0].partition("/")[0]
    head = f"{client} ── router ─┬─ director ({vip})"
    note = f"another network, behind the router ({back}); decapsulate; VIP {VIP4} on lo"
    return _tree(head, head.index("┬"), names, note)


def _tree(head: str, column: int, names: list[str], note: str) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"… {names[-1]}"]
    branches = [f"{' ' * column}{'├' if name is not shown[-1] else '└'}─ {name}" for name in shown]
    return "\n".join([head, *branches, f"{' ' * column}   ({note})"])
