"""Keywords that checkers share: where a check connects to and from, and when."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address

from xlvs.health.checks import Address
from xlvs.keepalived.config import STATUS_REFUSED, Message
from xlvs.keepalived.endpoints import MOST_PORTS, plain_address
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, value
from xlvs.keepalived.timing import ALPHA, connect_timeout, keywords
from xlvs.keepalived.values import FOREVER, boolean, integer, longest

_NAME_LENGTH = 15  # bytes of an interface's name: IFNAMSIZ without its end


def opened(kind: str) -> Callable[[Line], Draft]:
    """A checker's draft."""
    return lambda _line: Draft(kind)


def server_address(draft: Draft) -> Address | None:
    """The address of the real server that a checker's draft belongs to."""
    while draft.parent is not None and draft.kind != "real_server":
        draft = draft.parent
    address: Address | None = draft.get("address")
    return address


def keep(parser: Parser, draft: Draft) -> None:
    """Hand a checker to its real server, unless it could not connect anywhere."""
    assert draft.parent is not None
    target = draft.get("address") or server_address(draft)
    if isinstance(target, IPv6Address) and target.is_link_local and "bind_interface" not in draft.values:
        tell(parser, draft, f"Checker link local address {target} requires a bind_if")
        return
    draft.parent.add("checks", draft)


def tell(parser: Parser, draft: Draft, text: str, status: int = STATUS_REFUSED) -> None:
    """A message about a whole block, at the line where it begins."""
    parser.tell(Message(draft.origin, draft.kind, text, status=status))


def _address(line: Line) -> Address:
    name, other = ("connect_ip", "bindto") if line.keyword == "connect_ip" else ("bindto", "connect_ip")
    address = plain_address(line.word())
    if address is None:
        raise Refused(f"Invalid {name} address {line.word()} - ignoring")
    if name == "bindto":
        against = line.draft.get("address") or server_address(line.draft)
    else:
        against = line.draft.get("bind_address")
    if against is not None and against.version != address.version:
        raise Refused(f"{name} address {address} does not match address family of {other} - skipping")
    return address


PLACES: dict[str, Row] = {
    "connect_ip": value("address", _address),
    "connect_port": value("port", integer(1, MOST_PORTS, "Invalid checker connect_port '{word}'")),
    "bindto": value("bind_address", _address),
    "bind_port": value("bind_port", integer(1, MOST_PORTS, "Invalid checker bind_port '{word}'")),
    "bind_if": value("bind_interface", longest(_NAME_LENGTH, "Interface name {word} is too long - ignoring")),
    "fwmark": value("fwmark", integer(0, FOREVER, "Invalid fwmark connection value '{word}'")),
    "connect_timeout": connect_timeout(""),
}
TIMES: dict[str, Row] = {
    **keywords(""),
    "alpha": ALPHA,
    "log_all_failures": value("log_all_failures", boolean("Invalid log_all_failures parameter {word}")),
}
CONNECTION: Table = {**PLACES, **TIMES}
