"""Entries of virtual_ipaddress, virtual_ipaddress_excluded and static_ipaddress."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

from xlvs.keepalived.config import Interface, VirtualAddress
from xlvs.keepalived.schema import Line
from xlvs.keepalived.values import FOREVER, number, parse_address, parse_interface

SCOPES = ("global", "site", "link", "host", "nowhere")
LARGEST_SCOPE = 255  # eight bits of rtnetlink(7)
LABEL_BYTES = 15
_FLAGS = {"-nodad": "nodad", "mngtmpaddr": "mngtmpaddr", "autojoin": "autojoin"}


def entry(line: Line, *, static: bool = False) -> VirtualAddress | None:
    """One address with its options; None, and a message, where there is none."""
    words = iter(line.words[1:])
    written = line.words[0]
    address = _address(line, written)
    if address is None:
        line.warn(f"VRRP parsed invalid IP {written}. skipping IP...")
        return None
    fields: dict[str, Any] = {"address": address}
    for word in words:
        if word in ("dev", "scope", "brd", "broadcast", "label", "peer", "track_group", "preferred_lft"):
            value = next(words, None)
            if value is None:
                line.warn(f"No {word} parameter specified for {written}")
                return None
            _valued(line, fields, word, value, static)
        elif word == "no_track":
            fields["no_track"] = True
        elif word == "use_vmac" and not static:
            fields["use_vmac"] = True
        elif word == "home":
            fields["home"] = True
        elif word == "noprefixroute":
            fields["no_prefix_route"] = True
        elif word in _FLAGS:
            fields["flags"] = (*fields.get("flags", ()), _FLAGS[word])
        else:
            line.warn(f"Unknown configuration entry '{word}' for ip address - ignoring")
    return _checked(line, fields, written)


def _address(line: Line, written: str) -> Interface | None:
    """The address; a prefix length out of range is told and becomes the longest."""
    head, slash, prefix = written.partition("/")
    plain = parse_address(head)
    if plain is None:
        return None
    if slash and number(line, prefix, 0, plain.max_prefixlen) is None:
        longest = plain.max_prefixlen
        line.warn(f"Invalid address prefix len {prefix} for address {written} - using {longest}")
        return parse_interface(head)
    return parse_interface(written if slash else head)


def _valued(line: Line, fields: dict[str, Any], word: str, value: str, static: bool) -> None:
    address: Interface = fields["address"]
    if word == "dev":
        if fields.get("device"):
            line.warn(f"Cannot specify ipaddress device more than once for {line.words[0]}")
            fields["refused"] = True
            return
        fields["device"] = value
        if line.parser.host.link(value) is None:
            line.parser.missing_link(
                line, f"WARNING - interface {value} for ip address {line.words[0]} doesn't exist"
            )
    elif word == "scope":
        if value in SCOPES or (re.fullmatch(r"[0-9]{1,3}", value) and int(value) <= LARGEST_SCOPE):
            fields["scope"] = value
        else:
            line.warn(f"Invalid scope '{value}' specified for {line.words[0]} - ignoring")
    elif word in ("brd", "broadcast"):
        _broadcast(line, fields, value)
    elif word == "label":
        if len(value.encode(errors="surrogateescape")) > LABEL_BYTES:
            line.warn(f"Address label {value} is longer than maximum length {LABEL_BYTES} - removing address")
            fields["refused"] = True
        fields["label"] = value
    elif word == "peer":
        peer = parse_interface(value)
        if fields.get("peer"):
            line.warn(f"Peer {value} - another peer has already been specified")
        elif peer is None:
            line.warn(f"Invalid peer address {value}")
        elif peer.version != address.version:
            line.warn(f"Peer address {value} does not match address family")
        else:
            fields["peer"] = peer
            if "/" in line.words[0]:
                line.warn("Cannot specify address prefix when specifying peer address - ignoring")
    elif word == "track_group":
        if static:
            fields["track_group"] = value
            line.parser.top.add("track_group_uses", (line.origin, value))
        else:
            line.warn(f"Unknown configuration entry '{word}' for ip address - ignoring")
    elif value == "forever":
        fields["preferred_lifetime"] = FOREVER
    elif (lifetime := number(line, value, 0, FOREVER - 1)) is None:
        line.warn(f"preferred_lft {value} is invalid")
    else:
        fields["preferred_lifetime"] = lifetime


def _broadcast(line: Line, fields: dict[str, Any], value: str) -> None:
    address: Interface = fields["address"]
    if address.version == 6:
        line.warn(
            f"VRRP is trying to assign a broadcast {value} to the IPv6 address {line.words[0]} "
            "!!?? WTF... skipping VIP..."
        )
        fields["refused"] = True
        return
    plain = parse_address(value)
    if value in "-+" and value:
        if address.network.prefixlen == address.max_prefixlen:
            line.warn(f"Address prefix length {address.network.prefixlen} too long for broadcast")
            return
        network = address.network
        plain = ip_address(int(network[0] if value == "-" else network[-1]))
    if not isinstance(plain, IPv4Address):
        line.warn(f"VRRP is trying to assign invalid broadcast {value}. skipping VIP...")
        fields["refused"] = True
        return
    fields["broadcast"] = plain


def _checked(line: Line, fields: dict[str, Any], written: str) -> VirtualAddress | None:
    if fields.pop("refused", False):
        return None
    if fields.get("peer") and fields.get("broadcast"):
        line.warn("Cannot specify broadcast and peer addresses - ignoring broadcast address")
        del fields["broadcast"]
    if fields.get("peer"):
        fields["address"] = ip_interface(fields["address"].ip)
    if fields["address"].version == 6:
        for word in ("scope", "label"):
            if fields.pop(word, None) is not None:
                line.warn(f"Cannot specify {word} for IPv6 addresses ({written}) - ignoring {word}")
    return VirtualAddress(**fields)


def gather(line: Line, name: str, *, static: bool = False) -> None:
    """A whole block of addresses, appended to the draft's field ``name``."""
    line.draft.values.setdefault(name, [])
    line.draft.origins.setdefault(name, line.origin)
    for address in _entries(line, static):
        line.draft.add(name, address)


def _entries(line: Line, static: bool) -> Iterator[VirtualAddress]:
    for each in line.parser.entries(line):
        found = entry(each, static=static)
        if found is not None:
            yield found
