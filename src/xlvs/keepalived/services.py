"""Virtual servers as they take effect: groups, defaults, inheritance, and what keepalived sets right.

The last look of the rooms of virtual servers, once the whole configuration is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xlvs.health.checks import Address, MiscCheck, Script
from xlvs.keepalived.checkers import build
from xlvs.keepalived.config import STATUS_REFUSED, Message, RealServer, Vip, VirtualServer
from xlvs.keepalived.endpoints import family
from xlvs.keepalived.global_rows import globals_of
from xlvs.keepalived.schema import Draft, Parser
from xlvs.keepalived.scripts import commands, security
from xlvs.keepalived.timing import inherited
from xlvs.keepalived.virtual_server import DEFAULT_PERSISTENCE
from xlvs.model import AF_INET, Forward, SynProxy, Tunnel

_PROTOCOL_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
_TCP, _UDP = 6, 17
# Methods that carry a packet to a server of the other family, and that give it another port.
_ANY_FAMILY = (Forward.TUNNEL, Forward.FULLNAT)
_ANY_PORT = (Forward.MASQ, Forward.FULLNAT)


@dataclass(slots=True)
class _Service:
    """A virtual server on its way: its draft, and what has been found out about it."""

    parser: Parser
    draft: Draft
    protocol: int = 0

    def tell(self, text: str, status: int = STATUS_REFUSED) -> None:
        self.parser.tell(Message(self.draft.origin, "virtual_server", text, status=status))

    def notice(self, text: str) -> None:
        self.tell(text, status=0)

    @property
    def name(self) -> str:
        """As keepalived's messages name it."""
        values = self.draft.values
        if "group" in values:
            return f"[{values['group']}]:0"
        if "fwmark" in values:
            return f"FWM {values['fwmark']}"
        return f"[{values['address']}]:{_PROTOCOL_NAMES.get(self.protocol, 'none')}:{values['port']}"

    def server(self, draft: Draft) -> str:
        protocol = _PROTOCOL_NAMES.get(self.protocol, "none")
        return f"[{draft.values['address']}]:{protocol}:{draft.values['port']}"

    def forward(self, draft: Draft) -> tuple[Forward, Tunnel]:
        for each in (draft, self.draft):
            if "forward" in each.values:
                return each.values["forward"], each.values["tunnel"]
        return Forward.MASQ, Tunnel()


def finish(parser: Parser) -> dict[str, object]:
    """The field of Config that comes from here; SSL's words go to the globals."""
    ssl: Draft | None = parser.top.get("ssl")
    if ssl is not None:
        globals_ = globals_of(parser)
        globals_.values.update(ssl.values)
        globals_.origins.update(ssl.origins)
    found: list[VirtualServer] = []
    seen: set[tuple[int, Vip]] = set()
    scripts: list[Script | None] = []
    for draft in parser.top.get("services", []):
        service = _finished(parser, draft)
        if service is None:
            continue
        scripts += _scripts(service)
        keys = {(service.protocol, vip) for vip in service.vips}
        if len(keys) < len(service.vips) or keys & seen:
            told = f"Virtual server {service.name}: addresses that another one has already are ignored"
            parser.tell(Message(draft.origin, "virtual_server", told, status=0))
            fresh = dict.fromkeys(vip for vip in service.vips if (service.protocol, vip) not in seen)
            if not fresh:
                continue
            service = replace(service, vips=tuple(fresh))
        seen |= keys
        found.append(service)
    security(parser, scripts)
    return {"virtual_servers": tuple(found)}


def _scripts(service: VirtualServer) -> Iterator[Script | None]:
    yield from (service.quorum_up, service.quorum_down)
    for server in service.servers:
        yield from (server.notify_up, server.notify_down)
        yield from (check.script for check in server.checks if isinstance(check, MiscCheck))


