"""Keywords of vrrp_instance. What they mean together is in vrrp_check.py."""

from __future__ import annotations

import re

from xlvs.health.checks import Address
from xlvs.keepalived import notify, sync_daemon
from xlvs.keepalived.routes import gather_routes, gather_rules
from xlvs.keepalived.schema import (
    Draft,
    Line,
    Parser,
    Refused,
    Row,
    Table,
    Value,
    block,
    entries,
    flag,
    value,
)
from xlvs.keepalived.tracking import TRACKED
from xlvs.keepalived.values import boolean, decimal, number, parse_address, parse_interface
from xlvs.keepalived.vrrp_addresses import gather

LINK_LOCAL = 2  # the scope of a multicast address: RFC 4291, 2.7
NAME_BYTES = 15  # IFNAMSIZ without its end
AUTH_BYTES = 8  # RFC 2338, 5.3.10
LONGEST_DELAY = 1000  # seconds of preempt_delay
LONGEST_EXTRA = 86400


def _number(low: int, high: int, refusal: str) -> Value:
    def kind(line: Line) -> int:
        found = number(line, line.word(), low, high)
        if found is None:
            raise Refused(refusal.format(name=line.draft.name, word=line.word()))
        return found

    return kind


def _state(line: Line) -> None:
    state = line.word()
    if state not in ("MASTER", "BACKUP"):
        line.warn(f"({line.draft.name}) unknown state '{state}', defaulting to BACKUP")
        state = "BACKUP"
    if state == "BACKUP" and line.draft.get("state") == "MASTER":
        raise Refused(f"({line.draft.name}) state previously set as MASTER - ignoring BACKUP")
    line.draft.values["state"] = state
    line.draft.origins["state"] = line.origin


def link_name(word: str, refusal: str) -> str:
    """An interface's name that fits the kernel; raises Refused."""
    if len(word.encode(errors="surrogateescape")) > NAME_BYTES:
        raise Refused(refusal)
    return word


def _interface(line: Line) -> str:
    name = link_name(line.word(), f"Interface name '{line.word()}' too long - ignoring")
    link = line.parser.host.link(name)
    if link is None:
        line.parser.missing_link(
            line, f"WARNING - interface {name} for vrrp_instance {line.draft.name} doesn't exist"
        )
    elif link.loopback:
        raise Refused(f"({line.draft.name}) cannot use a loopback interface ({name}) for vrrp - ignoring")
    return name


def _vrf(line: Line) -> str:
    where, name = f"({line.draft.name})", line.word()
    link_name(name, f"{where} VRF interface name '{name}' too long - ignoring")
    if "interface" in line.draft.values:
        raise Refused(f"{where} Cannot specify VRF interface and interface - ignoring")
    if "vrf" in line.draft.values:
        raise Refused(f"{where} VRF interface already specified as '{line.draft.values['vrf']}' - ignoring")
    if line.parser.host.link(name) is None:
        line.parser.missing_link(line, f"{where} WARNING - VRF interface {name} doesn't exist")
    return name


def _vmac(line: Line) -> None:
    values = line.draft.values
    values["vmac"] = True
    line.draft.origins["vmac"] = line.origin
    for word in line.words[1:]:
        if re.fullmatch(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){4,5}", word):
            if values.get("vmac_addr"):
                raise Refused("VMAC interface address already specified")
            octets = bytes(int(octet, 16) for octet in word.split(":"))
            if octets[0] & 1:
                raise Refused(f"VMAC MAC address is multicast {word} - ignoring")
            if octets[:4] == bytes.fromhex("00005e00"):
                raise Refused(f"VMAC MAC address not allowed to be RFC5798 address ({word}) - ignoring")
            values["vmac_addr"] = octets
        elif ":" in word:
            raise Refused(f"VMAC invalid MAC address {word} - ignored")
        elif values.get("vmac_name"):
            raise Refused("VMAC interface name already specified")
        elif len(word.encode(errors="surrogateescape")) > NAME_BYTES or "/" in word:
            raise Refused(f"VMAC interface name '{word}' too long or invalid characters - ignoring")
        else:
            values["vmac_name"] = word


