"""Listings of services as text, and as rules that ``-R`` reads back."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace

from xlvs.ipvsadm.names import Names, endpoint
from xlvs.ipvsadm.order import sorted_destinations
from xlvs.ipvsadm.request import Request
from xlvs.model import (
    AF_INET,
    AF_INET6,
    L4,
    ClientAddress,
    Counters,
    Destination,
    DestinationEntry,
    Forward,
    LocalEntry,
    Rates,
    Service,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    SyncDaemon,
    SynProxy,
    TableInfo,
    Tunnel,
    TunnelType,
)

_PROTOCOL: dict[int, str] = {L4.TCP: "TCP", L4.UDP: "UDP", L4.SCTP: "SCTP"}
_SERVICE_OPTION: dict[int, str] = {L4.TCP: "-t", L4.UDP: "-u", L4.SCTP: "--sctp-service"}
_FORWARD = {
    Forward.MASQ: "Masq",
    Forward.LOCAL: "Local",
    Forward.TUNNEL: "Tunnel",
    Forward.ROUTE: "Route",
    Forward.FULLNAT: "FullNat",
}
_FORWARD_OPTION = {
    Forward.MASQ: "-m",
    Forward.LOCAL: "-g",
    Forward.TUNNEL: "-i",
    Forward.ROUTE: "-g",
    Forward.FULLNAT: "-b",
}
_SYNPROXY = {SynProxy.ALWAYS: " synproxy", SynProxy.AUTO: " synproxy-auto"}
_SYNPROXY_OPTION = {SynProxy.ALWAYS: " -j enable", SynProxy.AUTO: " -j auto"}
_CLIENT_ADDRESS = {ClientAddress.TOA: "toa", ClientAddress.PROXY: "proxy", ClientAddress.NONE: "none"}
_POOL = "{:<20} {:<8} {:<20} {:<10} {:<10}"
_TUNNEL = {TunnelType.IPIP: "ipip", TunnelType.GUE: "gue", TunnelType.GRE: "gre"}
_TUNNEL_FLAG = ("-c", "+c", "r+c")
_TUNNEL_FLAG_OPTION = ("--tun-nocsum", "--tun-csum", "--tun-remcsum")
_FLAG_NAMES = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
_ANY_FLAG_NAMES = ("flag-1", "flag-2", "flag-3")
_FLAGS = (ServiceFlag.SCHED1, ServiceFlag.SCHED2, ServiceFlag.SCHED3)
_SCHEDULER_FLAGS = ServiceFlag.SCHED1 | ServiceFlag.SCHED2 | ServiceFlag.SCHED3

# The real program reads a destination's 64-bit connections, packets and rates as 32 bits
# (its bytes, and all of a service's numbers, in full). The JSON form has the whole numbers.
_U32 = 0xFFFFFFFF

_HEAD = "Prot LocalAddress:Port"
_FIVE = "{:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n  -> RemoteAddress:Port"
# Titles, and with them which listing it is, by the option that asks; the first that was given counts.
_TITLES = {
    "stats": _FIVE.format(_HEAD, "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"),
    "rate": _FIVE.format(_HEAD, "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"),
    "thresholds": f"{_HEAD:<33} {'Uthreshold':<10} {'Lthreshold':<10} {'ActiveConn':<10} {'InActConn':<10}\n"
    "  -> RemoteAddress:Port",
    "persistent-conn": f"{_HEAD:<33} {'Weight':<9} {'PersistConn':<11} {'ActiveConn':<10} {'InActConn':<10}\n"
    "  -> RemoteAddress:Port",
    "tun-info": f"{_HEAD} Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn",
    "": f"{_HEAD} Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
}


def header(info: TableInfo) -> str:
    """The first line of a listing of all services."""
    return f"IP Virtual Server version {info.version} (size={info.size})"


def service_lines(entries: list[ServiceEntry], request: Request, names: Names | None) -> Iterator[str]:
    """The title, and every service with its destinations, in the form that the options ask for."""
    form = next((name for name in _TITLES if name and request.has(name)), "")
    exact = request.has("exact")
    yield _TITLES[form]
    for entry in entries:
        yield _service_line(entry, form, exact, names)
        destinations = entry.destinations
        if not request.has("nosort"):
            destinations = sorted_destinations(destinations)
        for one in destinations:
            yield _destination_line(one, form, exact, entry.service.key.protocol, names)


def rule_lines(entries: list[ServiceEntry], names: Names | None) -> Iterator[str]:
    """All services and destinations as command lines for ``-R``."""
    for entry in entries:
        key = entry.service.key
        if key.fwmark:
            # Not signed as in other listings, which -R cannot read (docs/deviations.md).
            name = f"-f {key.fwmark}{' -6' if key.family == AF_INET6 else ''}"
        else:
            option = _SERVICE_OPTION.get(key.protocol, "--xxx-service")
            name = f"{option} {endpoint(key.family, key.address, key.port, key.protocol, names)}"
        yield f"-A {name} {_service_rule(entry.service)}"
        if entry.local_addresses:
            from xlvs.ipvsadm.locals import written

            for addresses in written(entry.local_addresses):
                yield f"-P {name} -z {addresses}"
        for one in sorted_destinations(entry.destinations):
            yield f"-a {name} {_destination_rule(one.destination, key.protocol, names)}"


def pool_lines(pools: Iterable[tuple[ServiceKey, list[LocalEntry]]]) -> Iterator[str]:
    """Local addresses by service, as Alibaba's and DPVS's programs list them; always numeric."""
    yield _POOL.format("VIP:VPORT", "TOTAL", "SNAT_IP", "CONFLICTS", "CONNS")
    for key, pool in pools:
        name = endpoint(key.family, key.address, key.port, key.protocol, None) if not key.fwmark else ""
        yield f"{name or mark_name(key):<20} {len(pool):<8} "
        for each in pool:
            address = socket.inet_ntop(AF_INET if len(each.address) == 4 else AF_INET6, each.address)
            yield _POOL.format("", "", address, each.conflicts, each.connections)


def pool_gaps(entry: ServiceEntry) -> Iterator[str]:
    """What is missing: the families that FULLNAT's servers have and local addresses have not."""
    used = {
        one.destination.key.family for one in entry.destinations if one.destination.forward == Forward.FULLNAT
    }
    there = {AF_INET if len(each) == 4 else AF_INET6 for each in entry.local_addresses}
    for family in sorted(used - there):
        version = "IPv4" if family == AF_INET else "IPv6"
        name = _service_name(entry.service.key, None)
        yield f"{name}: no local address of {version} for its FULLNAT servers yet: add some with -P"


