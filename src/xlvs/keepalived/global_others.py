"""Keywords of global_defs that are read and checked, and of no effect here (Global.others).

They tune what keepalived does in ways of its own: processes, firewalls, SNMP, D-Bus, buffers.
"""

from __future__ import annotations

from xlvs.keepalived.global_rows import bounded, checked, other, process, sized, switch
from xlvs.keepalived.schema import Line, Refused, Row

_MOST = 2**31 - 1


def _absolute(line: Line) -> None:
    if not line.word().startswith("/"):
        raise Refused(f"{line.keyword} missing directory name")


_AUTO = bounded(-1, 99, "max_auto_priority '{word}' must be in [0, 99] (or -1 to disable) - ignoring")
OTHERS: dict[str, Row] = {
    **process("vrrp"),
    **process("checker"),
    **process("bfd"),
    **{
        keyword: other()
        for keyword in (
            *("process_names", "vrrp_iptables", "vrrp_ipsets", "nftables", "nftables_counters"),
            *("nftables_ifindex", "nftables_ipvs", "disable_local_igmp", "log_unknown_vrids"),
            *("enable_snmp_vrrp", "enable_snmp_keepalived", "enable_snmp_checker", "enable_snmp_rfc"),
            *("enable_snmp_rfcv2", "enable_snmp_rfcv3", "enable_traps", "enable_dbus", "reload_repeat"),
            *("reload_check_config", "reload_file", "iptables", "lvs_process_name"),
        )
    },
    **{
        keyword: other(1)
        for keyword in (
            *("tmp_config_directory", "config_save_dir", "process_name", "umask", "dbus_service_name"),
            *("snmp_socket", "vrrp_rx_bufs_policy"),
        )
    },
    "nftables_priority": checked(bounded(-(2**31), _MOST, "invalid nftables chain priority '{word}'")),
    "nftables_ipvs_priority": checked(
        bounded(-(2**31), _MOST, "invalid ipvs nftables chain priority '{word}'")
    ),
    "nftables_ipvs_start_fwmark": checked(
        bounded(1, 2**32 - 1, "invalid ipvs nftables start_fwmark priority '{word}'")
    ),
    "max_auto_priority": checked(
        lambda line: (
            len(line.words) > 1
            and bounded(
                -1, 99, "max_auto_priority '{word}' must be in [0, 99] (or -1 to disable) - ignoring"
            )(line)
        )
    ),
    "min_auto_priority_delay": checked(
        bounded(1, 10_000_000, "min_auto_priority_delay '{word}' must be in [1, 10000000] - ignoring")
    ),
    "vrrp_rx_bufs_multiplier": checked(bounded(1, _MOST, "Invalid vrrp_rx_bufs_multiplier {word}")),
    "reload_time_file": checked(_absolute),
    **{
        f"{which}_rcv_bufs": sized(f"{which}_rcv_bufs")
        for which in ("vrrp_netlink_cmd", "vrrp_netlink_monitor", "lvs_netlink_cmd", "lvs_netlink_monitor")
    },
    "process_monitor_rcv_bufs": sized("process_monitor_rcv_bufs"),
    **{
        keyword: checked(switch(f"Invalid value '{{word}}' for global {keyword} specified"))
        for keyword in (
            *("vrrp_netlink_cmd_rcv_bufs_force", "vrrp_netlink_monitor_rcv_bufs_force"),
            *("lvs_netlink_cmd_rcv_bufs_force", "lvs_netlink_monitor_rcv_bufs_force"),
            *("process_monitor_rcv_bufs_force", "rs_init_notifies", "data_use_instance"),
        )
    },
}
