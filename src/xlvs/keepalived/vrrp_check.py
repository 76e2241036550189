"""What the keywords of instances and sync groups mean together: defaults, contradictions, names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xlvs.health.checks import Script
from xlvs.keepalived import notify
from xlvs.keepalived.config import STATUS_SECURITY, Garp, Instance, Message, Tracked
from xlvs.keepalived.global_rows import defaults_of, globals_of
from xlvs.keepalived.schema import Draft, Parser
from xlvs.keepalived.vrrp_groups import TRACKS, groups_of, weight

MOST_ADDRESSES = 255  # a count of eight bits: RFC 5798, 5.2.5
_TABLES = {
    "track_script": ("scripts", "track_scripts"),
    "track_file": ("files", "track_files"),
    "track_process": ("processes", "track_processes"),
    "track_bfd": ("bfds", "track_bfds"),
}


def finish(parser: Parser) -> dict[str, Any]:
    """The fields of Config that come from here."""
    defaults = defaults_of(parser)
    drafts: dict[str, Draft] = parser.top.values.get("instances", {})
    groups: dict[str, Draft] = parser.top.values.get("sync_groups", {})
    for draft in (*drafts.values(), *groups.values()):
        _named(parser, draft)
    if drafts:
        _unused(parser)
    instances: dict[str, Instance] = {}
    for draft in drafts.values():
        instance = _instance(parser, draft, defaults)
        if instance is not None:
            instances[draft.name] = instance
    _duplicates(parser, instances)
    found = groups_of(parser, groups, instances)
    for name in [name for group in found if group.notify.priority_changes for name in group.members]:
        notified = replace(instances[name].notify, priority_changes=True)
        instances[name] = replace(instances[name], notify=notified)
    if _links(parser, defaults) and drafts:  # keepalived looks no further without
        _security(parser, [*drafts.values(), *groups.values()])
    return {"instances": tuple(instances.values()), "groups": found}


# -- names --------------------------------------------------------------------------


def _named(parser: Parser, draft: Draft) -> None:
    """Take out what is tracked and not defined."""
    for kind, name, origin in draft.values.pop("named", ()):
        if kind == "track_interface":
            if parser.host.link(name) is None:
                text = f"({draft.name}) tracked interface {name} doesn't exist"
                parser.top.add("missing_links", (origin, text))
            continue
        table, field = _TABLES[kind]
        found = parser.top.values.get(table, {}).get(name)
        # A bfd_instance may be for the checkers only: then it is as if it were not there, as in keepalived.
        if found is None or (kind == "track_bfd" and not found.vrrp):
            shown = kind.replace("_", " ")
            parser.tell(Message(origin, name, f"({draft.name}) {shown} {name} not found, ignoring..."))
            draft.values[field] = [entry for entry in draft.values[field] if entry.name != name]


def _unused(parser: Parser) -> None:
    """Scripts that cannot be run are taken out, with what names them; unused ones are told."""
    values = parser.top.values
    holders = [*values.get("instances", {}).values(), *values.get("sync_groups", {}).values()]
    for name, script in list(values.get("scripts", {}).items()):
        if not parser.host.program(script.script.arguments[0]):
            text = f"Disabling track script {name} since not found/accessible"
            parser.tell(Message(script.origins.get("script"), name, text))
            del values["scripts"][name]
            for draft in holders:
                kept = [entry for entry in draft.values.get("track_scripts", ()) if entry.name != name]
                draft.values["track_scripts"] = kept
        elif not any(
            entry.name == name for draft in holders for entry in draft.values.get("track_scripts", ())
        ):
            parser.tell(Message(None, name, f"Warning - script {name} is not used", status=0))


def _links(parser: Parser, defaults: dict[str, Any]) -> bool:
    """Whether all is well: interfaces that are not there are wrong without dynamic_interfaces."""
    missing = parser.top.values.get("missing_links", ())
    if not missing or defaults.get("dynamic_interfaces"):
        return True
    for origin, text in missing:
        parser.tell(Message(origin, "", text))
    parser.tell(Message(None, "", "Non-existent interface specified in configuration"))
    return False


def _security(parser: Parser, holders: list[Draft]) -> None:
    """Programs run as root without enable_script_security are told of, as keepalived does."""
    values = globals_of(parser).values
    if values.get("script_security") or values.get("script_user"):
        return
    scripts = [script.script for script in parser.top.values.get("scripts", {}).values()]
    for draft in holders:
        scripts += [each for each in draft.values.get("notify", {}).values() if isinstance(each, Script)]
    fifos = values.get("fifos", {})
    scripts += [fifos[name]["script"] for name in ("fifo", "vrrp_fifo") if "script" in fifos.get(name, {})]
    ends = [values[name] for name in ("startup_script", "shutdown_script") if name in values]
    for found, what in ((ends, "start/shutdown scripts"), (scripts, "scripts")):
        if any(each.user in (None, "root") and parser.host.program(each.arguments[0]) for each in found):
            text = f"SECURITY VIOLATION - {what} are being executed but script_security not enabled."
            parser.tell(Message(None, "", text, status=STATUS_SECURITY))


# -- one instance -------------------------------------------------------------------


def _instance(parser: Parser, draft: Draft, defaults: dict[str, Any]) -> Instance | None:
    values = draft.values
    where = f"({draft.name})"

    def warn(text: str, status: int = 5) -> None:
        parser.warn(draft, f"{where}{text if text.startswith(':') else ' ' + text}", status)

    if "router_id" not in values:
        warn("the virtual router id must be set")
        return None
    # Without a priority, who is to begin as MASTER is the address owner.
    values.setdefault("priority", 255 if values.get("state") == "MASTER" else 100)
    if values["priority"] == 255:
        values.setdefault("state", "MASTER")
    _family(values, defaults, warn)
    unicast = bool(values.get("peers"))
    if not values.get("interface"):
        if not unicast:
            if "interface" not in draft.origins:
                default = defaults.get("interface")
                if default and parser.host.link(default) is not None:
                    values["interface"] = default
            if not values.get("interface"):
                warn("Unknown interface!")
                return None
        elif "source" not in values:
            parser.warn(draft, f"{where}: Unicast instances must have unicast_src_ip or interface")
            return None
        else:
            warn("Unknown interface!")  # told, and of no consequence
    strict = values.setdefault("strict", bool(defaults.get("strict")))
    if not values.get("addresses"):
        warn(f"No VIP specified; at least one is {'required' if strict else 'sensible'}")
        if strict:
            return None
    _unicast(values, unicast, warn)
    _authentication(values, warn)
    _strict(values, warn)
    _preemption(values, warn)
    _advert(values, warn)
    _vmac(values, unicast, warn)
    _weights(parser, values, warn)
    return Instance(
        name=draft.name,
        garp=_garp(values, defaults, bool(strict)),
        notify=notify.finished(
            values, {**globals_of(parser).values.get("mail", {}), **globals_of(parser).values}
        ),
        origins=draft.origins,
        **_fields(values, defaults),
    )


def _family(values: dict[str, Any], defaults: dict[str, Any], warn: Any) -> None:
    version = values.pop("version_of_addresses", 4)
    values["family"] = 2 if version == 4 else 10
    values.setdefault("version", defaults.get("version", 2) if version == 4 else 3)
    if version == 6 and values["version"] == 2:
        warn("cannot use IPv6 with VRRP version 2; setting version 3")
        values["version"] = 3


def _unicast(values: dict[str, Any], unicast: bool, warn: Any) -> None:
    if unicast and values.get("multicast_group"):
        warn("multicast destination specified with unicast - ignoring")
        del values["multicast_group"]
    if not unicast and "ttl" in values:
        warn(": Cannot use unicast_ttl without unicast peers - resetting")
        del values["ttl"]
    given = ("unicast_keyword", "peers", "check_unicast_src")
    if not unicast and any(name in values for name in given):
        if values.get("unicast_fault_no_peer"):
            warn("Cannot use unicast without any peers - going to fault state", 0)
        else:
            warn(
                "A unicast keyword has been specified without any unicast peers. Defaulting to multicast. "
                "This usage is deprecated - please update your configuration."
            )


def _authentication(values: dict[str, Any], warn: Any) -> None:
    if not values.get("auth"):
        return
    if values.get("strict"):
        warn("Strict mode does not support authentication. Ignoring.")
        values["auth"] = ""
    elif values["version"] == 3:
        warn("VRRP version 3 does not support authentication. Ignoring.")
        values["auth"] = ""
    elif not values.get("auth_key"):
        warn("Authentication specified but no password given. Ignoring")
        values["auth"] = ""
    elif values["auth"] == "AH" and values["family"] == 10:
        warn("Cannot use AH authentication with IPv6. ignoring")
        values["auth"] = ""
    elif values["auth"] == "AH" and values.get("state") == "MASTER" and values["priority"] != 255:
        warn("Initial state master is incompatible with AH authentication - clearing")
        values["state"] = "BACKUP"


def _strict(values: dict[str, Any], warn: Any) -> None:
    if not values["strict"]:
        return
    owner = values["priority"] == 255
    if (values.get("state") == "MASTER") != owner:
        warn("State MASTER must match being address owner")
        values["state"] = "MASTER" if owner else "BACKUP"
    if values.get("vmac_addr"):
        warn(": cannot specify MAC address with strict mode - clearing")
        del values["vmac_addr"]
    first = (values.get("addresses") or [None])[0]
    if first is not None and first.address.version == 6 and not first.address.is_link_local:
        warn("the first IPv6 VIP address must be link local")
    if values.get("preempt_delay"):
        warn("preempt_delay is incompatible with strict mode - resetting")
        del values["preempt_delay"]
    if values.get("down_timer_adverts", 3) != 3:
        warn("down_timer_adverts is incompatible with strict mode - resetting")
        del values["down_timer_adverts"]
    if values.get("accept") and values["version"] == 2:
        warn("warning - accept mode for VRRP version 2 does not comply with RFC3768 - resetting")
        del values["accept"]
    values.setdefault("accept", owner)
    if values.get("lower_prio_no_advert") is False:
        warn("Strict mode requires no lower priority advert. resetting")
    values["lower_prio_no_advert"] = True
    if values.get("higher_prio_send_advert"):
        warn("strict mode requires higher_prio_send_advert to be clear. resetting")
    values["higher_prio_send_advert"] = False
    for name, shown in (("delay", "garp delay"), ("repeat", "garps")):
        if values.pop(f"garp.lower_prio_{name}", 0):
            warn(f"Strict mode requires no repeat {shown}. resetting")
    if values.get("vmac_xmit_base"):
        warn("xmit_base is incompatible with strict mode - resetting")
        del values["vmac_xmit_base"]


def _preemption(values: dict[str, Any], warn: Any) -> None:
    owner = values["priority"] == 255
    master = values.get("state") == "MASTER"
    if values.get("preempt") is False and owner:
        warn("nopreempt is incompatible with priority 255. resetting nopreempt")
        values["preempt"] = True
    if master and values.get("preempt") is False:
        warn("Warning - nopreempt will not work with initial state MASTER - clearing")
        values["preempt"] = True
    if values.get("preempt_delay"):
        if master:
            warn("Warning - preempt delay will not work with initial state MASTER - clearing")
            values["preempt_delay"] = 0.0
        elif values.get("preempt") is False:
            warn("preempt_delay is incompatible with nopreempt mode - resetting")
            values["preempt_delay"] = 0.0


def _advert(values: dict[str, Any], warn: Any) -> None:
    """RFC 3768 counts whole seconds in eight bits, RFC 5798 hundredths in twelve."""
    advert = values.get("advert", 1.0)
    if values["version"] == 2:
        if advert > 255:
            warn(
                f"VRRPv2 advertisement interval {advert:.2f}s is out of range. "
                "Must be less than 255s. Setting to 255s"
            )
            advert = 255.0
        elif advert != int(advert):
            warn(f"VRRPv2 advertisement interval {advert:f}s must be an integer. rounding")
            advert = float(max(1, int(advert + 0.5)))
    elif advert > 40.95:
        warn(
            f"VRRPv3 advertisement interval {advert:.2f}s is out of range. Must be less than 40.95s. "
            "Setting to 40.95s"
        )
        advert = 40.95
    elif abs(advert * 100 - round(advert * 100)) > 1e-6:
        warn(f"VRRPv3 advertisement interval {advert:f}s must be in units of 10ms - rounding")
        advert = max(1, (round(advert * 1_000_000) + 5_000) // 10_000) / 100
    values["advert"] = advert


def _vmac(values: dict[str, Any], unicast: bool, warn: Any) -> None:
    if values.get("vmac_xmit_base") and not values.get("vmac"):
        warn("vmac_xmit_base is only valid with a vmac")
        values["vmac_xmit_base"] = False
    if unicast and (values.get("vmac") or values.get("ipvlan")) and not values.get("interface"):
        warn(": Cannot use VMAC/ipvlan with unicast and no interface - clearing use_vmac")
        values["vmac"] = values["ipvlan"] = False
    if unicast and values.get("vmac") and not values.get("vmac_xmit_base"):
        warn("unicast with use_vmac requires vmac_xmit_base - setting")
        values["vmac_xmit_base"] = True
    if values.get("ipvlan") and values["family"] == 2 and not values.get("ipvlan_address"):
        warn("IPv4 ipvlan requires a source ip address to be configured. setting instance to fault state")
    if values.get("vmac") and values.pop("promote_secondaries", False):
        warn("promote_secondaries is automatically set for vmacs - ignoring")
    if len(values.get("addresses", ())) > MOST_ADDRESSES:
        count = len(values["addresses"])
        warn(
            f"Number of VIPs ({count}) exceeds maximum/space available in packet "
            f"(max {MOST_ADDRESSES} addresses) - excess moved to eVIPs"
        )
        values["excluded"] = [*values["addresses"][MOST_ADDRESSES:], *values.get("excluded", ())]
        values["addresses"] = values["addresses"][:MOST_ADDRESSES]


def _weights(parser: Parser, values: dict[str, Any], warn: Any) -> None:
    """An address owner's priority is fixed: it tracks without weights."""
    kept = []
    for entry in values.get("track_interfaces", ()):
        if entry.name == values.get("interface"):
            warn(f"Ignoring track_interface {entry.name} since own interface")
            continue
        kept.append(entry)
    if kept != list(values.get("track_interfaces", ())):
        values["track_interfaces"] = kept
    if values["priority"] != 255:
        return
    links = values.get("track_interfaces", ())
    values["track_interfaces"] = [entry for entry in links if not entry.weight]
    for kind, field, shown in (
        ("scripts", "track_scripts", "script"),
        ("files", "track_files", "file"),
        ("processes", "track_processes", "process"),
        ("bfds", "track_bfds", "bfd"),
    ):
        kept = []
        for entry in values.get(field, ()):
            if not weight(parser, kind, entry):
                kept.append(entry)
                continue
            if entry.weight:
                warn(f"Cannot have weighted track {shown} '{entry.name}' with priority 255")
            if kind == "processes":
                kept.append(Tracked(entry.name, 0, entry.reverse))
        values[field] = kept


