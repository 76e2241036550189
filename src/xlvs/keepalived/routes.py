"""Entries of virtual_routes, static_routes, virtual_rules and static_rules: ip's words, checked.

The words are kept as they were written, keywords spelled as ip(8) spells them ("via" for "gw").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from xlvs.keepalived.config import Route, Rule
from xlvs.keepalived.encap import encap
from xlvs.keepalived.entries import Words, Wrong, traffic_class
from xlvs.keepalived.schema import Line
from xlvs.keepalived.values import number, parse_address, parse_interface
from xlvs.keepalived.vrrp_addresses import SCOPES

TYPES = (
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
)  # in the order of their numbers, from 1
TABLES = {"unspec": 0, "default": 253, "main": 254, "local": 255}
PROTOCOLS: tuple[str, ...] = ("redirect", "kernel", "boot", "static", "gated", "ra", "mrt", "zebra", "bird")
PROTOCOLS += ("dnrouted", "xorp", "ntk", "dhcp", "keepalived", "babel", "bgp", "isis", "ospf", "rip", "eigrp")
FIRST_PREFERENCE = 16384  # keepalived counts down from here for rules that have none
_UNSIGNED = 2**32 - 1
_LARGEST = 255  # of protocols and scopes: eight bits of rtnetlink(7)


def _unsigned(low: int, high: int, refusal: str) -> Callable[[Words], list[str]]:
    def kind(words: Words) -> list[str]:
        word = words.take()
        if number(words.line, word, low, high) is None:
            raise Wrong(refusal.format(word=word))
        return [word]

    return _locked(kind)


def _metric(name: str, high: int = _UNSIGNED) -> Callable[[Words], list[str]]:
    return _unsigned(0, high, f"Invalid {name} {{word}} specified for route")


def _table(refusal: str) -> Callable[[Words], list[str]]:
    def kind(words: Words) -> list[str]:
        word = words.take()
        if word not in TABLES and not (word.isdigit() and int(word[:12]) <= _UNSIGNED):
            raise Wrong(refusal.format(word=word))
        return [word]

    return kind


def _named(names: tuple[str, ...], refusal: str) -> Callable[[Words], list[str]]:
    def kind(words: Words) -> list[str]:
        word = words.take()
        given = re.fullmatch(r"0x[0-9a-fA-F]{1,2}|[0-9]{1,3}", word)
        if word not in names and not (given and int(word, 16 if "x" in word else 10) <= _LARGEST):
            raise Wrong(refusal.format(word=word))
        return [word]

    return kind


def _tos(words: Words) -> list[str]:
    return [traffic_class(words, "TOS value {word} is invalid")]


def _any(words: Words) -> list[str]:
    return [words.take()]


def _locked(kind: Callable[[Words], list[str]]) -> Callable[[Words], list[str]]:
    """A metric that may be locked, which is said before it."""

    def taken(words: Words) -> list[str]:
        if words.peek() != "lock":
            return kind(words)
        return [words.take(), *kind(words)]

    return taken


def _pattern(pattern: str, refusal: str) -> Callable[[Words], list[str]]:
    def kind(words: Words) -> list[str]:
        word = words.take()
        if not re.fullmatch(pattern, word):
            raise Wrong(refusal.format(word=word))
        return [word]

    return kind


_PREFERENCE = _metric("metric")
_REALMS = r"[0-9]+(/[0-9]+)?"
_TIME = r"[0-9]+(\.[0-9]+)?(s|ms)?"
_ROUTE: dict[str, tuple[str, Callable[[Words], list[str]]]] = {
    "tos": ("tos", _tos),
    "dsfield": ("tos", _tos),
    "table": ("table", _table("Routing table {word} not found for route")),
    "protocol": ("proto", _named(PROTOCOLS, "Protocol {word} not found or invalid for route")),
    "scope": ("scope", _named(SCOPES, "Scope {word} not found or invalid for route")),
    "metric": ("metric", _PREFERENCE),
    "priority": ("metric", _PREFERENCE),
    "preference": ("metric", _PREFERENCE),
    "expires": ("expires", _pattern(r"[0-9]+", "Invalid expires time {word} specified for route")),
    "mtu": ("mtu", _metric("MTU")),
    "hoplimit": ("hoplimit", _metric("hoplimit", 255)),
    "advmss": ("advmss", _metric("advmss")),
    "rtt": ("rtt", _locked(_pattern(_TIME, "Invalid rtt {word} for route"))),
    "rttvar": ("rttvar", _locked(_pattern(_TIME, "Invalid rttvar {word} for route"))),
    "reordering": ("reordering", _metric("reordering value")),
    "window": ("window", _metric("window value")),
    "cwnd": ("cwnd", _metric("cwnd value")),
    "ssthresh": ("ssthresh", _metric("ssthresh value")),
    "realms": ("realms", _pattern(_REALMS, "Invalid realms {word} for route")),
    "rto_min": ("rto_min", _locked(_pattern(_TIME, "Invalid rto_min value {word} specified for route"))),
    "initcwnd": ("initcwnd", _metric("initcwnd value")),
    "initrwnd": ("initrwnd", _metric("initrwnd value")),
    "quickack": ("quickack", _unsigned(0, 1, "Invalid quickack value {word} specified for route")),
    "congctl": ("congctl", _locked(_any)),
    "pref": ("pref", _pattern("low|medium|high", "Invalid pref value {word} specified for route")),
    "features": ("features", _pattern("ecn", "feature {word} not supported")),
    "fastopen_no_cookie": (
        "fastopen_no_cookie",
        _unsigned(0, 1, "Invalid fastopen_no_cookie value {word} specified for route"),
    ),
    "vrf": ("vrf", _any),
    "ttl-propagate": (
        "ttl-propagate",
        _pattern("enabled|disabled", "ttl-propagate value {word} not recognised"),
    ),
}


def _address(words: Words, family: list[int], refusal: str) -> str:
    """An address, of the family that the entry turns out to have."""
    word = words.take()
    plain = parse_address(word)
    if plain is None:
        words.line.warn(f"VRRP parsed invalid IP {word}. skipping IP...")
        raise Wrong(refusal.format(word=word))
    _same(family, plain.version)
    return word


def _same(family: list[int], version: int) -> None:
    if family and family[0] != version:
        raise Wrong("Cannot mix IPv4 and IPv6 addresses for route")
    if not family:
        family.append(version)


def _type(word: str) -> str:
    """A route's type, which may be a number (rtnetlink(7)); "" for another word."""
    if word in TYPES:
        return word
    match = re.fullmatch(r"0x0*([0-9a-fA-F]{1,2})|0*([0-9]{1,3})", word)
    found = int(match[1] or match[2], 16 if match[1] else 10) if match else 256
    return "" if found > 255 else TYPES[found - 1] if 1 <= found <= len(TYPES) else str(found)