def mark_name(key: ServiceKey) -> str:
    """A service by mark, as listings have it."""
    return f"FWM  {_signed(key.fwmark)}{' IPv6' if key.family == AF_INET6 else ''}"


def daemon_line(daemon: SyncDaemon) -> str:
    """A synchronisation daemon, for ``-L --daemon``."""
    group = socket.inet_ntop(AF_INET if len(daemon.group) == 4 else AF_INET6, daemon.group)
    return (
        f"{daemon.role} sync daemon (mcast={daemon.interface}, syncid={daemon.syncid}, "
        f"maxlen={daemon.maxlen}, group={group}, port={daemon.port}, ttl={daemon.ttl})"
    )


def large(number: int, exact: bool) -> str:
    """A counter in nine columns, shortened to K, M, G or T unless ``exact``."""
    if exact or number < 100_000_000:
        return f" {number:8d}"
    if number < 1_000_000_000:
        return f"{number // 1000:8d}K"
    if number < 100_000_000_000:
        return f"{number // 1000_000:8d}M"
    if number < 100_000_000_000_000:
        return f"{number // 1000_000_000:8d}G"
    return f"{number // 1000_000_000_000:8d}T"


def _signed(mark: int) -> int:
    """A firewall mark as the real program prints it: as a signed number."""
    return mark - 2**32 if mark >= 2**31 else mark


def _service_line(entry: ServiceEntry, form: str, exact: bool, names: Names | None) -> str:
    name = _service_name(entry.service.key, names)
    if form == "stats":
        return f"{name:<33}{_five(entry.counters, exact)}"
    if form == "rate":
        return f"{name:<33}{_five(entry.rates, exact)}"
    service = entry.service
    line = f"{name} {service.scheduler}"
    if service.flags & _SCHEDULER_FLAGS:
        line += f" ({_scheduler_flags(service)})"
    if service.flags & ServiceFlag.PERSISTENT:
        mask = _netmask(service)
        line += f" persistent {service.timeout}{f' mask {mask}' if mask else ''}"
        if service.pe_name:
            line += f" pe {service.pe_name}"
    if service.flags & ServiceFlag.ONEPACKET:
        line += " ops"
    line += _SYNPROXY.get(service.synproxy or SynProxy.OFF, "")
    told = _CLIENT_ADDRESS.get(service.client_address or ClientAddress.NONE)
    return f"{line} client-address:{told}" if _told_otherwise(service) else line


def _told_otherwise(service: Service) -> bool:
    """Whether somebody chose how real servers learn the client's address."""
    return service.client_address not in (None, ClientAddress.BY_METHOD)


