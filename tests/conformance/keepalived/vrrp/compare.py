"""The real program's dump and our values, both as blocks of lines that can be compared.

A block's first line says what it is of; what its lines say counts, and their order does not. Of an
instance, a script and their like every line of a dump must be ours, except what _STATE names.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator

from tests.conformance.keepalived.vrrp import entries
from xlvs.daemon.vrrp.translate import group_of, settings_of
from xlvs.health.checks import Script
from xlvs.keepalived.config import (
    Bfd,
    Config,
    Instance,
    Notify,
    SyncGroup,
    TrackFile,
    TrackProcess,
    TrackScript,
)
from xlvs.vrrp.settings import Track

Blocks = list[list[str]]
# What a run has made of the values: states, counters, clocks, names of interfaces that it has made.
_STATE = re.compile(
    "|".join(
        (
            *("State = ", "Master (router|priority|advert)", "Flags:", "Number of ", "Last transition"),
            *("Read timeout", "Master down timer", "Interface = ", "Next gratuitous", "Effective prio"),
            *("Total prio", "fd_in", "No sockets", "Wantstate = FAULT", r"Using src_ip = \S+$", "Num member"),
            *("Using unicast$", "Result = ", "Insecure", "Init state", "Status = ", "VRRP instances :"),
            *("Tracking ", "Current processes", "Have quorum", "(Fork|Terminate) delay timer", "Bfd is "),
            *("Address family = ", "Unicast_fault_no_peer", "Script uid", "Authentication type = none"),
        )
    )
)
_HEADS = {
    "VRRP Topology": " VRRP Instance = ",
    "VRRP Sync groups": " VRRP Sync Group = ",
    "VRRP Scripts": " VRRP Script = ",
    "VRRP Track files": " Track file = ",
    "VRRP Track processes": " VRRP Track process = ",
    "VRRP Track BFDs": "",
    "BFD Topology": " BFD Instance = ",
    "Static Track groups": " Static Track Group = ",
}
_GLOBAL = re.compile(
    "|".join(
        (
            *("Router ID", "Smtp ", "Email ", "Default smtp_alert", r"\S+$", "Checkers log", "Send emails"),
            *("LVS ", "(Global|VRRP) notify fifo", "FIFO write", "VRRP notify prio", "vrrp_startup_delay"),
            *("VMAC ", "Script security", "Default script uid"),
        )
    )
)
_NODE = re.escape(socket.gethostname())
_HERE = re.compile(
    rf"(Router ID|Smtp HELO name) = {_NODE}$|Email notification (from = root@{_NODE}$|to:)|LVS process name"
)
_BFD_STATE = "(fd_|thread_|sands_|send error|local |remote |!?poll|last_seen)"


def real(lines: Iterable[str]) -> Blocks:
    """What the real program has dumped: the vrrp process, then of the BFD process its own part."""
    found: Blocks = []
    section, seen = "", 0
    for line in lines:
        title = re.fullmatch(r"------< (.*) >------", line)
        if title:
            section = title[1]
            seen += section == "Global definitions"
            if (section == "Global definitions" and seen == 1) or section.startswith("Static "):
                found.append([section])
            continue
        if section == "Global definitions" and seen == 1:
            if _GLOBAL.match(line.strip()) and not _HERE.match(line.strip()):
                found[-1].append(_plain(line))
        elif section.startswith("Static ") and section != "Static Track groups":
            entry = entries.of_dump(line)
            found[-1].append(entry if section == "Static Addresses" else entries.in_order(entry))
        elif head := _HEADS.get(section):
            if line.startswith(head):
                found.append([_plain(re.sub(r", (BACKUP|MASTER|FAULT|INIT)$", "", line))])
            elif section == "BFD Topology":
                if not re.match(_BFD_STATE, line.strip()):
                    found[-1].append(_plain(line))
            else:
                found[-1].append(line)
    return _whole(found)


def _whole(blocks: Blocks) -> Blocks:
    """Lists within blocks are one line; what a run has made of the values is left out."""
    result: Blocks = []
    for head, *lines in blocks:
        if head.startswith("VRRP ") or "rack " in head:
            lines = list(_lists(lines))
        if any(line.startswith("Sync group = ") for line in lines):  # then it is its group's
            lines = [line for line in lines if not line.startswith("Wantstate")]
        kept = [line for line in lines if line and line != "Notify priority changes = no"]
        if kept or not head.startswith("Static "):
            result.append([head, *sorted(kept)])
    return result


def _lists(lines: Iterable[str]) -> Iterator[str]:
    """``Virtual IP (2):`` and the deeper lines that follow it: a line each."""
    title = ""
    for line in lines:
        if line.startswith("     "):
            if title in ("VRRP instances", "Tracking instances", "Flags", "Tracking VRRP instances"):
                continue
            text = entries.of_dump(line).replace(", weight", " weight")
            routed = title in ("Virtual Routes", "Virtual Rules")
            yield f"{title}: {entries.in_order(text) if routed else text}"
            continue
        title = ""
        text = _plain(line)
        if re.search(r"\s?:$", text):
            title = re.sub(r"( \(\d+\))?\s?:$", "", text)
        elif not _STATE.match(text):
            yield text


def _plain(line: str) -> str:
    line = re.sub(r", uid:gid \d+:\d+$|, ifindex \d+$", "", line.strip())
    return line.replace(", is_up = false", ", is_up = true").replace(
        "compatibility = never", "compatibility = no"
    )


def agreeing(real: Blocks, ours: Blocks) -> tuple[Blocks, Blocks]:
    """Both in one order of blocks; an instance in fault does not say what it was to begin as."""
    begun = {block[0] for block in real if any(line.startswith("Wantstate") for line in block)}
    mine = [
        [line for line in block if block[0] in begun or not line.startswith("Wantstate")] for block in ours
    ]
    return sorted(real), sorted(mine)


# -- ours ---------------------------------------------------------------------------


def ours(config: Config) -> Blocks:
    """What our values are in the real program's words."""
    blocks: Blocks = [["Global definitions", *_globals(config)]]
    default = config.globals.default_interface
    for title, rows in (
        ("Static Addresses", [entries.of_address(one, default) for one in config.static_addresses]),
        ("Static Routes", [entries.of_route(one) for one in config.static_routes]),
        ("Static Rules", [entries.of_rule(one) for one in config.static_rules]),
    ):
        blocks.append([title, *rows])
    for name, members in config.static_groups.items():
        blocks.append([f"Static Track Group = {name}", *(f"VRRP member instances: {one}" for one in members)])
    blocks += [[f"VRRP Instance = {one.name}", *_instance(one, config)] for one in config.instances]
    blocks += [[f"VRRP Sync Group = {one.name}", *_group(one, config)] for one in config.groups]
    trackers: tuple[Instance | SyncGroup, ...] = (*config.instances, *config.groups)
    used = {each.name for one in trackers for each in one.track_scripts}
    blocks += [
        [f"VRRP Script = {one.name}", *_track_script(one)] for one in config.scripts if one.name in used
    ]
    used = {each.name for one in trackers for each in one.track_files}
    blocks += [[f"Track file = {one.name}", *_track_file(one)] for one in config.files if one.name in used]
    blocks += [[f"VRRP Track process = {one.name}", *_track_process(one)] for one in config.processes]
    blocks += [[f"BFD Instance = {one.name}", *_bfd(one)] for one in config.bfds]
    return [[head, *sorted(lines)] for head, *lines in blocks if lines or not head.startswith("Static ")]