def _prefix(line: Line, word: str, family: list[int]) -> str | None:
    """A destination as it is kept, or None where the word is none."""
    if word == "default6":
        _same(family, 6)
        return "default"
    if word in ("default", "all", "any"):
        return word
    head, slash, length = word.partition("/")
    plain = parse_address(head)
    if plain is None:
        line.warn(f"VRRP parsed invalid IP {word}. skipping IP...")
        return None
    _same(family, plain.version)
    if slash and number(line, length, 0, plain.max_prefixlen) is None:
        most = plain.max_prefixlen
        line.warn(f"Invalid address prefix len {length} for address {word} - using {most}")
        return f"{head}/{most}"
    return word


def _device(words: Words, what: str) -> str:
    word = words.take()
    if words.line.parser.host.link(word) is None:
        words.line.parser.missing_link(words.line, f"WARNING - interface {word} for {what} doesn't exist")
    return word


def _track(words: Words, fields: dict[str, Any], word: str, static: bool) -> bool:
    if word == "no_track":
        fields["no_track"] = True
    elif word == "track_group" and static:
        fields["track_group"] = words.take()
        words.line.parser.top.add("track_group_uses", (words.line.origin, fields["track_group"]))
    else:
        return False
    return True


def route(line: Line, *, static: bool = False) -> Route | None:
    """One route; None, and a message, where it cannot be used."""
    try:
        return _route(Words(line), static)
    except Wrong as wrong:
        if str(wrong):
            line.warn(str(wrong))
        return None