def _service_name(key: ServiceKey, names: Names | None) -> str:
    if key.fwmark:
        return mark_name(key)
    name = endpoint(key.family, key.address, key.port, key.protocol, names)
    name = f"{_PROTOCOL.get(key.protocol, '?'):<4} {name}"
    return name if key.family == AF_INET6 else name[:33]


def _five(values: Counters | Rates, exact: bool) -> str:
    return (
        large(values.connections, exact)
        + large(values.in_packets, exact)
        + large(values.out_packets, exact)
        + large(values.in_bytes, exact)
        + large(values.out_bytes, exact)
    )


def _destination_line(
    entry: DestinationEntry, form: str, exact: bool, protocol: int, names: Names | None
) -> str:
    one = entry.destination
    name = endpoint(one.key.family, one.key.address, one.key.port, protocol, names)
    if one.key.family != AF_INET6:
        name = name[:28]
    line = f"  -> {name:<28} "
    if form == "stats":
        counters = entry.counters
        return line[:-1] + _five(
            replace(
                counters,
                connections=counters.connections & _U32,
                in_packets=counters.in_packets & _U32,
                out_packets=counters.out_packets & _U32,
            ),
            exact,
        )
    if form == "rate":
        rates = entry.rates
        return (
            f"{line}{rates.connections & _U32:8d} {rates.in_packets & _U32:8d} {rates.out_packets & _U32:8d}"
            f"{large(rates.in_bytes & _U32, exact)}{large(rates.out_bytes & _U32, exact)}"
        )
    connections = f"{entry.active:<10d} {entry.inactive:<10d}"
    if form == "thresholds":
        return f"{line}{one.upper:<10d} {one.lower:<10d} {connections}"
    if form == "persistent-conn":
        return f"{line}{one.weight:<9d} {entry.persistent:<11d} {connections}"
    line += f"{_FORWARD.get(one.forward, ''):<7} "
    if form == "tun-info":
        line += f"{_tunnel_info(one):<13} "
    return f"{line}{one.weight:<6d} {connections}"


def _tunnel_info(one: Destination) -> str:
    if one.forward != Forward.TUNNEL:
        return "n/a"
    tunnel = one.tunnel
    if tunnel.type == TunnelType.GUE:
        return f"gue:{tunnel.port}:{_TUNNEL_FLAG[tunnel.flags]}"
    if tunnel.type == TunnelType.GRE:
        return f"gre:{_TUNNEL_FLAG[tunnel.flags]}"
    return "ipip"


def _scheduler_flags(service: Service) -> str:
    names = _FLAG_NAMES.get(service.scheduler, _ANY_FLAG_NAMES)
    return ",".join(name for name, flag in zip(names, _FLAGS, strict=False) if service.flags & flag)


def _netmask(service: Service) -> str:
    """The persistence granularity, or "" where it is a whole address."""
    if service.key.family == AF_INET6:
        return "" if service.netmask == 128 else str(service.netmask)
    if service.netmask == 0xFFFFFFFF:
        return ""
    return socket.inet_ntop(AF_INET, service.netmask.to_bytes(4, "big"))


def _service_rule(service: Service) -> str:
    rule = f"-s {service.scheduler}"
    if service.flags & ServiceFlag.PERSISTENT:
        mask = _netmask(service)
        rule += f" -p {service.timeout}{f' -M {mask}' if mask else ''}"
    if service.pe_name:
        rule += f" --pe {service.pe_name}"
    if service.flags & ServiceFlag.ONEPACKET:
        rule += " -o"
    if service.flags & _SCHEDULER_FLAGS:
        rule += f" -b {_scheduler_flags(service)}"
    rule += _SYNPROXY_OPTION.get(service.synproxy or SynProxy.OFF, "")
    if _told_otherwise(service):
        rule += f" --client-address {_CLIENT_ADDRESS[service.client_address or ClientAddress.NONE]}"
    return rule


def _destination_rule(one: Destination, protocol: int, names: Names | None) -> str:
    name = endpoint(one.key.family, one.key.address, one.key.port, protocol, names)
    rule = f"-r {name} {_FORWARD_OPTION.get(one.forward, '-g')} -w {one.weight}"
    # The real program forgets these two (docs/deviations.md).
    if one.upper:
        rule += f" -x {one.upper}"
    if one.lower:
        rule += f" -y {one.lower}"
    return f"{rule} {_tunnel_rule(one.tunnel)}" if one.forward == Forward.TUNNEL else rule


def _tunnel_rule(tunnel: Tunnel) -> str:
    rule = f"--tun-type {_TUNNEL[tunnel.type]}"
    if tunnel.type == TunnelType.GUE:
        rule += f" --tun-port {tunnel.port}"
    if tunnel.type != TunnelType.IPIP:
        rule += f" {_TUNNEL_FLAG_OPTION[tunnel.flags]}"
    return rule