def _finished(parser: Parser, draft: Draft) -> VirtualServer | None:
    service = _Service(parser, draft, draft.get("protocol", 0))
    if not draft.get("servers"):
        service.tell(f"Virtual server {service.name} has no real servers - ignoring")
        return None
    _families(service)
    if not draft.get("servers"):
        service.tell(f"Virtual server {service.name} has no real servers - ignoring")
        return None
    vips = _vips(service)
    if vips is None:
        return None
    _protocol(service, vips)
    _defaults(service, vips)
    _unique(service)
    if "forward" not in draft.values:
        service.tell(f"Virtual server {service.name}: no forwarding method set, setting default NAT")
    _sorry_twin(service)
    _quorum(service)
    _ports(service, vips)
    _dialect(service)
    return _built(service, vips)


# -- families and addresses ---------------------------------------------------------


def _families(service: _Service) -> None:
    """Servers of another family than the service's go, unless the method carries packets there."""
    values = service.draft.values
    kept: list[Draft] = []
    for server in values["servers"]:
        if _fits(service, server):
            kept.append(server)
        else:
            service.tell(
                f"Address family of virtual server and real server {server.values['address']}"
                " don't match - skipping real server."
            )
    sorry: Draft | None = values.get("sorry")
    if sorry is not None and not _fits(service, sorry):
        service.tell(
            f"Address family of virtual server and sorry server {sorry.values['address']}"
            " don't match - skipping sorry server."
        )
        del values["sorry"]
    values["servers"] = kept
    if "family" not in values:
        found = {family(server.values["address"]) for server in kept}
        values["family"] = found.pop() if len(found) == 1 else AF_INET


def _fits(service: _Service, server: Draft) -> bool:
    if service.forward(server)[0] in _ANY_FAMILY:
        return True
    own = family(server.values["address"])
    return bool(service.draft.values.setdefault("family", own) == own)


def _vips(service: _Service) -> tuple[Vip, ...] | None:
    """What is served; None, and a notice, for a group that there is not, or of the wrong family."""
    values = service.draft.values
    if "fwmark" in values:
        return (Vip(values["family"], None, 0, values["fwmark"]),)
    if "group" not in values:
        address: Address = values["address"]
        return (Vip(family(address), address, values["port"]),)
    group: Sequence[Vip] | None = service.parser.top.get("vip_groups", {}).get(values["group"])
    if group is None:
        service.notice(
            f"Virtual server group {values['group']} specified but not configured"
            f" - ignoring virtual server {service.name}"
        )
        return None
    families = {vip.family for vip in group} - {0}
    bound = [each for each in values["servers"] if service.forward(each)[0] not in _ANY_FAMILY]
    if not bound and len(families) == 1:
        values["family"] = next(iter(families))
    if bound and families - {values["family"]}:
        service.notice(f"{service.name}: address family doesn't match virtual server - ignoring")
        return None
    return tuple(Vip(values["family"], None, 0, vip.fwmark) if vip.family == 0 else vip for vip in group)


# -- what is set right --------------------------------------------------------------


def _protocol(service: _Service, vips: Sequence[Vip]) -> None:
    values = service.draft.values
    marks_only = all(vip.fwmark for vip in vips)
    if marks_only:
        if "ha_suspend" in values and "group" not in values:
            service.tell(
                f"Virtual server {service.name}: cannot use ha_suspend with fwmarks - clearing ha_suspend"
            )
            del values["ha_suspend"]
        if service.protocol:
            service.tell(
                f"Warning: Virtual server {service.name}: protocol specified for fwmark"
                " - protocol will be ignored"
            )
        service.protocol = 0
    elif not service.protocol:
        service.tell(f"Virtual server {service.name}: no protocol set - defaulting to UDP")
        service.protocol = _UDP


def _defaults(service: _Service, vips: Sequence[Vip]) -> None:
    values = service.draft.values
    if "ops" in values and service.protocol != _UDP and not any(vip.fwmark for vip in vips):
        service.tell(f"Virtual server {service.name}: one packet scheduling requires UDP - resetting")
        del values["ops"]
    if "persistence" not in values and any(not vip.fwmark and not vip.port for vip in vips):
        service.tell(f"Virtual server {service.name}: zero port only valid for persistent services - setting")
        values["persistence"] = DEFAULT_PERSISTENCE
    if "scheduler" not in values:
        service.tell(f"Virtual server {service.name}: no scheduler set, setting default 'wlc'")


