"""What a keepalived.conf says, as plain values: the contract between the parser and the daemons.

Times are seconds, ports host-order integers, 0 meaning "none given". ``origins`` tells where each
keyword of a block was written; it does not count in comparisons, so that a reload compares values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from xlvs.health.checks import Address, AnyCheck, Script
from xlvs.model import Forward, SynProxy, Tunnel

Interface = IPv4Interface | IPv6Interface
_NO_TUNNEL = Tunnel()


@dataclass(frozen=True, slots=True)
class Origin:
    """A place in the configuration: file as it was opened, line counted from 1."""

    file: str
    line: int


Origins = Mapping[str, Origin]


def _origins() -> Origins:
    return {}


# -- virtual servers ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real_server (or the sorry server) as it takes effect. ``port`` 0: the virtual server's."""

    address: Address
    port: int
    weight: int = 1
    forward: Forward = Forward.MASQ
    tunnel: Tunnel = _NO_TUNNEL
    upper: int = 0
    lower: int = 0
    inhibit_on_failure: bool = False
    alpha: bool = False
    notify_up: Script | None = None
    notify_down: Script | None = None
    smtp_alert: bool = False
    checks: tuple[AnyCheck, ...] = ()
    snmp_name: str = ""
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class Vip:
    """One address and port, or firewall mark, that a virtual server serves."""

    family: int
    address: Address | None
    port: int
    fwmark: int = 0


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual_server: one or, with a group, many services with the same real servers.

    ``name`` is what follows the keyword, as written: what messages and scripts are told.
    ``protocol`` is an IP protocol number. ``persistence`` is None or seconds; ``granularity`` a
    netmask as :class:`xlvs.model.Service` has it. ``local_addresses`` are FULLNAT's, in order.
    """

    name: str
    vips: tuple[Vip, ...]
    protocol: int = 6
    group: str | None = None
    scheduler: str = "wlc"
    flags: tuple[str, ...] = ()  # flag-1, sh-port, mh-fallback, ...
    ops: bool = False
    persistence_engine: str = ""
    persistence: int | None = None
    granularity: int | None = None
    ha_suspend: bool = False
    alpha: bool = False
    omega: bool = False
    quorum: int = 1
    hysteresis: int = 0
    quorum_up: Script | None = None
    quorum_down: Script | None = None
    smtp_alert: bool = False
    sorry: RealServer | None = None
    servers: tuple[RealServer, ...] = ()
    local_addresses: tuple[Address, ...] = ()
    synproxy: SynProxy = SynProxy.OFF
    drain_limit: float = 0.0  # seconds a server taken out may keep its connections; 0: no limit
    snmp_name: str = ""
    origins: Origins = field(default_factory=_origins, compare=False)


# -- VRRP ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """An address of virtual_ipaddress, virtual_ipaddress_excluded or static_ipaddress."""

    address: Interface
    device: str | None = None
    scope: str | None = None
    label: str | None = None
    broadcast: Address | None = None
    peer: Interface | None = None
    home: bool = False
    no_track: bool = False
    no_prefix_route: bool = False
    preferred_lifetime: int | None = None
    flags: tuple[str, ...] = ()  # nodad, mngtmpaddr, autojoin
    use_vmac: bool = False
    track_group: str | None = None  # of a static address


@dataclass(frozen=True, slots=True)
class Route:
    """A route of virtual_routes or static_routes: ip-route's words in order, after what they mean.

    ``words`` are the whole entry as written; the named fields are those that the daemon needs.
    """

    words: tuple[str, ...]
    no_track: bool = False
    track_group: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of virtual_rules or static_rules: ip-rule's words in order."""

    words: tuple[str, ...]
    no_track: bool = False
    track_group: str | None = None


@dataclass(frozen=True, slots=True)
class Tracked:
    """Something an instance or a group tracks; ``weight`` 0: a fault when down. None: its own default."""

    name: str
    weight: int | None = None
    reverse: bool | None = None