def _ipvlan(line: Line) -> None:
    values, where = line.draft.values, f"({line.draft.name})"
    if values.get("ipvlan"):
        raise Refused(f"{where} use_ipvlan already specified")
    values["ipvlan"] = True
    line.draft.origins["ipvlan"] = line.origin
    for word in line.words[1:]:
        address = parse_interface(word)
        if word in ("bridge", "private", "vepa"):
            if "ipvlan_mode" in values:
                raise Refused(f"{where} ipvlan type already specified - ignoring '{word}'")
            values["ipvlan_mode"] = word
        elif address is not None:
            if "ipvlan_address" in values:
                raise Refused(f"{where} ipvlan address already specified - ignoring '{word}'")
            if _family(line.draft) not in (0, address.version):
                raise Refused(
                    f"{where} ipvlan address[{word}] MUST match vrrp instance family !!! Skipping..."
                )
            values["ipvlan_address"] = address
        elif values.get("vmac_name"):
            raise Refused(f"{where} IPVLAN interface already specified - ignoring '{word}'")
        else:
            values["vmac_name"] = link_name(
                word, f"{where} IPVLAN interface name '{word}' too long - ignoring"
            )


def _source(line: Line) -> Address:
    interface = parse_interface(line.word())
    found = interface and interface.ip
    if line.keyword == "unicast_src_ip":
        line.draft.values["unicast_keyword"] = True
    name, word = line.draft.name, line.word()
    if found is None:
        raise Refused(
            f"Configuration error: VRRP instance[{name}] malformed src address[{word}]. Skipping..."
        )
    if _family(line.draft) not in (0, found.version):
        raise Refused(
            f"Configuration error: VRRP instance[{name}] and src address[{word}] MUST be of the same "
            "family !!! Skipping..."
        )
    _set_family(line.draft, found.version)
    return found


def _multicast(line: Line) -> Address:
    found, where, word = parse_address(line.word()), f"({line.draft.name})", line.word()
    if found is None:
        raise Refused(f"{where} malformed mcast dest address {word}. Skipping...")
    if _family(line.draft) not in (0, found.version):
        raise Refused(f"{where} mcast dest address {word} MUST match VRRP instance family. Skipping...")
    if not found.is_multicast:
        raise Refused(f"{where} mcast_dst_ip {word} not multicast. Skipping...")
    if found.version == 6 and found.packed[1] & 0x0F != LINK_LOCAL:
        raise Refused(f"{where} mcast_dst_ip {word} not link-local multicast. Skipping...")
    return found


def _family(draft: Draft) -> int:
    """4 or 6 once anything has decided it, else 0."""
    family: int = draft.values.get("version_of_addresses", 0)
    return family


def _set_family(draft: Draft, version: int) -> None:
    draft.values.setdefault("version_of_addresses", version)


def _peer(line: Line) -> None:
    found, draft = parse_address(line.words[0]), line.draft
    if found is None:
        line.warn(
            f"Configuration error: VRRP instance[{draft.name}] malformed unicast peer "
            f"address[{line.words[0]}]. Skipping..."
        )
        return
    if _family(draft) not in (0, found.version):
        line.warn(
            f"Configuration error: VRRP instance[{draft.name}] and unicast peer address[{line.words[0]}] "
            "MUST be of the same family !!! Skipping..."
        )
        return
    _set_family(draft, found.version)
    limits = {"min_ttl": 0, "max_ttl": 255}
    words = line.words[1:]
    while words:
        word = words.pop(0)
        if word not in limits or not words:
            line.warn(f"({draft.name}) unknown unicast_peer option {word}")
            break
        ttl = number(line, words.pop(0), 0, 255)
        if ttl is not None:
            limits[word] = ttl
            draft.values["check_unicast_src"] = True
    if limits["min_ttl"] > limits["max_ttl"]:
        line.warn(
            f"({draft.name}) min_ttl {limits['min_ttl']} > max_ttl {limits['max_ttl']} - all packets "
            "will be discarded"
        )
    draft.add("peers", found)
    draft.add("peer_ttl", (limits["min_ttl"], limits["max_ttl"]))


def _addresses(line: Line) -> None:
    """virtual_ipaddress: all of one family, which becomes the instance's."""
    draft = line.draft
    before = len(draft.values.get("addresses", ()))
    gather(line, "addresses")
    kept = draft.values["addresses"][:before]
    for address in draft.values["addresses"][before:]:
        _set_family(draft, address.address.version)
        if address.address.version != _family(draft):
            line.warn(
                f"({draft.name}): address family must match VRRP instance [{address.address}] - ignoring"
            )
        else:
            kept.append(address)
    draft.values["addresses"] = kept


def _native6(line: Line) -> None:
    if _family(line.draft) == 4:
        raise Refused(f"({line.draft.name}) Cannot specify native_ipv6 with IPv4 addresses")
    _set_family(line.draft, 6)
    line.draft.values["native_ipv6"] = True