def _route(words: Words, static: bool) -> Route:
    line = words.line
    kept: list[str] = []
    encapsulation: list[str] = []
    fields: dict[str, Any] = {}
    family: list[int] = []
    destination = device = ""
    while words.more():
        word = words.take()
        if word in ("inet", "inet6"):
            _same(family, 4 if word == "inet" else 6)
        elif word in ("via", "gw"):
            if word == "gw":
                line.warn('"gw" for routes is deprecated. Please use "via"')
            _skip_family(words, family)
            kept += ["via", _address(words, family, "invalid route via address {word}")]
        elif word in ("src", "from"):
            if word == "from" and family == [4]:
                raise Wrong(f"route from address only supported with IPv6 ({words.peek()})")
            kept += [word, _address(words, family, f"invalid route {word} address {{word}}")]
        elif word in ("dev", "oif"):
            device = _device(words, "VROUTE nexthop")
            kept += ["dev", device]
        elif word == "or":
            line.warn('"or" for routes is deprecated. Please use "nexthop"')
            kept += ["or", _address(words, family, 'Invalid "or" address {word}')]
        elif word in ("onlink", "append", "prepend"):
            kept.append(word)
        elif word == "encap":
            encapsulation = encap(words)  # the last one counts
        elif word == "nexthop":
            kept += _nexthops(words, family)
        elif word in _ROUTE:
            name, kind = _ROUTE[word]
            kept += [name, *kind(words)]
        elif _track(words, fields, word, static):
            pass
        else:
            type_ = _type(word)
            if type_:
                kept.insert(0, type_)
            if word == "to" or type_:
                word = words.take()  # a type is followed by its destination
            found = _prefix(line, word, family)
            if found is None or destination:
                raise Wrong(f"unknown route keyword {word}")
            destination = found
            kept.append(found)
    if not destination:
        raise Wrong("Route must have a destination")
    for word in ("expires", "pref"):
        if word in kept and family != [6]:
            raise Wrong(f"{word} is only valid for IPv6")
    if not device and not fields.get("no_track"):
        text = f"Warning - cannot track route {destination} with no interface specified, not tracking"
        line.warn(text)
        fields["no_track"] = True
        if fields.pop("track_group", None):
            line.warn("Static route cannot have track group if no oif specified")
    if "proto" in kept and not fields.get("no_track"):
        at = kept.index("proto")
        if kept[at + 1] not in ("keepalived", "18"):
            text = "Route cannot be tracked if protocol is not RTPROT_KEEPALIVED(18), resetting protocol"
            line.warn(text)
            del kept[at : at + 2]
    at = kept.index("nexthop") if "nexthop" in kept else len(kept)
    kept[at:at] = encapsulation  # behind all else, for its words have names of their own
    if family == [6]:
        kept.insert(0, "inet6")
    return Route(tuple(kept), **fields)


def _skip_family(words: Words, family: list[int]) -> None:
    if words.peek() in ("inet", "inet6"):
        _same(family, 4 if words.take() == "inet" else 6)


def _nexthops(words: Words, family: list[int]) -> list[str]:
    """All next hops: they end the route."""
    kept = ["nexthop"]
    while words.more():
        word = words.take()
        if word in ("via", "gw"):
            _skip_family(words, family)
            kept += ["via", _address(words, family, "invalid nexthop address {word}")]
        elif word in ("dev", "oif"):
            kept += ["dev", _device(words, "VROUTE nexthop")]
        elif word == "weight":
            weight = words.take()
            if number(words.line, weight, 0, 256) is None:
                words.line.warn(f"Invalid weight {weight} specified for route")
            elif int(weight) == 0:
                words.line.warn("Invalid weight 0 specified for route")
            else:
                kept += ["weight", weight]
        elif word in ("onlink", "nexthop"):
            kept.append(word)
        elif word == "encap":
            kept += encap(words)
        elif word == "realms":
            kept += ["realms", words.take()]
        elif word in ("no_track", "track_group"):
            words.take() if word == "track_group" else None
        else:
            words.line.warn(f"Route has trailing nonsense after nexthops - {word}")
            break
    return kept


# -- rules --------------------------------------------------------------------------

_ACTIONS = ("nop", "blackhole", "prohibit", "unreachable")
_TABLE = _table("Routing table {word} not found for rule")
_IP_PROTOCOLS = r"[0-9]{1,3}|icmp|igmp|tcp|udp|dccp|gre|esp|ah|ipv6-icmp|sctp|udplite"
_PORTS = r"[0-9]{1,5}-[0-9]{1,5}"
_MARK = r"(0x[0-9a-fA-F]{1,8}|[0-9]+)(/(0x[0-9a-fA-F]{1,8}|[0-9]+))?"
_RULE: dict[str, tuple[str, Callable[[Words], list[str]]]] = {
    "fwmark": ("fwmark", _pattern(_MARK, "Invalid rule fwmark {word} specified")),
    "tos": ("tos", _tos),
    "dsfield": ("tos", _tos),
    "realms": ("realms", _pattern(_REALMS, "invalid realms {word} for rule")),
    "suppress_prefixlength": (
        "suppress_prefixlength",
        _unsigned(0, 2**31 - 1, "Invalid suppress_prefixlength {word} specified"),
    ),
    "suppress_ifgroup": ("suppress_ifgroup", _pattern(r"default|[0-9]+", "suppress_group {word} is invalid")),
    "tunnel-id": ("tunnel-id", _pattern(r"[0-9]+", "Invalid tunnel-id {word} specified")),
    "uidrange": ("uidrange", _pattern(r"[0-9]+-[0-9]+", "Invalid uidrange {word} specified")),
    "protocol": ("protocol", _named((), "Invalid protocol {word}")),
    "ipproto": ("ipproto", _pattern(_IP_PROTOCOLS, "Invalid ipproto {word}")),
    "sport": ("sport", _pattern(_PORTS, "invalid sport range {word}")),
    "dport": ("dport", _pattern(_PORTS, "invalid dport range {word}")),
}