def _on(value: bool | None, on: str = "enabled", off: str = "disabled") -> str:
    return "unset" if value is None else on if value else off


def _true(value: bool) -> str:
    return _on(value, "true", "false")


def _script(script: Script) -> str:
    path = {"/bin/true": "/usr/bin/true", "true": "/usr/bin/true", "/bin/false": "/usr/bin/false"}
    words = (path.get(script.arguments[0], script.arguments[0]), *script.arguments[1:])
    return " ".join(f"'{word}'" for word in words)


def _sync_daemon(config: Config) -> Iterator[str]:
    one = config.globals.lvs_sync_daemon
    if one is None:
        return
    yield f"LVS syncd interface = {one.interface}"
    router = next((each.router_id for each in config.instances if each.name == one.instance), 0)
    yield f"LVS syncd syncid = {router if one.id is None else one.id}"
    for given, shown in (
        (one.instance, "syncd vrrp instance ="),
        (one.maxlen, "syncd maxlen ="),
        (one.port, "syncd mcast port ="),
        (one.ttl, "syncd mcast ttl ="),
        (one.group, "mcast group"),
    ):
        if given:
            yield f"LVS {shown} {given}"


def _globals(config: Config) -> Iterator[str]:
    one = config.globals
    if one.router_id:
        yield f"Router ID = {one.router_id}"
    mail = one.mail
    if mail.server:
        yield f"Smtp server = {mail.server}"
        yield f"Smtp server port = {mail.port}"
    if mail.helo_name:
        yield f"Smtp HELO name = {mail.helo_name}"
    if mail.timeout != 30 or mail.server:
        yield f"Smtp server connection timeout = {mail.timeout:g}"
    if mail.sender:
        yield f"Email notification from = {mail.sender}"
    if mail.server:
        yield from mail.to
    for name, alert in (("", mail.alert), ("_vrrp", mail.alert_vrrp), ("_checker", mail.alert_checker)):
        yield f"Default smtp_alert{name} = {_on(alert, 'on', 'off')}"
    yield f"Checkers log all failures = {_true(one.checker_log_all_failures)}"
    if not mail.checker_fault:
        yield "Send emails for fault transitions = off"
    for key, shown in (("tcp", "TCP"), ("tcpfin", "TCP FIN"), ("udp", "TCP")):
        if key in one.lvs_timeouts:
            yield f"LVS {shown} timeout = {one.lvs_timeouts[key]}"
    yield from _sync_daemon(config)
    yield f"LVS flush = {_true(one.lvs_flush)}"
    yield f"LVS flush on stop = {({'': 'disabled', 'vs': 'VS', 'all': 'full'})[one.lvs_flush_on_stop]}"
    for shown, fifo in (("Global", one.fifo), ("VRRP", one.vrrp_fifo)):
        if fifo is not None:
            yield f"{shown} notify fifo = {fifo.path}"
            if fifo.script is not None:
                yield f"{shown} notify fifo script = {_script(fifo.script)} '{fifo.path}'"
    yield f"FIFO write vrrp states on reload = {_true(one.fifo_write_states_on_reload)}"
    yield f"VRRP notify priority changes = {_true(one.notify_priority_changes)}"
    if one.vrrp_startup_delay:
        yield f"vrrp_startup_delay = {one.vrrp_startup_delay:g}"
    if one.vmac_prefix != "vrrp":
        yield f"VMAC prefix = {one.vmac_prefix}"
    if one.vmac_addr_prefix:
        yield f"VMAC address prefix = {one.vmac_addr_prefix}"
    yield f"Script security {_on(one.script_security)}"
    user = one.script_user or "root"
    if one.script_user or not one.script_security:
        yield f"Default script uid:gid {_IDS[user]}:{_IDS[one.script_group or user]}"