def _priority(line: Line) -> int:
    found = number(line, line.word(), 1, 255)
    if found is None:
        line.warn(f"({line.draft.name}) Priority not valid! must be between 1 & 255. Using default 100")
        return 100
    return found


def _advert(line: Line) -> float:
    refusal = f"({line.draft.name}) Advert interval ({{word}}) not valid! Must be > 0 - ignoring"
    return decimal(line, line.word(), 0.01, 255, refusal)


def _preempt_delay(line: Line) -> float:
    refusal = f"({line.draft.name}) Preempt_delay not valid! must be between 0-{LONGEST_DELAY}"
    return decimal(line, line.word(), 0, LONGEST_DELAY, refusal)


def _auth_type(line: Line) -> str:
    found = {"AH": "AH", "PASS": "PASS"}.get(line.word())
    if found is None:
        raise Refused(f"({line.draft.name}) unknown authentication type '{line.word()}'")
    return found


def _auth_pass(line: Line) -> bytes:
    key = line.word().encode("utf-8", "surrogateescape")
    if len(key) > AUTH_BYTES:
        line.warn(f"Truncating auth_pass to {AUTH_BYTES} characters")
    return key[:AUTH_BYTES]


def _old_checksum(line: Line) -> None:
    line.draft.values["unicast_keyword"] = True
    word = line.words[1] if len(line.words) > 1 else ""
    if word not in ("", "never"):
        raise Refused(f"({line.draft.name}) Unknown old_unicast_chksum mode {word} - ignoring")
    line.draft.values["old_unicast_checksum"] = not word
    line.draft.values["checksum_compatibility"] = not word


def extra_interval(line: Line) -> tuple[float, bool]:
    """``garp_extra_if [all] SECONDS``: the interval, and whether for all interfaces."""
    where = f"({line.draft.name}): " if line.draft.kind == "vrrp_instance" else ""
    words = line.words[1:]
    everywhere = bool(words) and words[0] == "all"
    if everywhere:
        words = words[1:]
    if not words:
        raise Refused(f"{where}{line.keyword} specified without time - ignoring")
    found = number(line, words[0], 0 if where else 1, LONGEST_EXTRA)
    if found is None:
        raise Refused(f"{where}{line.keyword} '{words[0]}' invalid - ignoring")
    return float(found), everywhere


def _extra(line: Line) -> None:
    if line.keyword == "vmac_garp_intvl":
        line.warn('Keyword "vmac_garp_intvl" is deprecated - please use "garp_extra_if"')
    interval, everywhere = extra_interval(line)
    line.draft.values["garp.extra_interval"] = interval
    line.draft.values["garp.extra_all"] = everywhere


def _at_least_one(field: str) -> Value:
    def kind(line: Line) -> int:
        text = f"({line.draft.name}): {line.keyword}"
        found = number(line, line.word(), 0, 2**32 - 1)
        if found is None:
            raise Refused(f"{text} '{line.word()}' invalid - ignoring")
        if found == 0 and field != "lower":
            line.warn(f"{text} must be greater than 0, setting to 1")
            return 1
        return found

    return kind


def _open(line: Line) -> Draft:
    name = line.names[0] if len(line.names) == 1 else ""
    if not name:
        line.warn("vrrp_instance must have a name")
    draft = Draft("vrrp_instance", name, skipped=not name)
    instances = line.parser.top.values.setdefault("instances", {})
    if name in instances:
        line.warn(f"vrrp instance {name} already defined")
        draft.skipped = True
    return draft


def _close(parser: Parser, draft: Draft) -> None:
    parser.top.values["instances"][draft.name] = draft


def _deprecated_linkbeat(line: Line) -> None:
    line.warn(
        f"({line.draft.name}) 'linkbeat_use_polling' in vrrp instance deprecated - "
        "use linkbeat_interfaces block"
    )
    line.draft.values["linkbeat_use_polling"] = True


def _bool(field: str, shown: str) -> Row:
    return value(field, boolean(f"({{block}}) invalid {shown} {{word}} specified"))


def _buffer(line: Line) -> int:
    refusal = f"({line.draft.name}) invalid kernel_rx_buf_size specified"
    if len(line.words) != 2:
        raise Refused(refusal)
    found = number(line, line.word(), 0, 2**32 - 1)
    if found is None:
        raise Refused(refusal)
    return found


_AUTH: Table = {"auth_type": value("auth", _auth_type), "auth_pass": value("auth_key", _auth_pass)}


def _auth_open(line: Line) -> Draft:
    """The block's values are the instance's own."""
    return Draft("authentication", line.draft.name, line.draft.values, line.draft.origins)