def rule(line: Line, *, static: bool = False) -> Rule | None:
    """One rule; None, and a message, where it cannot be used."""
    try:
        return _rule(Words(line), static)
    except Wrong as wrong:
        if str(wrong):
            line.warn(str(wrong))
        return None


def _rule(words: Words, static: bool) -> Rule:
    line = words.line
    kept: list[str] = []
    fields: dict[str, Any] = {}
    family: list[int] = []
    actions: list[str] = []
    preference: int | None = None
    while words.more():
        word = words.take()
        if word in ("from", "to"):
            kept += [word, _end(words, family, word)]
        elif word in ("table", "lookup"):
            table = _TABLE(words)[0]
            if table in ("0", "unspec"):
                raise Wrong("Table 0 is not valid")
            actions.append("table")
            kept += ["table", table]
        elif word in ("preference", "priority", "order"):
            preference = number(line, words.take(), 0, _UNSIGNED)
            if preference is None:
                raise Wrong(f"Invalid rule preference {word} specified")
        elif word in ("iif", "dev", "oif"):
            kept += ["oif" if word == "oif" else "iif", _device(words, "rule")]
        elif word == "goto":
            target = words.take()
            if number(line, target, 0, _UNSIGNED) is None:
                raise Wrong(f"Invalid target {target} specified")
            actions.append("goto")
            kept += ["goto", target]
        elif word == "type" and words.peek() in _ACTIONS:
            continue  # the action follows
        elif word in ("not", "l3mdev") or word in _ACTIONS:
            actions += [] if word == "not" else [word]
            kept.append(word)
        elif word in ("inet", "inet6"):
            _family(family, 4 if word == "inet" else 6)
        elif word in _RULE:
            name, kind = _RULE[word]
            kept += [name, *kind(words)]
        elif not _track(words, fields, word, static):
            raise Wrong(f"Unknown rule option {word}")
    _action(kept, actions, preference)
    if preference is None:
        preference = line.parser.top.values.setdefault("next_preference", FIRST_PREFERENCE)
        line.parser.top.values["next_preference"] = preference - 1
        line.warn(
            f"Rule has no preference specified - setting to {preference}. This is probably not what you want."
        )
    if "iif" not in kept and fields.pop("track_group", None):
        line.warn("Static rule cannot have track_group if dev/iif not specified")
    kept += ["preference", str(preference)]
    if family == [6]:
        kept.insert(0, "inet6")
    return Rule(tuple(kept), **fields)


def _action(kept: list[str], actions: list[str], preference: int | None) -> None:
    if not actions:
        raise Wrong("No action specified for rule - ignoring")
    if len(actions) > 1:
        raise Wrong(
            "Cannot specify more than one of table/nop/goto/blackhole/prohibit/unreachable/l3mdev for rule"
        )
    if actions == ["goto"]:
        target = int(kept[kept.index("goto") + 1])
        if preference is None:
            raise Wrong(f"Invalid rule - goto target {target} specified without preference")
        if preference >= target:
            raise Wrong(f"Invalid rule - preference {preference} >= goto target {target}")


def _family(family: list[int], version: int) -> None:
    if family and family[0] != version:
        raise Wrong("rule specification has mixed IPv4 and IPv6")
    if not family:
        family.append(version)


def _end(words: Words, family: list[int], which: str) -> str:
    word = words.take()
    if word in ("all", "default"):
        return word
    found = parse_interface(word)
    if found is None:
        words.line.warn(f"VRRP parsed invalid IP {word}. skipping IP...")
        raise Wrong(f"Invalid rule {which} address {word}")
    _family(family, found.version)
    return word


def gather_routes(line: Line, name: str, *, static: bool = False) -> None:
    """A block of routes, appended to the draft's field ``name``."""
    _gather(line, name, static, route)


def gather_rules(line: Line, name: str, *, static: bool = False) -> None:
    """A block of rules, appended to the draft's field ``name``."""
    _gather(line, name, static, rule)


def _gather(line: Line, name: str, static: bool, each: Callable[..., Route | Rule | None]) -> None:
    line.draft.values.setdefault(name, [])
    line.draft.origins.setdefault(name, line.origin)
    for entry in line.parser.entries(line):
        found = each(entry, static=static)
        if found is not None:
            line.draft.add(name, found)
