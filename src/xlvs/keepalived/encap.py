"""``encap`` of a route or a next hop: a tunnel without a device (ip-route(8)).

keepalived 2.2.7 (as Debian builds it) knows ip, ip6, mpls and ila, each with fewer words than iproute2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from xlvs.keepalived.entries import Words, Wrong, traffic_class
from xlvs.keepalived.values import number, parse_address

_ID = 2**64 - 1
_HOPS = 255
_FLAGS = 2**16 - 1
_LABEL = 2**20 - 1  # RFC 3032, 2.1


def encap(words: Words) -> list[str]:
    """The words behind ``encap``, taken, with itself in front. Raises :class:`Wrong`."""
    if not words.more():
        raise Wrong("Missing encap type")
    kind = words.take()
    if kind == "mpls":
        label = words.take()
        stack = label.split("/")
        if not all(re.fullmatch("[0-9]{1,7}", one) and int(one) <= _LABEL for one in stack):
            raise Wrong(f"invalid mpls address {label} for encapsulation")
        return ["encap", kind, label]
    if kind == "ila":
        locator = words.take()
        if not re.fullmatch("[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){3}", locator):
            raise Wrong(f"invalid locator {locator} for ila encapsulation")
        return ["encap", kind, locator]
    if kind in ("ip", "ip6"):
        return ["encap", kind, *_outer_header(words, kind)]
    raise Wrong(f"Unknown encap type - {kind}")


def _outer_header(words: Words, kind: str) -> list[str]:
    """What the outer header is to have; the first word that is none of it ends that."""
    known: dict[str, Callable[[Words, str], str]] = {"id": _id, "dst": _address, "src": _address}
    known |= {"tos": _class, "ttl": _hops} if kind == "ip" else {"tc": _class, "hoplimit": _hops}
    found: dict[str, str] = {}
    while (word := words.peek()) in known or word == "flags":
        words.take()
        if word == "flags":
            _ignore_flags(words)
        else:
            found[word] = known[word](words, kind)
    if not found.keys() & {"id", "dst", "src"}:
        raise Wrong(f"address or id missing for {kind} encapsulation")
    return [part for pair in found.items() for part in pair]


def _id(words: Words, kind: str) -> str:
    del kind
    word = words.take()
    if number(words.line, word, 0, _ID) is None:
        raise Wrong(f"encap id {word} value is invalid")
    return word


def _hops(words: Words, kind: str) -> str:
    word = words.take()
    if number(words.line, word, 0, _HOPS) is None:
        raise Wrong(f"{word} is not valid for {kind} encapsulation")
    return word


def _class(words: Words, kind: str) -> str:
    return traffic_class(words, f"dsfield {{word}} not valid for {kind} encapsulation")


def _address(words: Words, kind: str) -> str:
    word = words.take()
    address = parse_address(word)
    if address is None:
        raise Wrong(f"Invalid encap {kind} address {word}")
    if address.version != (4 if kind == "ip" else 6):
        raise Wrong(f"IPv{address.version} address {word} not valid for {kind} encapsulation")
    return word


def _ignore_flags(words: Words) -> None:
    """A number, which reaches the kernel's route in keepalived no more than here (seen with ip route)."""
    word = words.take()
    if number(words.line, word, 0, _FLAGS) is None:
        raise Wrong(f"encap flags {word} value is invalid")
