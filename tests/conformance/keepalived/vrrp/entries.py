"""Addresses, routes and rules, from the real program's dump and from ours: words in order of names."""

from __future__ import annotations

import re

from xlvs.keepalived.config import Interface, Route, Rule, VirtualAddress
from xlvs.keepalived.routes import TABLES, TYPES
from xlvs.keepalived.values import FOREVER

_SCOPES = {"global": "0", "nowhere": "255", "host": "254", "link": "253", "site": "200"}
_NAMED_SCOPES = {number: name for name, number in _SCOPES.items()}
_PROTOCOL = {
    "redirect": "1",
    "kernel": "2",
    "boot": "3",
    "static": "4",
    "gated": "8",
    "ra": "9",
    "mrt": "10",
    "zebra": "11",
    "bird": "12",
    "dnrouted": "13",
    "xorp": "14",
    "ntk": "15",
    "dhcp": "16",
    "keepalived": "18",
    "babel": "42",
    "bgp": "186",
    "isis": "187",
    "ospf": "188",
    "rip": "189",
    "eigrp": "192",
}
_ALONE = ("no_track", "onlink", "nop", "not", "l3mdev", "append", "prepend", *TYPES)
_FLAGS = ("no_track", "home", "-nodad", "mngtmpaddr", "autojoin", "noprefixroute", "deprecated")
_CALLED = {
    "table": "lookup",
    "protocol": "proto",
    "preference": "priority",
    "suppress_prefixlength": "suppress_prefixlen",
    "type": "",
    "realm": "realms",
}
_IPPROTO = {"tcp": "6", "udp": "17", "icmp": "1"}


def of_dump(line: str) -> str:
    """A line of a dump: an address, a route or a rule."""
    text = re.sub(r" dev \S+@(\S+)", r" dev \1", line.strip())
    text = re.sub(r" set$| \[installed.*\]$|^(prepend|append|add) | preferred_lft forever", "", text)
    return " ".join(_sorted_flags(text.split()))


def _sorted_flags(words: list[str]) -> list[str]:
    flags = [word for word in words if word in _FLAGS]
    return [word for word in words if word not in _FLAGS] + sorted(flags)


def in_order(text: str) -> str:
    """A route or a rule: its words with their values, by name, as far as they are not what is always so."""
    words = text.split()
    nexthops = words[words.index("nexthop") :] if "nexthop" in words else []
    words = words[: len(words) - len(nexthops)]
    found: set[str] = set()
    if nexthops and nexthops[-1] == "no_track":
        found.add(nexthops.pop())
    while words:
        word = words.pop(0)
        word = _CALLED.get(word, word)
        if word in _ALONE or re.match(r"[0-9a-f.:]+(/\d+)?$", word) or word in ("default", "all", "any"):
            six = "inet6" in text or ":" in text
            any_ = "::/0" if six else "0.0.0.0/0"
            word = word.removesuffix("/32")
            found.add(any_ if word in ("default", "all", "any") else word)
        elif word and word != "inet6" and word != "inet":
            value = words.pop(0) if words else ""
            if value in ("inet", "inet6", "lock"):
                value = f"lock {words.pop(0)}" if value == "lock" else words.pop(0)
            found.add(f"{word} {_value(word, value)}".replace("from 0.0.0.0/0", "from all"))
    found -= {"lookup 254", "tos 0x0", "from all", "proto 18", "to all", "unicast", "append", "prepend"}
    if "l3mdev" in found:
        found.discard("lookup 0")
    hops = [word for word in nexthops if word not in ("inet", "inet6")]
    return " ".join([*sorted(found), *hops])


def _value(word: str, value: str) -> str:
    if word == "lookup":
        return str(TABLES.get(value, value))
    if word == "proto":
        return _PROTOCOL.get(value, value)
    if word == "scope":
        return _SCOPES.get(value, value)
    if word == "ipproto":
        return _IPPROTO.get(value, value)
    if word == "realms":
        return value.removeprefix("0/")
    if word in ("from", "to") and value == "default":
        return "all"
    if word == "suppress_ifgroup" and value == "default":
        return "0"
    if word == "expires":
        return value.removesuffix("sec")
    if word in ("fwmark", "tos", "tc"):
        return "/".join(hex(int(part, 0)) for part in value.split("/"))
    return value


def shown(address: Interface) -> str:
    """An address, without the length that a single one has."""
    whole = address.network.prefixlen == address.max_prefixlen
    mapped = getattr(address.ip, "ipv4_mapped", None)
    if mapped is not None:
        return f"::ffff:{mapped}"
    return str(address.ip if whole else address)


def of_address(one: VirtualAddress, interface: str) -> str:
    """One of our addresses in the same words."""
    words = [shown(one.address)]
    if one.broadcast is not None:
        words += ["brd", str(one.broadcast)]
    words += ["dev", one.device or interface]
    words += ["use_vmac"] * one.use_vmac
    scope = one.scope or "global"
    words += ["scope", _NAMED_SCOPES.get(scope, scope)]
    if one.label:
        words += ["label", one.label]
    words += ["no_track"] * one.no_track + ["home"] * one.home
    words += ["-nodad" if flag == "nodad" else flag for flag in one.flags]
    words += ["noprefixroute"] * one.no_prefix_route
    if one.address.version == 6:
        lifetime = one.preferred_lifetime
        if lifetime is None and one.address.network.prefixlen == one.address.max_prefixlen:
            lifetime = 0  # RFC 3484, 5, rule 3: such an address is not to be chosen for a source
        if lifetime == 0:
            words.append("deprecated")
        elif lifetime not in (None, FOREVER):
            words += ["preferred_lft", str(lifetime)]
    if one.peer is not None:
        words += ["peer", str(one.peer)]
    words += ["track_group", one.track_group] if one.track_group else []
    return " ".join(_sorted_flags(words))


def _whole(one: Route | Rule) -> str:
    group = f" track_group {one.track_group}" if one.track_group else ""
    return " ".join(one.words) + " no_track" * one.no_track + group


def of_route(one: Route) -> str:
    """One of our routes in the same words."""
    return in_order(_whole(one))


def of_rule(one: Rule) -> str:
    """One of our rules in the same words."""
    return in_order(_whole(one))