def _garp(values: dict[str, Any], defaults: dict[str, Any], strict: bool) -> Garp:
    """Instance before global_defs before keepalived's; global_defs' lower_prio_* follow its master_*."""
    given = {key.removeprefix("garp."): entry for key, entry in defaults.items() if key.startswith("garp.")}
    if defaults.get("min_garp"):
        given = {"master_delay": 0, "master_repeat": 1, "master_refresh_repeat": 0, **given}
    given.setdefault("lower_prio_delay", given.get("master_delay", 5.0))
    given.setdefault("lower_prio_repeat", given.get("master_repeat", 5))
    given |= {key.removeprefix("garp."): entry for key, entry in values.items() if key.startswith("garp.")}
    if strict:
        given |= {"lower_prio_repeat": 0, "lower_prio_delay": 0}
    for key in given:
        if key.endswith(("delay", "refresh", "interval")):
            given[key] = float(given[key])
    return Garp(**given)


_LISTS: tuple[str, ...] = ("addresses", "excluded", "routes", "rules", "peers", "peer_ttl", *TRACKS)
_PLAIN: tuple[str, ...] = (
    "interface",
    "router_id",
    "family",
    "version",
    "state",
    "priority",
    "advert",
    "auth",
    "auth_key",
)
_PLAIN += ("promote_secondaries", "accept", "preempt", "preempt_delay", "strict", "dont_track_primary")
_PLAIN += ("linkbeat_use_polling", "track_source", "unicast_fault_no_peer", "ttl", "vmac", "vmac_name")
_PLAIN += ("vmac_xmit_base", "vmac_addr", "vmac_for_addresses", "ipvlan", "ipvlan_address", "ipvlan_mode")
_PLAIN += (
    "source",
    "native_ipv6",
    "old_unicast_checksum",
    "checksum_compatibility",
    "kernel_rx_buf",
    "debug",
    "vrf",
)
_GLOBAL: tuple[str, ...] = (
    "skip_check_adv_addr",
    "higher_prio_send_advert",
    "lower_prio_no_advert",
    "check_unicast_src",
)
_GLOBAL += ("down_timer_adverts",)