def _auth_close(_parser: Parser, _draft: Draft) -> None:
    """Nothing: the values are in the instance already."""


_DELAY = "({name}): {keyword} '{word}' invalid - ignoring"


def _delay(keyword: str, high: int = 2**31 - 1) -> Value:
    return _number(0, high, _DELAY.replace("{keyword}", keyword))


_VMAC: dict[str, Row] = {
    "use_vmac": Row(_vmac),
    "use_vmac_addr": flag("vmac_for_addresses"),
    "vmac_xmit_base": flag("vmac_xmit_base"),
    "use_ipvlan": Row(_ipvlan),
}
_GARP: dict[str, Row] = {
    "garp_master_delay": value("garp.master_delay", _delay("garp_master_delay")),
    "garp_master_repeat": value("garp.master_repeat", _at_least_one("master")),
    "garp_master_refresh": value(
        "garp.master_refresh",
        _number(0, 2**32 - 1, "({name}): Invalid garp_master_refresh '{word}' - ignoring"),
    ),
    "garp_master_refresh_repeat": value("garp.master_refresh_repeat", _at_least_one("refresh")),
    "garp_lower_prio_delay": value("garp.lower_prio_delay", _delay("garp_lower_prio_delay")),
    "garp_lower_prio_repeat": value(
        "garp.lower_prio_repeat", _number(0, 2**31 - 1, "({name}): Invalid garp_lower_prio_repeat '{word}'")
    ),
    "garp_extra_if": Row(_extra),
    "vmac_garp_intvl": Row(_extra),
}
KEYWORDS: Table = {
    "state": Row(_state),
    "interface": value("interface", _interface),
    "vrf": value("vrf", _vrf),
    **_VMAC,
    "unicast_peer": entries(_peer, "peers"),
    "unicast_fault_no_peer": flag("unicast_fault_no_peer"),
    "unicast_ttl": value(
        "ttl", _number(0, 255, "({name}): TTL '{word}' not valid - must be between 0 & 255")
    ),
    "unicast_src_ip": value("source", _source),
    "mcast_src_ip": value("source", _source),
    "mcast_dst_ip": value("multicast_group", _multicast),
    "check_unicast_src": flag("check_unicast_src"),  # of no sense, and told, without unicast_peer
    "old_unicast_checksum": Row(_old_checksum),
    "native_ipv6": Row(_native6),
    "dont_track_primary": flag("dont_track_primary"),
    "track_src_ip": flag("track_source"),
    **TRACKED,
    "virtual_router_id": value(
        "router_id", _number(1, 255, "({name}): VRID '{word}' not valid - must be between 1 & 255")
    ),
    "version": value("version", _number(2, 3, "({name}): Version must be either 2 or 3")),
    "priority": value("priority", _priority),
    "advert_int": value("advert", _advert),
    "down_timer_adverts": value(
        "down_timer_adverts", _number(1, 100, "({name}): Invalid down_timer_adverts [1:100] '{word}'")
    ),
    "authentication": block(_AUTH, _auth_open, _auth_close),
    "virtual_ipaddress": Row(_addresses),
    "virtual_ipaddress_excluded": Row(lambda line: gather(line, "excluded")),
    "virtual_routes": Row(lambda line: gather_routes(line, "routes")),
    "virtual_rules": Row(lambda line: gather_rules(line, "rules")),
    "promote_secondaries": flag("promote_secondaries"),
    "linkbeat_use_polling": Row(_deprecated_linkbeat),
    "accept": flag("accept", True),
    "no_accept": flag("accept", False),
    "preempt": flag("preempt", True),
    "nopreempt": flag("preempt", False),
    "preempt_delay": value("preempt_delay", _preempt_delay),
    "skip_check_adv_addr": _bool("skip_check_adv_addr", "skip_check_adv_addr"),
    "strict_mode": _bool("strict", "strict_mode"),
    "lower_prio_no_advert": _bool("lower_prio_no_advert", "lower_prio_no_advert"),
    "higher_prio_send_advert": _bool("higher_prio_send_advert", "higher_prio_send_advert"),
    "debug": value("debug", _number(0, 4, "({name}) Debug value '{word}' not valid; must be between 0-4")),
    "kernel_rx_buf_size": value("kernel_rx_buf", _buffer),
    "lvs_sync_daemon_interface": Row(sync_daemon.of_instance),
    **_GARP,
    **notify.INSTANCE,
}
TOP: Table = {"vrrp_instance": block(KEYWORDS, _open, _close)}