def _unique(service: _Service) -> None:
    """A real server counts once."""
    values = service.draft.values
    kept: dict[tuple[Address, int], Draft] = {}
    for server in values["servers"]:
        key = server.values["address"], server.values["port"]
        if key in kept:
            service.tell(
                f"VS {service.name}: real server {service.server(server)} is duplicated - removing second rs"
            )
        kept.setdefault(key, server)
    values["servers"] = list(kept.values())


def _sorry_twin(service: _Service) -> None:
    """A sorry server that is a real server, too, goes about failure as that does."""
    sorry: Draft | None = service.draft.get("sorry")
    if sorry is None:
        return
    for server in service.draft.values["servers"]:
        if all(server.values[name] == sorry.values[name] for name in ("address", "port")):
            inhibit, _ = inherited((server, service.draft), "inhibit_on_failure", False)
            if inhibit != sorry.get("inhibit_on_failure", False):
                service.tell(
                    f"Virtual server {service.name}: real server {service.server(server)} matches sorry"
                    f" server, but inhibit setting differs, {'sett' if inhibit else 'clear'}ing on sorry"
                    " server"
                )
                sorry.values["inhibit_on_failure"] = inhibit


def _weight(service: _Service, server: Draft) -> int:
    weight: int = inherited((server, service.draft), "weight", 1)[0]
    return weight


def _quorum(service: _Service) -> None:
    """A quorum that no weights can reach is lowered, but never below 1 (keepalived: to 0, for good)."""
    values = service.draft.values
    total = sum(_weight(service, server) for server in values["servers"])
    quorum = values.get("quorum", 1)
    if quorum > total:
        service.tell(
            f"Warning - quorum {quorum} for {service.name} exceeds total weight of real servers {total},"
            f" reducing quorum to {total}"
        )
        quorum = values["quorum"] = max(total, 1)
    hysteresis = values.get("hysteresis", 0)
    if hysteresis >= quorum:
        service.tell(
            f"Virtual server {service.name}: hysteresis {hysteresis} >= quorum {quorum};"
            f" setting hysteresis to {quorum - 1}"
        )
        values["hysteresis"] = quorum - 1


def _ports(service: _Service, vips: Sequence[Vip]) -> None:
    """Only NAT gives a packet another port."""
    values = service.draft.values
    servers = [(f"real server {service.server(each)}", each) for each in values["servers"]]
    if "sorry" in values:
        servers.append(("sorry server", values["sorry"]))
    for told, server in servers:
        server.values["check_port"] = server.values["port"]
        if service.forward(server)[0] in _ANY_PORT or not server.values["port"]:
            continue
        if "group" in values:
            _group_ports(service, vips, told, server.values["port"])
        elif "fwmark" in values:
            service.tell(
                f"WARNING - fwmark virtual server {service.name}, {told} has port specified - clearing"
            )
            server.values["port"] = 0
        elif server.values["port"] != values["port"]:
            service.tell(f"WARNING - virtual server {service.name} and {told} ports don't match - resetting")
            server.values["port"] = values["port"]


def _group_ports(service: _Service, vips: Sequence[Vip], told: str, port: int) -> None:
    for vip in vips:
        if vip.fwmark:
            service.tell(
                f"WARNING - fwmark virtual server {service.name}, {told} has port specified"
                " - port will be ignored"
            )
            return
    for vip in vips:
        if vip.port != port:
            service.tell(
                f"virtual server {service.name}:[{vip.address},{vip.port}] and {told} ports don't match"
            )
            return