def _fields(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    fields = {name: values[name] for name in _PLAIN if name in values}
    fields |= {name: tuple(values[name]) for name in _LISTS if name in values}
    fields |= {name: values.get(name, defaults.get(name)) for name in _GLOBAL}
    fields = {name: entry for name, entry in fields.items() if entry is not None or name not in _GLOBAL}
    fields.setdefault("interface", "")
    fields["unicast"] = bool(values.get("peers")) or bool(values.get("unicast_fault_no_peer"))
    group = values.get("multicast_group") or defaults.get("group4" if values["family"] == 2 else "group6")
    fields["multicast_group"] = group
    return fields


def _duplicates(parser: Parser, instances: dict[str, Instance]) -> None:
    """Two virtual routers of one number and family on one interface cannot be told apart."""
    seen: dict[tuple[object, ...], str] = {}
    for instance in instances.values():
        for target in instance.peers or (instance.multicast_group,):
            key = (instance.interface, instance.family, instance.router_id, target)
            other = seen.setdefault(key, instance.name)
            if other != instance.name:
                version = 4 if instance.family == 2 else 6
                parser.tell(
                    Message(
                        instance.origins.get("router_id"),
                        instance.name,
                        f"{other} and {instance.name} both use VRID {instance.router_id} with IPv{version} "
                        f"on interface {instance.interface}",
                    )
                )
                break
