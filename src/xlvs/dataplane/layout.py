"""bpf/abi.h (and bpf/abi/) in Python: the same structures, numbers and limits.

Compared with the compiled objects' BTF in tests/abi; nothing here has a meaning of
its own. Addresses and ports are in wire order, all else in the host's.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int8, c_int32, c_uint8, c_uint16, c_uint32, c_uint64

from xlvs.dataplane.layout_settings import Address as Address
from xlvs.dataplane.layout_settings import Settings as Settings
from xlvs.dataplane.layout_settings import SyncDaemonRow as SyncDaemonRow
from xlvs.dataplane.layout_settings import SysctlRow as SysctlRow

ABI = 2

SERVICES = 8192
DESTS = 32768
MEMBERS = 1 << 20
LOCALS = 1 << 17
BUCKETS = 1 << 22
LOCALITIES = 1 << 17
LOCALITY_DESTS = 64
PORTS = 256
MARK_RULES = 1 << 16
MARK_PREFIXES = 4096
CLIENTS = 1 << 20
SOURCES = 1 << 17
ROW_SERVICE = 0
ROW_DEST = ROW_SERVICE + SERVICES
ROWS = ROW_DEST + DESTS

SCHEDULERS = (
    "rr",
    "wrr",
    "lc",
    "wlc",
    "lblc",
    "lblcr",
    "dh",
    "sh",
    "sed",
    "nq",
    "fo",
    "ovf",
    "mh",
    "twos",
    "none",
)
ENGINES = ("", "sip")  # enum xlvs_engine

TCP_STATES = (
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
)

SCTP_STATES = (
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
)
TEMPLATE_STATES = ("NONE", "ASSURED")

# In the order of enum xlvs_outcome: name and what it says to an operator.
OUTCOMES = (
    ("forwarded", "forwarded by XDP"),
    ("forwarded_tc", "forwarded by the tc companion"),
    ("local", "delivered to the director itself"),
    ("not_ours", "of no service: left to the kernel"),
    ("pass_extension", "too many IPv6 extension headers: left to the kernel"),
    ("pass_no_connection", "for a service, but of no connection: left to the kernel"),
    ("handed_neighbour", "handed to the tc companion: neighbour not resolved"),
    ("handed_device", "handed to the tc companion: device without XDP transmit"),
    ("handed_segments", "handed to the tc companion: segments not cut yet (GSO)"),
    ("handed_own", "handed to the tc companion: the director's own connection"),
    ("toa_left_out", "no room in it for the client's address (counted besides)"),
    ("handed_early", "fragment before its first: waits in the helper"),
    ("handed_split", "larger than the path's MTU: the helper makes fragments of it"),
    ("drop_fragment", "fragment that fits no datagram"),
    ("drop_early_limited", "fragment before its first, over the rate limit"),
    ("told_client", "ICMP error about a tunnel: the client was told"),
    ("drop_unknown_answer", "answer of no connection: ICMP sent (nat_icmp_send)"),
    ("drop_icmp_checksum", "ICMP error with a wrong checksum"),
    ("cookie_sent", "SYN answered by a cookie (SYNPROXY)"),
    ("handed_answer", "handed to the tc companion: SYN-ACK that SYNPROXY answers"),
    ("handed_payload", "payload before the server's SYN-ACK: waits in the helper"),
    ("pass_cookie", "of no connection, no valid cookie: left to the kernel"),
    ("drop_cookie", "of no connection, no valid cookie"),
    ("drop_deferred", "ACK of a cookie, without payload (synproxy_defer)"),
    ("drop_half_open", "too many SYNs unanswered (synproxy_half_open)"),
    ("drop_unanswered", "the server's SYN-ACK has not come yet (SYNPROXY)"),
    ("server_refused", "server refused or gave no answer: client reset (SYNPROXY)"),
    ("drop_no_helper", "needs the helper, which does not run"),
    ("drop_helper_busy", "the helper does not keep up, or it is too long for it"),
    ("bypassed", "nobody serves it: left to routing (cache_bypass)"),
    ("drop_no_destination", "no destination available: ICMP unreachable sent"),
    ("drop_destination_gone", "destination of the connection was deleted"),
    ("drop_no_data", "nothing in it that the persistence engine could go by"),
    ("drop_stray_tcp", "TCP for a service, but of no connection (tcp_drop_entry)"),
    ("drop_stray_udp", "UDP for a service's address, of no service (udp_drop_entry)"),
    ("drop_stray_fragment", "fragment for a service's address (frag_drop_entry)"),
    ("drop_denied", "client denied by its service"),
    ("drop_service_limit", "new connection over its service's limit"),
    ("drop_source_limit", "new connection over its client's limit"),
    ("drop_unlucky", "new connection turned away by drop_packet"),
    ("drop_table_full", "connection table full"),
    ("drop_no_local", "no local address of the service has a port left (FULLNAT)"),
    ("drop_race", "connection being replaced by another CPU"),
    ("drop_too_big", "larger than the path's MTU: ICMP sent"),
    ("drop_ttl", "TTL or hop limit exceeded: ICMP sent"),
    ("drop_error_limited", "ICMP error due, but over the rate limit"),
    ("drop_no_words", "ICMP error that the client's or server's family does not know"),
    ("drop_no_route", "no route to the next hop"),
    ("drop_forwarding_off", "the kernel's forwarding is disabled"),
    ("drop_no_metadata", "driver cannot hand packets to the tc companion"),
    ("drop_malformed", "malformed packet"),
    ("drop_migrating", "held back while tables or modes change: to be sent again"),
    ("drop_companion", "tc companion could not forward"),
)

ADDRESSES, PATHS = 1 << 16, 4096
ADDRESS_VIRTUAL, ADDRESS_REAL, ADDRESS_CALLER, ADDRESS_ROW = 1, 2, 4, 8

PROGRAMS = (
    "xlvs_known",
    "xlvs_new",
    "xlvs_error",
    "xlvs_special",
    "xlvs_ftp",
    "xlvs_fragment",
    "xlvs_icmp",
    "xlvs_relay",
    "xlvs_opening",
    "xlvs_family",
    "xlvs_synproxy",
    "xlvs_proxied",
)  # enum xlvs_program

MIGRATING, HOLD, HAS_MARKS, HAS_FTP, HAS_PORT0, HAS_CALLERS = 1, 2, 4, 8, 16, 32  # settings.flags
SERVICE_IPVS = 0xFFFF
SERVICE_FULLNAT, SERVICE_LISTED_ALWAYS = 0x04000000, 0x08000000
SERVICE_LISTED, SERVICE_TELLS, SERVICE_THRESHOLDS = 0x10000000, 0x20000000, 0x40000000
SERVICE_USED = 0x80000000
CLIENT_DENY, CLIENT_ALLOW, CLIENT_OTHERS = range(3)  # enum xlvs_client_verdict
DEST_USED, DEST_AVAILABLE, DEST_LOCAL, DEST_SPECIAL = 1, 2, 4, 8
PORT_XDP, PORT_GENERIC, PORT_CLSACT, PORT_TX = 1, 2, 4, 8
REF_REPLY, REF_SLOT = 0x80000000, 0x7FFFFFFF
FREE, CLAIMED, LIVE, DYING = 0, 1, 2, 3
PHASE = 3
CONN_METHOD, CONN_LOCAL, CONN_OWN, CONN_TEMPLATE, CONN_ENGINE = 0x7, 0x10, 0x20, 0x40, 0x80
CONN_NO_CPORT, CONN_SPECIAL, CONN_WATCHED = 0x100, 0x200, 0x400
CONN_ONE_PACKET = 0x1000
CONN_OPENING, CONN_TOA, CONN_PROXY = 0x2000, 0x4000, 0x8000
CONN_SYNPROXY, CONN_SHIFTED, CONN_OTHER_FAMILY = 0x10000, 0x20000, 0x40000
CONN_HALF_OPEN, CONN_STAMPED = 0x80000, 0x100000
OFFER_STAMPS = 0x200000  # conn.older of SYNPROXY
LOAD_OVERLOADED = 1
KEY_CONN, KEY_TEMPLATE, KEY_ENGINE, KEY_EXPECT = range(4)  # key.kind
STATE_INACTIVE, STATE_ENDED = 0x10000, 0xFFFFFFFF


class Hop(ctypes.Structure):
    """struct xlvs_hop"""

    _fields_ = (
        ("seq", c_uint32),
        ("ifindex", c_uint32),
        ("dmac", c_uint8 * 6),
        ("smac", c_uint8 * 6),
        ("mtu", c_uint16),
        ("flags", c_uint16),
        ("checked", c_uint32),
        ("vlan", c_uint16 * 2),
    )


class ServiceKeyRow(ctypes.Structure):
    """struct xlvs_service_key"""

    _fields_ = (
        ("address", Address),
        ("port", c_uint16),
        ("protocol", c_uint8),
        ("family", c_uint8),
    )


class ServiceRow(ctypes.Structure):
    """struct xlvs_service"""

    _fields_ = (
        ("address", Address),
        ("flags", c_uint32),
        ("fwmark", c_uint32),
        ("port", c_uint16),
        ("protocol", c_uint8),
        ("family", c_uint8),
        ("scheduler", c_uint8),
        ("engine", c_uint8),
        ("synproxy", c_uint8),
        ("client_address", c_uint8),
        ("members", c_uint64),
        ("table", c_uint64),
        ("wrr_step", c_uint32),
        ("wrr_max", c_int32),
        ("timeout", c_uint32),
        ("netmask", c_uint32),
        ("mark", c_uint64),
        ("localities", c_uint64),
        ("locals", c_uint64 * 2),
        ("server_offer", c_uint32),
        ("syn_limit", c_uint32),
        ("source_limit", c_uint32),
        ("offer_changed", c_uint32),
        ("syns", c_uint32),
        ("guarded_until", c_uint32),
        ("syn_bucket", c_uint64),
    )


class LocalRow(ctypes.Structure):
    """struct xlvs_local"""

    _fields_ = (("address", Address), ("conflicts", c_uint64))


class MemberRow(ctypes.Structure):
    """struct xlvs_member"""

    _fields_ = (("dest", c_uint32), ("weight", c_int32))


class BucketPair(ctypes.Structure):
    """struct xlvs_bucket_pair"""

    _fields_ = (("dest", c_uint32 * 2),)


class LocalityKey(ctypes.Structure):
    """struct xlvs_locality_key"""

    _fields_ = (("service", c_uint64), ("address", Address))


class Locality(ctypes.Structure):
    """struct xlvs_locality"""

    _fields_ = (
        ("used", c_uint32),
        ("modified", c_uint32),
        ("version", c_uint32),
        ("count", c_uint32),
        ("dests", c_uint32 * LOCALITY_DESTS),
    )


class DestRow(ctypes.Structure):
    """struct xlvs_dest"""

    _fields_ = (
        ("address", Address),
        ("source", Address),
        ("port", c_uint16),
        ("family", c_uint8),
        ("forward", c_uint8),
        ("flags", c_uint32),
        ("service", c_uint32),
        ("weight", c_int32),
        ("upper", c_uint32),
        ("lower", c_uint32),
        ("tunnel_type", c_uint8),
        ("tunnel_flags", c_uint8),
        ("tunnel_port", c_uint16),
        ("last_weight", c_int32),
        ("hop", Hop),
        ("virtual_address", Address),
        ("virtual_port", c_uint16),
        ("virtual_protocol", c_uint8),
        ("virtual_family", c_uint8),
        ("virtual_fwmark", c_uint32),
        ("deleted", c_uint32),
        ("born", c_uint32),
    )


class LoadRow(ctypes.Structure):
    """struct xlvs_load"""

    _fields_ = (
        ("active", c_uint32),
        ("inactive", c_uint32),
        ("persistent", c_uint32),
        ("flags", c_uint32),
        ("half_open", c_uint32),
        ("pad", c_uint32 * 11),
    )


class CounterRow(ctypes.Structure):
    """struct xlvs_counters"""

    _fields_ = (
        ("values", c_uint64 * 5),
        ("over_limit", c_uint64),
        ("over_source_limit", c_uint64),
        ("syns", c_uint64),
    )


class RateRow(ctypes.Structure):
    """struct xlvs_rate"""

    _fields_ = (
        ("last", c_uint64 * 5),
        ("average", c_uint64 * 5),
        ("zero", c_uint64 * 5),
        ("pad", c_uint64),
    )


class ConnRow(ctypes.Structure):
    """struct xlvs_conn"""

    _fields_ = (
        ("caddr", Address),
        ("vaddr", Address),
        ("daddr", Address),
        ("cport", c_uint16),
        ("vport", c_uint16),
        ("dport", c_uint16),
        ("protocol", c_uint8),
        ("family", c_uint8),
        ("dest", c_uint32),
        ("flags", c_uint32),
        ("back", Hop),
        ("laddr", Address),
        ("lport", c_uint16),
        ("server_family", c_uint8),
        ("window_shift", c_int8),
        ("seq_in", c_uint32),
        ("seq_out", c_uint32),
        ("seq_base", c_uint32),
        ("phase", c_uint32),
        ("seen", c_uint32),
        ("timeout", c_uint32),
        ("state", c_uint32),
        ("in_packets", c_uint32),
        ("fwmark", c_uint32),
        ("template_slot", c_uint32),
        ("template_phase", c_uint32),
        ("controlled", c_uint32),
        ("synced", c_uint32),
        ("sync_packets", c_uint32),
        ("seq_before", c_uint32),
        ("ftp", c_uint32),
        ("older", c_uint32),
        ("edge_in", c_uint32),
        ("edge_out", c_uint32),
    )


class PathMtu(ctypes.Structure):
    """struct xlvs_path_mtu"""

    _fields_ = (("mtu", c_uint32), ("until", c_uint32))


class PortRow(ctypes.Structure):
    """struct xlvs_port"""

    _fields_ = (
        ("flags", c_uint32),
        ("parent", c_uint32),
        ("vlan", c_uint16 * 2),
        ("tags", c_uint16),
        ("mtu", c_uint16),
    )


class MarkPrefix(ctypes.Structure):
    """struct xlvs_mark_prefix"""

    _fields_ = (
        ("bits", c_uint32),
        ("family", c_uint8),
        ("pad", c_uint8 * 3),
        ("address", Address),
    )


class MarkRule(ctypes.Structure):
    """struct xlvs_mark_rule"""

    _fields_ = (
        ("mark", c_uint32),
        ("first_port", c_uint16),
        ("last_port", c_uint16),
        ("protocol", c_uint8),
        ("bits", c_uint8),
        ("pad", c_uint8 * 2),
        ("number", c_uint32),
    )


class ClientPrefix(ctypes.Structure):
    """struct xlvs_client_prefix"""

    _fields_ = (("bits", c_uint32), ("service", c_uint32), ("address", Address))


class Client(ctypes.Structure):
    """struct xlvs_client"""

    _fields_ = (("verdict", c_uint32), ("pad", c_uint32), ("packets", c_uint64))


class Source(ctypes.Structure):
    """struct xlvs_source"""

    _fields_ = (("service", c_uint32), ("family", c_uint32), ("network", c_uint8 * 8))


class EngineData(ctypes.Structure):
    """struct xlvs_engine_data"""

    _fields_ = (("length", c_uint8), ("text", c_uint8 * 255))


def wire_address(address: bytes) -> ctypes.Array[c_uint8]:
    """An address in its sixteen bytes."""
    return Address(*address)


def plain_address(field: ctypes.Array[c_uint8], family: int) -> bytes:
    """The four or sixteen bytes of an address field."""
    return bytes(field)[: 4 if family == 2 else 16]
