"""Keywords of virtual_server, real_server and virtual_server_group, SSL, and FULLNAT's dialect.

Everything is read into drafts; services.py makes virtual servers of them once all is read.
"""

from __future__ import annotations

from collections.abc import Callable

from xlvs.health.checks import Address
from xlvs.keepalived import checkers
from xlvs.keepalived.config import Vip
from xlvs.keepalived.endpoints import addresses, as_written, classic_ipv4, endpoint, group_entry
from xlvs.keepalived.forwarding import method
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.scripts import notified
from xlvs.keepalived.timing import ALPHA, connect_timeout, keywords
from xlvs.keepalived.values import FOREVER, boolean, choice, integer, number, seconds, text
from xlvs.model import AF_INET, AF_INET6, SynProxy

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "sh", "mh", "dh", "fo", "ovf", "lblcr", "sed", "nq", "twos")
MOST_WEIGHT = 2**31 - 1
LONGEST_PERSISTENCE = 31 * 86400  # seconds: what the kernel takes
DEFAULT_PERSISTENCE = 360
_NAME_LENGTH = 15  # bytes of a persistence engine's name: IP_VS_PENAME_MAXLEN without its end
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def _missing_or_extra(told: str, name: str, *, extra: bool = True) -> Row:
    """``keyword WORD``, one word exactly or (without ``extra``) at least."""

    def kind(line: Line) -> str:
        if len(line.words) < 2 or (extra and len(line.words) > 2):
            raise Refused(told)
        return line.words[1]

    return value(name, kind)


# -- virtual_server_group and local_address_group -----------------------------------


def _name(line: Line) -> str:
    """The name of a block of entries; without one the whole configuration is refused."""
    if not line.names:
        del line.words[1:]
    return line.word()


def _group(line: Line) -> None:
    name = _name(line)
    if len(line.names) > 1:
        raise line.fatal(f"virtual_server_group {name}: one word is its name - quote it")
    found: list[Vip] = []
    others = sum(map(len, line.parser.top.get("vip_groups", {}).values()))
    for entry in line.parser.entries(line, named=True):
        try:
            found += group_entry(entry, name, others + len(found))
        except Refused as refusal:
            entry.warn(str(refusal))
    if not found:
        line.warn(f"virtual server group {name} has no entries - removing")
        return
    families = {vip.family for vip in found}
    if families >= {0, AF_INET, AF_INET6}:
        line.warn(f"virtual server group {name} cannot have IPv4, IPv6 and fwmark without family - removing")
        return
    line.parser.top.values.setdefault("vip_groups", {}).setdefault(name, tuple(found))


_MOST_LOCALS = 131_072  # the size of the data plane's table


def _local_addresses(line: Line, told: str, *, named: bool = False) -> list[Address]:
    """A block of addresses and ranges; a device behind one (DPVS) says nothing here."""
    found: list[Address] = []
    others = sum(map(len, line.parser.top.get("local_groups", {}).values()))
    for entry in line.parser.entries(line, named=named):
        try:
            found += addresses(entry, others + len(found), _MOST_LOCALS)
        except Refused as refusal:
            entry.warn(str(refusal) or f"Invalid local address {entry.keyword} - skipping")
    if not found:
        line.warn(f"{told} has no addresses")
    return list(dict.fromkeys(found))


def _local_group(line: Line) -> None:
    name = _name(line)
    groups = line.parser.top.values.setdefault("local_groups", {})
    found = _local_addresses(line, f"local address group {name}", named=True)
    if name in groups:
        line.warn(f"local address group {name} already specified - ignoring")
    else:
        groups[name] = tuple(found)


def _own_locals(line: Line) -> None:
    line.draft.values["local_addresses"] = tuple(_local_addresses(line, "local_address"))
    line.draft.origins["local_addresses"] = line.origin


# -- virtual_server -----------------------------------------------------------------


def _open_service(line: Line) -> Draft:
    draft = Draft("virtual_server", " ".join(line.words[1:3]))
    first = line.word()
    if first == "fwmark":
        mark = number(line, line.word(2), 1, FOREVER)
        if mark is None:
            line.warn(f"virtual server fwmark '{line.word(2)}' must be in [0, {FOREVER}] - ignoring")
        draft.values["fwmark"] = mark
        draft.skipped = mark is None
    elif first == "group":
        draft.values["group"] = line.word(2)
    else:
        found = endpoint(line)
        if found is None:
            both = "/port" if len(line.words) > 2 else ""
            line.warn(f"Invalid virtual server IP address{both} {as_written(line)} - skipping")
            draft.skipped = True
        else:
            draft.values["address"], draft.values["port"] = found
            draft.values["family"] = AF_INET if found[0].version == 4 else AF_INET6
    return draft


def _close_service(parser: Parser, draft: Draft) -> None:
    parser.top.add("services", draft)