@dataclass(frozen=True, slots=True)
class TrackScript:
    """A vrrp_script. ``weight`` 0: its failure is a fault."""

    name: str
    script: Script
    interval: float = 1.0
    timeout: float = 0.0  # 0: the interval
    weight: int = 0
    reverse: bool = False
    rise: int = 1
    fall: int = 1
    init_fail: bool = False
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class TrackFile:
    """A track_file (or vrrp_track_file). ``init`` is None, or the value (and overwrite) it begins with."""

    name: str
    file: str
    weight: int = 1
    reverse: bool = False
    init: int | None = None
    init_overwrite: bool = False
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class TrackProcess:
    """A track_process (or vrrp_track_process): processes by name and, if given, parameters."""

    name: str
    process: tuple[str, ...]
    param_match: str | None = None  # None, "exact", "initial" or "" for no parameters
    weight: int = 0
    reverse: bool = False
    quorum: int = 1
    quorum_max: int | None = None
    fork_delay: float = 0.0
    terminate_delay: float = 0.0
    full_command: bool = False
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class Bfd:
    """A bfd_instance (RFC 5880, asynchronous mode)."""

    name: str
    neighbor: Address
    source: Address | None = None
    min_rx: float = 0.010
    min_tx: float = 0.010
    idle_tx: float = 1.0
    multiplier: int = 5
    passive: bool = False
    ttl: int | None = None
    max_hops: int = 0
    weight: int = 0
    reverse: bool = False
    vrrp: bool = True  # events go to the vrrp process
    checker: bool = True  # ... to the checker process
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class Notify:
    """Scripts of an instance or a group. ``any`` is ``notify``: its arguments are appended by the daemon."""

    master: Script | None = None
    backup: Script | None = None
    fault: Script | None = None
    stop: Script | None = None
    deleted: Script | None = None
    any: Script | None = None
    master_rx_lower_pri: Script | None = None
    deleted_state: bool = False  # notify_deleted: DELETED is told instead of FAULT
    priority_changes: bool = False
    smtp_alert: bool = False


@dataclass(frozen=True, slots=True)
class Garp:
    """Gratuitous ARP and unsolicited NA: times in seconds; ``refresh`` 0: never again."""

    master_delay: float = 5.0
    master_repeat: int = 5
    master_refresh: float = 0.0
    master_refresh_repeat: int = 1
    lower_prio_delay: float = 5.0
    lower_prio_repeat: int = 5
    interval: float = 0.0
    na_interval: float = 0.0
    extra_interval: float = 0.0  # on other interfaces than the instance's; 0: never
    extra_all: bool = False  # ... on all of them, not just VMACs


