"""The nouns of IPVS as plain values: services, destinations, connections, counters.

Addresses are packed network-order ``bytes`` (4 for IPv4, 16 for IPv6), ports are
host-order integers, times are seconds. Nothing here touches a socket or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

AF_INET = 2
AF_INET6 = 10

# The version that the kernel's IPVS reports (IP_VS_VERSION_CODE in linux/ip_vs.h).
IPVS_VERSION = "1.2.1"


class L4(IntEnum):
    """IP protocol numbers of the protocols a service can have."""

    TCP = 6
    UDP = 17
    SCTP = 132


class Forward(IntEnum):
    """Forwarding methods, numbered as IP_VS_CONN_F_* in linux/ip_vs.h (FULLNAT is ours)."""

    MASQ = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3
    BYPASS = 4
    FULLNAT = 5


class ServiceFlag(IntFlag):
    """Service flags, numbered as IP_VS_SVC_F_* in linux/ip_vs.h."""

    PERSISTENT = 0x0001
    HASHED = 0x0002
    ONEPACKET = 0x0004
    SCHED1 = 0x0008
    SCHED2 = 0x0010
    SCHED3 = 0x0020


class SynProxy(IntEnum):
    """Who answers a client's SYN: the real server, the director, or the director in a flood of them."""

    OFF = 0
    ALWAYS = 1
    AUTO = 2


class ClientAddress(IntEnum):
    """How real servers behind NAT and FULLNAT learn the client's address.

    By a TCP option (for UDP an IP option), by the PROXY protocol in front of the payload,
    or not at all. BY_METHOD is by option in a service with FULLNAT destinations, else not.
    """

    NONE = 0
    TOA = 1
    PROXY = 2
    BY_METHOD = 3


class TunnelType(IntEnum):
    """Encapsulations of the TUN method, numbered as in linux/ip_vs.h."""

    IPIP = 0
    GUE = 1
    GRE = 2


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What a service is found by: protocol, address and port, or a firewall mark.

    For a firewall-mark service ``protocol``, ``address`` and ``port`` are 0/empty.
    """

    family: int
    protocol: int
    address: bytes
    port: int
    fwmark: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service as an operator defines it.

    ``timeout`` is the persistence timeout in seconds, ``netmask`` the persistence
    granularity: an IPv4 mask as a big-endian integer (255.255.255.255 = 0xffffffff)
    or an IPv6 prefix length.

    What the kernel's IPVS has not comes last. None there, in a change of a service, leaves
    it as it is.
    """

    key: ServiceKey
    scheduler: str = "wlc"
    flags: ServiceFlag = ServiceFlag(0)
    timeout: int = 0
    netmask: int = 0xFFFFFFFF
    pe_name: str = ""
    synproxy: SynProxy | None = SynProxy.OFF
    client_address: ClientAddress | None = ClientAddress.BY_METHOD


@dataclass(frozen=True, slots=True)
class DestinationKey:
    """What a destination is found by inside its service."""

    family: int
    address: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Encapsulation of a TUN destination; port and flags are GUE's and GRE's."""

    type: TunnelType = TunnelType.IPIP
    port: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """A real server's entry in a service. Thresholds are connections, 0 means none."""

    key: DestinationKey
    forward: Forward = Forward.ROUTE
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel: Tunnel = Tunnel()


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the entry was made or zeroed; bytes count from the IP header on."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Per-second rates of the kernel's estimator (2-second steps)."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DestinationEntry:
    """A destination with what the data plane knows of it now."""

    destination: Destination
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    counters: Counters = Counters()
    rates: Rates = Rates()


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service with its destinations in the data plane's own (IPVS's list) order.

    ``local_addresses`` are FULLNAT's, those of IPv4 first, otherwise as they were added.
    """

    service: Service
    destinations: list[DestinationEntry] = field(default_factory=list)
    counters: Counters = Counters()
    rates: Rates = Rates()
    local_addresses: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LocalEntry:
    """A local address of a service: connections that use it, and times that a port tried was taken."""

    address: bytes
    connections: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Connection timeouts in seconds that ``ipvsadm --set`` changes."""

    tcp: int = 900
    tcp_fin: int = 120
    udp: int = 300


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """A connection synchronisation daemon: ``role`` is ``master`` or ``backup``.

    ``group`` is its packed multicast address, ``maxlen`` the bytes of a message at most.
    Where one is asked for, 0 and empty stand for the defaults.
    """

    role: str
    interface: str = ""
    syncid: int = 0
    maxlen: int = 0
    group: bytes = b""
    port: int = 0
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionEntry:
    """One connection, or one persistence template (``template``).

    ``state`` is IPVS's own name (``ESTABLISHED``, ``UDP``, ``NONE``, ...). ``local`` is what the
    real server sees of a FULLNAT connection, of the destination's family; empty for others.
    """

    family: int
    protocol: int
    client: bytes
    client_port: int
    virtual: bytes
    virtual_port: int
    destination_family: int
    destination: bytes
    destination_port: int
    state: str
    expires: float
    template: bool = False
    pe_name: str = ""
    pe_data: str = ""
    in_packets: int = 0
    local: bytes = b""
    local_port: int = 0


@dataclass(frozen=True, slots=True)
class MarkRule:
    """A rule of the classifier: packets to ``address/bits`` get the firewall mark ``mark``.

    ``address`` has its host bits zero. Protocol 0 is any; ports are those of the destination,
    both inclusive, 0 to 65535 where it does not matter.
    """

    mark: int
    family: int
    address: bytes
    bits: int
    protocol: int = 0
    first_port: int = 0
    last_port: int = 0xFFFF


# A prefix of addresses: packed with its host bits zero, and its length in bits.
Prefix = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Defence:
    """How a service holds out against floods: limits, and lists of clients.

    ``limit`` and ``source_limit`` are new connections a second at most, of all clients and of
    one (an IPv4 address, or the first 64 bits of an IPv6 one); 0 means no limit.
    ``clients`` says of prefixes whether they are allowed; the longest that has a client
    decides. A client in none is allowed, unless there is an allowed prefix that lies within
    no denied one. New connections are checked; with ``every_packet`` those that exist, too.
    """

    limit: int = 0
    source_limit: int = 0
    every_packet: bool = False
    clients: Mapping[Prefix, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DefenceEntry:
    """A service's defence, and how many packets it refused or let pass.

    ``packets`` are those that each prefix decided on, ``others`` the clients of none that an
    allow list refused (None: it refuses none); ``over_limit`` and ``over_source_limit`` were
    refused by the limits.
    """

    key: ServiceKey
    defence: Defence
    packets: Mapping[Prefix, int] = field(default_factory=dict)
    others: int | None = None
    over_limit: int = 0
    over_source_limit: int = 0


@dataclass(frozen=True, slots=True)
class SysctlEntry:
    """One of IPVS's sysctls: bare name, value (sync_threshold has two numbers, all else one).

    ``note`` says why it has no effect on this engine, where it has none; ``own`` that it is
    xlvs's, not the kernel's.
    """

    name: str
    value: tuple[int, ...]
    note: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What ``ipvsadm`` prints in its first line: version and connection table size."""

    version: str
    size: int
