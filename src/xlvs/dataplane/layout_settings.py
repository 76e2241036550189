"""bpf/abi/settings.h in Python, as layout.py is the rest; its names are layout's, too."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint8, c_uint16, c_uint32

Address = c_uint8 * 16


class SysctlRow(ctypes.Structure):
    """struct xlvs_sysctl"""

    _fields_ = (
        ("amemthresh", c_int32),
        ("am_droprate", c_int32),
        ("drop_entry", c_int32),
        ("drop_packet", c_int32),
        ("conntrack", c_int32),
        ("secure_tcp", c_int32),
        ("snat_reroute", c_int32),
        ("sync_version", c_int32),
        ("sync_ports", c_int32),
        ("sync_persist_mode", c_int32),
        ("sync_qlen_max", c_int32),
        ("sync_sock_size", c_int32),
        ("cache_bypass", c_int32),
        ("expire_nodest_conn", c_int32),
        ("sloppy_tcp", c_int32),
        ("sloppy_sctp", c_int32),
        ("expire_quiescent_template", c_int32),
        ("sync_threshold", c_int32 * 2),
        ("sync_refresh_period", c_int32),
        ("sync_retries", c_int32),
        ("nat_icmp_send", c_int32),
        ("pmtu_disc", c_int32),
        ("backup_only", c_int32),
        ("conn_reuse_mode", c_int32),
        ("schedule_icmp", c_int32),
        ("ignore_tunneled", c_int32),
        ("run_estimation", c_int32),
        ("lblc_expiration", c_int32),
        ("lblcr_expiration", c_int32),
        ("toa_kind", c_int32),
        ("local_port_low", c_int32),
        ("local_port_high", c_int32),
        ("expire_reset", c_int32),
        ("synproxy_rate", c_int32),
        ("synproxy_defer", c_int32),
        ("synproxy_retries", c_int32),
        ("synproxy_half_open", c_int32),
        ("synproxy_mss", c_int32),
        ("synproxy_wscale", c_int32),
        ("synproxy_sack", c_int32),
        ("synproxy_timestamp", c_int32),
        ("tcp_drop_entry", c_int32),
        ("udp_drop_entry", c_int32),
        ("frag_drop_entry", c_int32),
        ("reserved", c_int32 * 3),
    )


class SyncDaemonRow(ctypes.Structure):
    """struct xlvs_sync_daemon"""

    _fields_ = (
        ("interface", c_uint8 * 16),
        ("group", Address),
        ("family", c_uint16),
        ("maxlen", c_uint16),
        ("port", c_uint16),
        ("syncid", c_uint8),
        ("ttl", c_uint8),
    )


class Settings(ctypes.Structure):
    """struct xlvs_settings"""

    _fields_ = (
        ("abi", c_uint32),
        ("flags", c_uint32),
        ("hz", c_uint32),
        ("pad", c_uint32),
        ("tcp_timeout", c_uint32 * 16),
        ("udp_timeout", c_uint32),
        ("icmp_limit", c_uint32),
        ("scan_chunk", c_uint32),
        ("tick_ns", c_uint32),
        ("scan_next", c_uint32),
        ("scan_rounds", c_uint32),
        ("rates_due", c_uint32),
        ("rates_next", c_uint32),
        ("hash_seed", c_uint32),
        ("cpus", c_uint32),
        ("now", c_uint32),
        ("services_high", c_uint32),
        ("dests_high", c_uint32),
        ("members_next", c_uint32),
        ("rules_version", c_uint32),
        ("generation", c_uint32),
        ("tcp_seconds", c_uint32 * 3),
        ("slots", c_uint32),
        ("sctp_timeout", c_uint32 * 16),
        ("drop_rate", c_uint32),
        ("drop_counter", c_int32),
        ("drop_entries", c_uint32),
        ("secure_states", c_uint32),
        ("buckets_next", c_uint32),
        ("marks_next", c_uint32),
        ("helper_seen", c_uint32),
        ("localities_due", c_uint32),
        ("localities_round", c_uint32),
        ("expected", c_uint32),
        ("helper_dropped", c_uint32),
        ("hop_fresh", c_uint32),
        ("locals_next", c_uint32),
        ("unreset", c_uint32),
        ("cookie_key", c_uint32 * 4),
        ("pad2", c_uint32 * 3),
        ("sysctl", SysctlRow),
        ("daemons", SyncDaemonRow * 2),
    )
