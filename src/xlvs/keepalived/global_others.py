"""Keywords of global_defs that are checked and kept as words (Global.others); most have no effect here.

They tune what keepalived does in ways of its own: processes, firewalls, SNMP, D-Bus, buffers.
"""

from __future__ import annotations

from collections.abc import Callable

from xlvs.keepalived.global_rows import bounded, checked, globals_of, other, process, sized, switch
from xlvs.keepalived.schema import Line, Refused, Row, value
from xlvs.keepalived.values import number

_MOST = 2**31 - 1


def _absolute(line: Line) -> None:
    if len(line.words) != 2:
        raise Refused(f"{line.keyword} invalid")


_BITS = {
    f"I{right}{whom}": 4 >> place << shift
    for shift, whom in ((6, "USR"), (3, "GRP"), (0, "OTH"))
    for place, right in enumerate("RWX")
}


def _umask(line: Line) -> int:
    if not line.word():
        raise Refused("umask missing bit value")
    word = line.words[1]
    if word[0].isdigit():
        try:
            found = int(word, 8 if word[0] == "0" and word[:2].lower() != "0x" else 0)
        except ValueError:
            raise Refused(f"invalid umask value {word}") from None
        if not 0 <= found <= 0o777:
            raise Refused(f"invalid umask value {word}")
        return found
    for bit in word.split("|"):
        if bit not in _BITS:
            raise Refused(f"Unknown umask bit {bit}")
    return sum(_BITS[bit] for bit in set(word.split("|")))


def _policy(line: Line) -> None:
    if len(line.words) < 2:
        raise Refused("vrrp_rx_bufs_policy missing")
    if line.words[1] not in ("MTU", "ADVERT") and number(line, line.words[1], 0, 2**32 - 1) is None:
        raise Refused(f"Invalid vrrp_rx_bufs_policy {line.words[1]}")


def _snmp_socket(line: Line) -> None:
    if len(line.words) < 2:
        raise Refused("SNMP error : snmp socket name missing")
    if len(line.words) > 2:
        raise Refused("Too many parameters specified for snmp_socket - ignoring")


def _iptables(_line: Line) -> None:
    raise Refused(
        "iptables not supported, using nftables instead. Please replace 'vrrp_iptables and "
        "'vrrp_ipsets' with 'nftables' config option"
    )


def _firewall(which: str) -> Callable[[Line], None]:
    """``nftables [TABLE]``: the first one counts."""

    def kind(line: Line) -> None:
        if line.keyword in globals_of(line.parser).values.get("others", {}):
            raise Refused(f"{which}nftables already specified - ignoring")

    return kind


def needed(missing: str, low: int, high: int, refusal: str) -> Callable[[Line], int]:
    """A number in [low, high]; ``missing`` is told where there is none."""

    def kind(line: Line) -> int:
        if len(line.words) < 2:
            raise Refused(missing)
        return bounded(low, high, refusal)(line)

    return kind


OTHERS: dict[str, Row] = {
    **process("vrrp"),
    **process("checker"),
    **process("bfd"),
    **{
        keyword: other()
        for keyword in (
            *("process_names", "nftables_counters", "nftables_ifindex", "disable_local_igmp"),
            *("log_unknown_vrids",),
            *("enable_snmp_vrrp", "enable_snmp_keepalived", "enable_snmp_checker", "enable_snmp_rfc"),
            *("enable_snmp_rfcv2", "enable_snmp_rfcv3", "enable_traps", "enable_dbus", "reload_repeat"),
            *("reload_check_config", "reload_file"),
        )
    },
    **{keyword: other(1) for keyword in (*("config_save_dir", "process_name", "lvs_process_name"),)},
    "tmp_config_directory": other(1, "tmp_config_directory missing directory name"),
    "dbus_service_name": other(1, "dbus_service_name missing - ignoring"),
    "snmp_socket": checked(_snmp_socket),
    "vrrp_rx_bufs_policy": checked(_policy),
    "umask": value("umask", _umask),
    "vrrp_iptables": checked(_iptables),
    "nftables": checked(_firewall("")),
    "nftables_ipvs": checked(_firewall("ipvs ")),
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
        needed(
            "min_auto_priority_delay requires delay time",
            1,
            10_000_000,
            "min_auto_priority_delay '{word}' must be in [1, 10000000] - ignoring",
        )
    ),
    "vrrp_rx_bufs_multiplier": checked(
        needed("Invalid vrrp_rx_bufs_multiplier", 1, 2**32 - 1, "Invalid vrrp_rx_bufs_multiplier {word}")
    ),
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