def _ip_family(line: Line) -> int:
    if line.word() not in ("inet", "inet6"):
        raise Refused(f"unknown address family {line.word()}")
    found = AF_INET if line.word() == "inet" else AF_INET6
    if line.draft.get("family", found) != found:
        raise Refused(f"Virtual server specified family {line.word()} conflicts with server family")
    return found


_NAMED_FLAGS = {"sh-fallback": "flag-1", "sh-port": "flag-2", "mh-fallback": "flag-1", "mh-port": "flag-2"}


def _flag(line: Line) -> None:
    """A scheduler's flag: kept as the bit that it is, for sh's and mh's are names of the same two."""
    scheduler = line.draft.get("scheduler", "")
    bit = _NAMED_FLAGS.get(line.keyword, line.keyword)
    if bit == line.keyword and bit != "hashed":
        line.draft.add("flags", bit)
        line.draft.origins["flags"] = line.origin
    elif scheduler not in ("sh", "mh"):
        line.warn(f"{line.keyword} only applies to sh scheduler - ignoring")
    elif line.keyword.startswith(scheduler):
        line.draft.add("flags", bit)
        line.draft.origins["flags"] = line.origin


def _persistence(line: Line) -> int:
    if len(line.words) < 2:
        return DEFAULT_PERSISTENCE
    found = number(line, line.words[1], 1, LONGEST_PERSISTENCE)
    if found is None:
        raise Refused("persistence_timeout invalid")
    return found


def _granularity(line: Line) -> int:
    """An IPv4 mask, read as inet_aton reads one ("24" is 0.0.0.24), or an IPv6 prefix length."""
    word = line.word()
    if line.draft.get("family", AF_INET if "." in word else AF_INET6) == AF_INET6:
        found = number(line, word, 1, 128)
        if found is None:
            raise Refused(f"Invalid IPv6 persistence_granularity specified - {word}")
        line.draft.values.setdefault("family", AF_INET6)
    else:
        found = classic_ipv4(word)
        if found is None:
            raise Refused(f"Invalid IPv4 persistence_granularity specified - {word}")
        line.draft.values.setdefault("family", AF_INET)
    line.draft.values.setdefault("persistence", DEFAULT_PERSISTENCE)
    return found


def _engine(line: Line) -> str:
    name = line.word().encode(errors="surrogateescape")
    if len(name) > _NAME_LENGTH:
        line.warn(f"persistence_name too long, truncating - {line.word()}")
    return name[:_NAME_LENGTH].decode(errors="ignore")


def _protocol(line: Line) -> int:
    found = _PROTOCOLS.get(line.word().upper())
    if found is None:
        raise Refused(f"Unknown protocol {line.word()} - ignoring")
    return found


def _quorum(line: Line) -> int:
    found = number(line, line.word(), 1, FOREVER)
    if found is None:
        line.warn(f"Quorum {line.word()} must be in [1, {FOREVER}]. Setting to 1.")
    return found or 1


def _syn_proxy(line: Line) -> SynProxy:
    """``syn_proxy [on|off|auto]``."""
    if line.words[1:2] == ["auto"]:
        return SynProxy.AUTO
    on = boolean("Invalid syn_proxy parameter {word}")(line)
    return SynProxy.ALWAYS if on else SynProxy.OFF


# -- sorry_server and real_server ---------------------------------------------------


def _inherit_method(service: Draft, server: Draft) -> None:
    """A server has the method that stands before it; a later one only where there is none."""
    for name in ("forward", "tunnel"):
        if name in service.values:
            server.values[name] = service.values[name]
            server.origins[name] = service.origins[name]


def _sorry(line: Line) -> None:
    found = endpoint(line)
    if found is None:
        raise Refused(f"Invalid sorry server IP address {line.word()} - skipping")
    draft = Draft("sorry_server", f"[{found[0]}]:{found[1]}", parent=line.draft, origin=line.origin)
    draft.values["address"], draft.values["port"] = found
    _inherit_method(line.draft, draft)
    line.draft.values["sorry"] = draft
    line.draft.origins["sorry"] = line.origin


def _of_sorry(told: str, each: Callable[[Line, Draft], None]) -> Row:
    def handle(line: Line) -> None:
        sorry: Draft | None = line.draft.get("sorry")
        if sorry is None:
            raise Refused(told)
        each(line, sorry)

    return Row(handle)


def _sorry_inhibit(line: Line, sorry: Draft) -> None:
    sorry.values["inhibit_on_failure"] = True
    sorry.origins["inhibit_on_failure"] = line.origin


def _open_server(line: Line) -> Draft:
    draft = Draft("real_server")
    found = endpoint(line)
    if found is None:
        line.warn(f"Invalid real server ip address/port {as_written(line)} - skipping")
        draft.skipped = True
    else:
        draft.values["address"], draft.values["port"] = found
        draft.name = f"[{found[0]}]:{found[1]}"
        _inherit_method(line.draft, draft)
    return draft


def _close_server(_parser: Parser, draft: Draft) -> None:
    assert draft.parent is not None
    draft.parent.add("servers", draft)