def _dialect(service: _Service) -> None:
    """FULLNAT's own: local addresses of a group, and a SYNPROXY only where answers come back."""
    values = service.draft.values
    forwards = {service.forward(server)[0] for server in values["servers"]}
    if "local_group" in values:
        groups = service.parser.top.get("local_groups", {})
        if values["local_group"] not in groups:
            service.tell(
                f"Virtual server {service.name}: no local_address_group {values['local_group']}"
                " - ignoring laddr_group_name"
            )
        values["local_addresses"] = groups.get(values["local_group"], ())
        if "local_group" in service.draft.origins:
            service.draft.origins["local_addresses"] = service.draft.origins["local_group"]
    if Forward.FULLNAT not in forwards:
        if values.get("local_addresses"):
            service.notice(f"Virtual server {service.name}: local addresses are for lb_kind FNAT - ignoring")
        values["local_addresses"] = ()
    elif not values.get("local_addresses"):
        service.notice(f"Virtual server {service.name}: lb_kind FNAT without local addresses serves nobody")
    synproxy = values.get("synproxy", SynProxy.OFF)
    if synproxy != SynProxy.OFF and (forwards - set(_ANY_PORT) or service.protocol != _TCP):
        service.tell(f"Virtual server {service.name}: syn_proxy is for TCP by NAT or FNAT - ignoring")
        values["synproxy"] = SynProxy.OFF


# -- values -------------------------------------------------------------------------

_SERVICE_FIELDS = (
    *("group", "scheduler", "persistence_engine", "persistence", "granularity", "ops", "ha_suspend"),
    *("alpha", "omega", "quorum", "hysteresis", "quorum_up", "quorum_down", "local_addresses"),
    *("synproxy", "drain_limit", "snmp_name"),
)
_SERVER_FIELDS = ("upper", "lower", "notify_up", "notify_down", "snmp_name")


def _built(service: _Service, vips: tuple[Vip, ...]) -> VirtualServer:
    draft = service.draft
    fields: dict[str, Any] = {name: draft.values[name] for name in _SERVICE_FIELDS if name in draft.values}
    if Forward.FULLNAT in (service.forward(server)[0] for server in draft.values["servers"]):
        for name in ("quorum_up", "quorum_down"):
            fields[name] = commands(fields.get(name))
    sorry: Draft | None = draft.get("sorry")
    port = vips[0].port
    return VirtualServer(
        draft.name,
        vips,
        protocol=service.protocol,
        flags=_flags(draft),
        smtp_alert=_alert(service, draft, without=False),
        sorry=_server(service, sorry, port) if sorry else None,
        servers=tuple(_server(service, server, port) for server in draft.values["servers"]),
        origins=draft.origins,
        **fields,
    )


def _flags(draft: Draft) -> tuple[str, ...]:
    """Scheduler flags by the names that the scheduler has for them."""
    named = {
        "sh": {"flag-1": "sh-fallback", "flag-2": "sh-port"},
        "mh": {"flag-1": "mh-fallback", "flag-2": "mh-port"},
    }.get(draft.get("scheduler", ""), {})
    return tuple(named.get(flag, flag) for flag in sorted(set(draft.get("flags", []))))


def _alert(service: _Service, draft: Draft, *, without: bool) -> bool:
    """smtp_alert: the block's own word, else global_defs' for checkers, else for all, else ``without``."""
    if "smtp_alert" in draft.values:
        return bool(draft.values["smtp_alert"])
    mail: Mapping[str, Any] = globals_of(service.parser).get("mail", {})
    for name in ("alert_checker", "alert"):
        if mail.get(name) is not None:
            return bool(mail[name])
    return without


def _server(service: _Service, draft: Draft, vport: int) -> RealServer:
    forward, tunnel = service.forward(draft)
    drafts = (draft, service.draft)
    origins = dict(draft.origins)
    fields: dict[str, Any] = {name: draft.values[name] for name in _SERVER_FIELDS if name in draft.values}
    sorry = draft.kind == "sorry_server"
    for name, default in (("weight", 1), ("inhibit_on_failure", False), ("alpha", False)):
        among = (draft,) if sorry else drafts
        fields[name], origin = inherited(among, name, default)
        if origin is not None:
            origins[name] = origin
    log_all = bool(globals_of(service.parser).get("checker_log_all_failures"))
    asked = draft.values["check_port"] or vport
    return RealServer(
        draft.values["address"],
        draft.values["port"],
        forward=forward,
        tunnel=tunnel,
        smtp_alert=not sorry and _alert(service, draft, without=True),
        checks=tuple(build(check, draft, service.draft, asked, log_all) for check in draft.get("checks", [])),
        origins=origins,
        **fields,
    )