_IDS = {"root": 0, "nobody": 65534, "nogroup": 65534}


def _instance(one: Instance, config: Config) -> Iterator[str]:
    group = next((each.name for each in config.groups if one.name in each.members), None)
    yield f"VRRP Version = {one.version}"
    if group:
        yield f"Sync group = {group}"
    if one.family == socket.AF_INET6:
        yield "Using Native IPv6"
    if not group:  # then it is its group's
        yield f"Wantstate = {one.state}"
    if one.dont_track_primary:
        yield "VRRP interface tracking disabled"
    if one.skip_check_adv_addr:
        yield "Skip checking advert IP addresses"
    if one.strict:
        yield "Enforcing strict VRRP compliance"
    source = one.source or (one.ipvlan_address.ip if one.ipvlan_address else None)
    if source is not None:
        yield f"Using src_ip = {source} (from configuration)"
    six = one.family == socket.AF_INET6
    if not one.peers:
        yield f"Multicast address {one.multicast_group or ('ff02::12' if six else '224.0.0.18')}"
    yield from _garp(one)
    yield f"Down timer adverts = {one.down_timer_adverts}"
    yield f"Send advert after receive lower priority advert = {_true(not one.lower_prio_no_advert)}"
    yield f"Send advert after receive higher priority advert = {_true(one.higher_prio_send_advert)}"
    yield f"Virtual Router ID = {one.router_id}"
    yield f"Priority = {one.priority}"
    advert = f"{one.advert:g} sec" if one.version == 2 else f"{round(one.advert * 1000)} milli-sec"
    yield f"Advert interval = {advert}"
    yield f"Accept = {_on(one.accept)}"
    yield f"Preempt = {_on(one.preempt)}"
    if one.preempt_delay:
        yield f"Preempt delay = {one.preempt_delay:g} secs"
    yield f"Promote_secondaries = {_on(one.promote_secondaries)}"
    if one.auth:
        yield f"Authentication type = {'SIMPLE_PASSWORD' if one.auth == 'PASS' else 'IPSEC_AH'}"
    if one.auth == "PASS":
        yield f"Password = {one.auth_key.decode(errors='surrogateescape')}"
    if one.kernel_rx_buf:
        yield f"Kernel rx buffer size = {one.kernel_rx_buf}"
    if one.debug:
        yield f"Debug level = {one.debug}"
    yield from _devices(one)
    for title, addresses in (("Virtual IP", one.addresses), ("Virtual IP Excluded", one.excluded)):
        for address in addresses:
            yield f"{title}: {entries.of_address(address, one.interface)}"
    yield from _unicast(one)
    yield from (f"Virtual Routes: {entries.of_route(route)}" for route in one.routes)
    yield from (f"Virtual Rules: {entries.of_rule(rule)}" for rule in one.rules)
    yield from _tracks(settings_of(one, config).tracks, "processes")
    yield from _notify(one.notify, one)