def _weight(place: str, low: int) -> Row:
    told = f"{place} weight {{word}} is outside range {low}-{MOST_WEIGHT}"
    return value("weight", integer(low, MOST_WEIGHT, told))


SERVER: Table = {
    **keywords("real server"),
    **checkers.TABLE,
    "connect_timeout": connect_timeout("real server"),
    "alpha": ALPHA,
    "weight": _weight("Real server", 0),
    "lvs_method": Row(lambda line: method(line, line.draft, "real")),
    "uthreshold": value("upper", integer(0, FOREVER, "Invalid real_server uthreshold '{word}' - ignoring")),
    "lthreshold": value("lower", integer(0, FOREVER, "Invalid real_server lthreshold '{word}' - ignoring")),
    "inhibit_on_failure": value("inhibit_on_failure", boolean("Invalid inhibit_on_failure parameter {word}")),
    "notify_up": notified("notify_up"),
    "notify_down": notified("notify_down"),
    "smtp_alert": value("smtp_alert", boolean("Invalid real_server smtp_alert parameter {word}")),
    "virtualhost": _missing_or_extra("real server virtualhost missing", "virtualhost", extra=False),
    "snmp_name": _missing_or_extra("real server snmp_name missing or extra parameters", "snmp_name"),
}
_SCHEDULER = value("scheduler", choice(SCHEDULERS, "Invalid lvs_scheduler '{word}' - ignoring"))
_METHOD = Row(lambda line: method(line, line.draft, "virtual"))
_FLAGS = ("hashed", "flag-1", "flag-2", "flag-3", *_NAMED_FLAGS)
SERVICE: Table = {
    **keywords("virtual server"),
    **{name: Row(_flag) for name in _FLAGS},
    "connect_timeout": connect_timeout("virtual server"),
    "lb_algo": _SCHEDULER,
    "lvs_sched": _SCHEDULER,
    "lb_kind": _METHOD,
    "lvs_method": _METHOD,
    "ops": flag("ops"),
    "ip_family": value("family", _ip_family),
    "persistence_engine": value("persistence_engine", _engine),
    "persistence_timeout": value("persistence", _persistence),
    "persistence_granularity": value("granularity", _granularity),
    "protocol": value("protocol", _protocol),
    "ha_suspend": flag("ha_suspend"),
    "smtp_alert": value("smtp_alert", boolean("Invalid virtual_server smtp_alert parameter {word}")),
    "virtualhost": _missing_or_extra("virtual server virtualhost missing", "virtualhost", extra=False),
    "snmp_name": _missing_or_extra("virtual server snmp_name missing or extra parameters", "snmp_name"),
    "alpha": flag("alpha"),
    "omega": flag("omega"),
    "inhibit_on_failure": flag("inhibit_on_failure"),
    "quorum": value("quorum", _quorum),
    "hysteresis": value(
        "hysteresis", integer(0, FOREVER, f"Hysteresis {{word}} must be in [0, {FOREVER}] - ignoring")
    ),
    "quorum_up": notified("quorum_up"),
    "quorum_down": notified("quorum_down"),
    "weight": _weight("Virtual server", 1),
    "sorry_server": Row(_sorry),
    "sorry_server_inhibit": _of_sorry(
        "Ignoring sorry_server inhibit used before or without sorry_server", _sorry_inhibit
    ),
    "sorry_server_lvs_method": _of_sorry(
        "sorry_server forwarding used without sorry_server", lambda line, sorry: method(line, sorry, "sorry")
    ),
    "real_server": block(SERVER, _open_server, _close_server),
    # What FULLNAT's keepalived adds, and what we do.
    "laddr_group_name": value("local_group", text),
    "local_address": Row(_own_locals),
    "syn_proxy": value("synproxy", _syn_proxy),
    "drain_limit": value("drain_limit", seconds(0, 86400.0 * 366)),
}

# -- SSL ----------------------------------------------------------------------------

_SSL = {"password": "password", "ca": "cafile", "certificate": "certfile", "key": "keyfile"}


def _ssl_word(line: Line) -> None:
    told = _SSL[line.keyword]
    if len(line.words) < 2:
        raise Refused(f"SSL {told} missing")
    if line.keyword in line.draft.values:
        line.warn(f"SSL {told} already specified - replacing")
    line.draft.values[line.keyword] = line.words[1]
    line.draft.origins[line.keyword] = line.origin


def _open_ssl(line: Line) -> Draft:
    if "ssl" in line.parser.top.values:
        line.warn("SSL context already specified - replacing")
    draft = line.parser.top.values["ssl"] = Draft("SSL")
    return draft


def _close_ssl(_parser: Parser, _draft: Draft) -> None:
    """Its values go to the globals at the end."""


TOP: Table = {
    "virtual_server_group": Row(_group),
    "virtual_server": block(SERVICE, _open_service, _close_service),
    "SSL": block({word: Row(_ssl_word) for word in _SSL}, _open_ssl, _close_ssl),
    "local_address_group": Row(_local_group),
}