@dataclass(frozen=True, slots=True)
class Instance:
    """A vrrp_instance as it takes effect (defaults of global_defs filled in).

    ``state`` is MASTER or BACKUP as configured; ``version`` 2 or 3; ``advert`` the interval in
    seconds; ``auth`` "", "PASS" or "AH" with ``auth_key`` of at most 8 bytes.
    """

    name: str
    interface: str
    router_id: int
    family: int = 2
    version: int = 2
    state: str = "BACKUP"
    priority: int = 100
    advert: float = 1.0
    auth: str = ""
    auth_key: bytes = b""
    addresses: tuple[VirtualAddress, ...] = ()
    excluded: tuple[VirtualAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    promote_secondaries: bool = False
    accept: bool = True
    preempt: bool = True
    preempt_delay: float = 0.0
    strict: bool = False
    skip_check_adv_addr: bool = False
    higher_prio_send_advert: bool = False
    lower_prio_no_advert: bool = False
    dont_track_primary: bool = False
    linkbeat_use_polling: bool = False
    source: Address | None = None  # unicast_src_ip or mcast_src_ip
    track_source: bool = False
    peers: tuple[Address, ...] = ()
    peer_ttl: tuple[tuple[int, int], ...] = ()  # of each peer: least and most TTL accepted
    unicast: bool = False
    unicast_fault_no_peer: bool = False
    check_unicast_src: bool = False
    multicast_group: Address | None = None
    ttl: int | None = None  # None: multicast's 255
    vmac: bool = False
    vmac_name: str = ""
    vmac_xmit_base: bool = False
    vmac_addr: bytes | None = None
    ipvlan: bool = False
    native_ipv6: bool = False
    old_unicast_checksum: bool = False
    down_timer_adverts: int = 3
    vrf: str = ""
    vmac_for_addresses: bool = False  # use_vmac_addr
    ipvlan_address: Interface | None = None
    ipvlan_mode: str = "bridge"
    checksum_compatibility: bool = True  # peers may use the old checksum, unless that is "never"
    kernel_rx_buf: int = 0
    debug: int = 0
    garp: Garp = Garp()
    track_interfaces: tuple[Tracked, ...] = ()
    track_scripts: tuple[Tracked, ...] = ()
    track_files: tuple[Tracked, ...] = ()
    track_processes: tuple[Tracked, ...] = ()
    track_bfds: tuple[Tracked, ...] = ()
    notify: Notify = Notify()
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class SyncGroup:
    """A vrrp_sync_group: its instances change state together."""

    name: str
    members: tuple[str, ...]
    track_interfaces: tuple[Tracked, ...] = ()
    track_scripts: tuple[Tracked, ...] = ()
    track_files: tuple[Tracked, ...] = ()
    track_processes: tuple[Tracked, ...] = ()
    track_bfds: tuple[Tracked, ...] = ()
    sync_group_tracking_weight: bool = False
    global_tracking: bool = False
    notify: Notify = Notify()
    origins: Origins = field(default_factory=_origins, compare=False)


# Exit statuses of ``keepalived -t``, gravest first in _GRAVITY.
STATUS_FATAL = 2
STATUS_LINK = 4
STATUS_REFUSED = 5
STATUS_SECURITY = 6
STATUS_MISSING = 6
_GRAVITY = (STATUS_FATAL, STATUS_SECURITY, STATUS_REFUSED, STATUS_LINK)


# -- the whole ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fifo:
    """A notify fifo and the script that reads it."""

    path: str
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """Where alerts go. ``server`` is a name or an address."""

    to: tuple[str, ...] = ()
    sender: str = ""
    server: str = ""
    port: int = 25
    helo_name: str = ""
    timeout: float = 30.0
    alert: bool | None = None
    alert_vrrp: bool | None = None
    alert_checker: bool | None = None
    checker_fault: bool = True


@dataclass(frozen=True, slots=True)
class SyncDaemons:
    """lvs_sync_daemon; 0 and None are the kernel's defaults. Without ``instance`` both roles run, always."""

    interface: str
    instance: str = ""
    id: int | None = None  # None: the instance's router id
    maxlen: int = 0
    port: int = 0
    ttl: int = 0
    group: Address | None = None


@dataclass(frozen=True, slots=True)
class Global:
    """global_defs: what is not a default of something else."""

    router_id: str = ""
    mail: Mail = Mail()
    fifo: Fifo | None = None
    vrrp_fifo: Fifo | None = None
    lvs_fifo: Fifo | None = None
    fifo_write_states_on_reload: bool = False
    script_user: str | None = None
    script_group: str | None = None
    script_security: bool = False
    instance: str | None = None
    net_namespace: str | None = None
    net_namespace_ipvs: str | None = None  # "" is the default namespace
    use_pid_dir: bool = False
    umask: int | None = None
    lvs_flush: bool = False
    lvs_flush_on_stop: str = ""  # "", "vs" (only its own virtual servers) or "all"
    lvs_timeouts: Mapping[str, int] = field(default_factory=dict)  # tcp, tcpfin, udp: seconds
    lvs_sync_daemon: SyncDaemons | None = None
    startup_script: Script | None = None
    startup_script_timeout: float = 0.0
    shutdown_script: Script | None = None
    shutdown_script_timeout: float = 0.0
    notify_priority_changes: bool = False
    default_interface: str = "eth0"
    vmac_prefix: str = "vrrp"
    vmac_addr_prefix: str = ""  # "": vmac_prefix
    vrrp_startup_delay: float = 0.0
    checker_log_all_failures: bool = False
    ca: str = ""  # of the SSL block
    certificate: str = ""
    key: str = ""
    password: str = ""
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # kept as words
    origins: Origins = field(default_factory=_origins, compare=False)


@dataclass(frozen=True, slots=True)
class GarpGroup:
    """Interfaces whose gratuitous ARPs and unsolicited NAs share an interval (seconds)."""

    interfaces: tuple[str, ...]
    garp_interval: float = 0.0
    na_interval: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkDelay:
    """How long an interface must be down, or up, before it counts (seconds)."""

    interface: str
    down: float
    up: float


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, validated: every name that is used is defined."""

    globals: Global = Global()
    static_addresses: tuple[VirtualAddress, ...] = ()
    static_routes: tuple[Route, ...] = ()
    static_rules: tuple[Rule, ...] = ()
    virtual_servers: tuple[VirtualServer, ...] = ()
    instances: tuple[Instance, ...] = ()
    groups: tuple[SyncGroup, ...] = ()
    scripts: tuple[TrackScript, ...] = ()
    files: tuple[TrackFile, ...] = ()
    processes: tuple[TrackProcess, ...] = ()
    bfds: tuple[Bfd, ...] = ()
    static_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # track_group's members
    garp_groups: tuple[GarpGroup, ...] = ()
    link_delays: tuple[LinkDelay, ...] = ()
    linkbeat: tuple[tuple[str, str], ...] = ()  # interface, and "", MII, ETHTOOL or IOCTL


@dataclass(frozen=True, slots=True)
class Message:
    """A warning or an error: where, which word, and what was expected.

    ``status`` is what ``-t`` exits with on its account, 0 for a mere notice; ``fatal``: nothing
    can run with this configuration.
    """

    origin: Origin | None
    word: str
    text: str
    fatal: bool = False
    status: int = STATUS_REFUSED

    def __str__(self) -> str:
        where = f"({self.origin.file}: Line {self.origin.line}) " if self.origin else ""
        return f"{where}{self.text}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading a configuration gave: ``config`` is None where anything fatal was found."""

    config: Config | None
    messages: tuple[Message, ...] = ()

    @property
    def status(self) -> int:
        """What ``-t`` exits with: 0 for a configuration about which there is nothing to say."""
        statuses = {message.status for message in self.messages}
        return next((status for status in _GRAVITY if status in statuses), 0)