def _garp(one: Instance) -> Iterator[str]:
    garp = one.garp
    yield f"Gratuitous ARP delay = {garp.master_delay:g}"
    yield f"Gratuitous ARP repeat = {garp.master_repeat}"
    yield f"Gratuitous ARP refresh = {garp.master_refresh:.0f}"
    yield f"Gratuitous ARP refresh repeat = {garp.master_refresh_repeat}"
    yield f"Gratuitous ARP lower priority delay = {garp.lower_prio_delay:g}"
    yield f"Gratuitous ARP lower priority repeat = {garp.lower_prio_repeat}"
    others = any(each.use_vmac or each.device not in (None, one.interface) for each in one.addresses)
    if garp.extra_interval and others:
        which = "i/f" if garp.extra_all else "VMAC"
        yield f"Gratuitous ARP for each secondary {which} = {garp.extra_interval:g}"


def _devices(one: Instance) -> Iterator[str]:
    if one.vmac:
        name = one.vmac_name or f"vrrp.{one.router_id}"
        yield f"Use VMAC, i/f name {name}, is_up = true, xmit_base = {_true(one.vmac_xmit_base)}"
    if one.vmac_addr:
        yield f": MAC = {one.vmac_addr.hex(':')}"
    if one.vmac_for_addresses:
        yield "Use VMAC for VIPs on other interfaces"
    if one.ipvlan:
        address = f", i/f address = {entries.shown(one.ipvlan_address)}" if one.ipvlan_address else ""
        name = one.vmac_name or f"vrrp.{one.router_id}"
        yield f"Use IPVLAN, i/f {name}, is_up = true{address}, type {one.ipvlan_mode}"


def _unicast(one: Instance) -> Iterator[str]:
    if not one.peers:
        return
    if one.family == socket.AF_INET:
        yield f"Unicast TTL = {255 if one.ttl is None else one.ttl}"
    yield f"Check unicast src : {_on(one.check_unicast_src, 'yes', 'no')}"
    for peer, (least, most) in zip(one.peers, one.peer_ttl, strict=True):
        yield f"Unicast Peer: {peer} min_ttl {least} max_ttl {most}"
    yield f"Unicast checksum compatibility = {_on(one.old_unicast_checksum, 'config', 'no')}"


def _tracks(tracks: Iterable[Track], processes: str) -> Iterator[str]:
    titles = {"interface": "interfaces", "script": "scripts", "file": "files", "process": processes}
    for one in tracks:
        reverse = " reverse" if one.reverse else ""
        title = "BFDs" if one.kind.value == "bfd" else titles[one.kind.value]
        colon = ":" if title == "BFDs" else ""
        yield f"Tracked {title}: {one.name}{colon} weight {one.weight}{reverse}"


def _notify(one: Notify, instance: Instance | None) -> Iterator[str]:
    yield f"Using smtp notification = {_on(one.smtp_alert, 'yes', 'no')}"
    if instance is not None:
        yield f"Notify deleted = {'Deleted' if one.deleted_state else 'Fault'}"
        yield f"Notify priority changes = {_true(one.priority_changes)}"
    else:
        if one.priority_changes:
            yield "Notify priority changes = yes"
    for name, script in (
        ("Backup", one.backup),
        ("Master", one.master),
        ("Fault", one.fault),
        ("Stop", one.stop),
        ("Generic", one.any),
        ("Master rx lower pri", one.master_rx_lower_pri),
        ("Deleted", one.deleted),
    ):
        if script is not None and script.arguments[0] in ("true", "/bin/true", "/bin/false"):
            yield f"{name} state transition script = {_script(script)}"


def _group(one: SyncGroup, config: Config) -> Iterator[str]:
    yield from (f"VRRP member instances: {name}" for name in one.members)
    if one.sync_group_tracking_weight:
        yield "sync group tracking weight set"
    yield from _tracks(group_of(one, config).tracks, "process")
    yield from _notify(one.notify, None)


def _weight(weight: int, reverse: bool) -> str:
    return f"Weight = {weight}{' reverse' if reverse else ''}"


def _track_script(one: TrackScript) -> Iterator[str]:
    yield f"Command = {_script(one.script)}"
    yield f"Interval = {one.interval:g} sec"
    yield f"Timeout = {one.timeout:g} sec"
    yield _weight(one.weight, one.reverse)
    yield f"Rise = {one.rise}"
    yield f"Fall = {one.fall}"


def _track_file(one: TrackFile) -> Iterator[str]:
    yield f"File = {one.file}"
    yield _weight(one.weight, one.reverse)


def _track_process(one: TrackProcess) -> Iterator[str]:
    name, *parameters = one.process
    yield f"Process = {name}"
    if parameters:
        yield "Parameters = " + " ".join(f"'{word}'" if " " in word else word for word in parameters)
    if parameters or one.param_match is not None:
        yield f"Param match = {one.param_match}" if one.param_match else "Param match"
    yield f"Min processes = {one.quorum}"
    if one.quorum_max is not None:
        yield f"Max processes = {one.quorum_max}"
    yield _weight(one.weight, one.reverse)
    yield f"Terminate delay = {one.terminate_delay:f}s"
    yield f"Fork delay = {one.fork_delay:f}s"
    yield f"Full command = {_true(one.full_command or bool(parameters) or one.param_match is not None)}"


def _bfd(one: Bfd) -> Iterator[str]:
    yield f"Neighbor IP = {one.neighbor}"
    if one.source is not None:
        yield f"Source IP = {one.source}"
    yield f"Required min RX interval = {round(one.min_rx * 1_000_000)} us"
    yield f"Desired min TX interval = {round(one.min_tx * 1_000_000)} us"
    yield f"Desired idle TX interval = {round(one.idle_tx * 1_000_000)} us"
    yield f"Detection multiplier = {one.multiplier}"
    four = one.neighbor.version == 4
    yield f"{'TTL' if four else 'hoplimit'} = {one.ttl or (255 if four else 64)}"
    yield f"max_hops = {one.max_hops}"
    yield f"passive = {_true(one.passive)}"
    yield f"send event to VRRP process = {_on(one.vrrp, 'Yes', 'No')}"
    yield f"send event to checker process = {_on(one.checker, 'Yes', 'No')}"
