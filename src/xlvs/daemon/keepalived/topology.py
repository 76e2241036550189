"""Virtual and real servers told: for operators as JSON, for SIGUSR1's dump as keepalived's text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from xlvs.daemon.checks.runner import Status
from xlvs.daemon.keepalived.pool import Pool, ServerKey, server_label
from xlvs.health.checks import Script
from xlvs.keepalived.config import RealServer, VirtualServer
from xlvs.model import AF_INET, Counters, Forward, ServiceEntry

# One check of a server: its class, and how it stands.
CheckStatus = tuple[str, Status]

_METHODS = {
    Forward.MASQ: "NAT",
    Forward.ROUTE: "DR",
    Forward.TUNNEL: "TUN",
    Forward.FULLNAT: "FNAT",
    Forward.LOCAL: "LOCAL",
    Forward.BYPASS: "BYPASS",
}
_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}


def status(pools: Iterable[Pool]) -> dict[str, object]:
    """A summary: how many there are, how many are well."""
    pools = list(pools)
    members = [member for pool in pools for member in pool.members.values()]
    return {
        "virtual_servers": len(pools),
        "with_quorum": sum(pool.quorum.up for pool in pools),
        "real_servers": len(members),
        "alive": sum(member.alive for member in members),
        "ordered": sum(bool(member.order) for member in members),
    }


def describe(pool: Pool, checks: Mapping[ServerKey, Sequence[CheckStatus]], now: float) -> dict[str, object]:
    """A virtual server as it stands, for JSON and for listings."""
    server = pool.server
    (first, *_) = pool.wanted(now)
    serving = {(each.key.address, each.key.port): each.weight for each in first.destinations}
    return {
        "name": pool.label,
        "group": server.group,
        "addresses": [_vip(server, index) for index in range(len(server.vips))],
        "protocol": _PROTOCOLS.get(server.protocol, str(server.protocol)),
        "scheduler": server.scheduler,
        "quorum": {"up": pool.quorum.up, "quorum": server.quorum, "hysteresis": server.hysteresis},
        "sorry": _sorry(pool),
        "servers": [_describe_member(pool, key, checks.get(key, ()), serving, now) for key in pool.members],
    }


def _describe_member(
    pool: Pool,
    key: ServerKey,
    checks: Sequence[CheckStatus],
    serving: Mapping[tuple[bytes, int], int],
    now: float,
) -> dict[str, object]:
    member = pool.members[key]
    real = member.real
    vip = pool.server.vips[0]
    weights = [serving.get((real.address.packed, port)) for port in (real.port, vip.port)]
    weight = next((each for each in weights if each is not None), None)
    return {
        "name": pool.name(real),
        "address": str(real.address),
        "port": real.port or vip.port,
        "method": _METHODS[real.forward],
        "state": "up" if member.alive else "disabled" if member.order == "disable" else "down",
        "order": member.order,
        "configured_weight": real.weight,
        "effective_weight": member.effective,
        "weight": weight,
        "checks": [
            {
                "type": kind,
                "up": each.verdict.up,
                "ran": each.ran,
                "attempts": each.attempts,
                "failures": each.failures,
                "tries": each.tries,
                "paused": each.paused,
                "due_in": round(max(each.due - now, 0.0), 3),
                "last": each.last,
            }
            for kind, each in checks
        ],
    }


def _sorry(pool: Pool) -> dict[str, object] | None:
    sorry = pool.server.sorry
    return {"name": pool.name(sorry), "serving": not pool.quorum.up} if sorry else None


def _vip(server: VirtualServer, index: int) -> str:
    vip = server.vips[index]
    if vip.address is None:
        return f"fwmark {vip.fwmark}"
    return f"{vip.address}:{vip.port}" if vip.family == AF_INET else f"[{vip.address}]:{vip.port}"


def statistics(entries: Iterable[ServiceEntry]) -> str:
    """The counters of services and destinations, for SIGUSR2's dump."""
    lines = []
    for entry in entries:
        key = entry.service.key
        name = f"fwmark {key.fwmark}" if key.fwmark else f"[{ip_address(key.address)}]:{key.port}"
        lines.append(f"Virtual server: {name}")
        for who, counters in [("", entry.counters), *_destinations(entry)]:
            indent = "    " if who else "  "
            if who:
                lines.append(f"  Real server: {who}")
            lines.append(f"{indent}Connections: {counters.connections}")
            lines.append(f"{indent}Packets in/out: {counters.in_packets}/{counters.out_packets}")
            lines.append(f"{indent}Bytes in/out: {counters.in_bytes}/{counters.out_bytes}")
    return "".join(f"{line}\n" for line in lines)


def _destinations(entry: ServiceEntry) -> list[tuple[str, Counters]]:
    return [
        (f"[{ip_address(each.destination.key.address)}]:{each.destination.key.port}", each.counters)
        for each in entry.destinations
    ]


def dump(pools: Iterable[Pool], checks: Mapping[str, Sequence[CheckStatus]]) -> str:
    """The topology in the words of keepalived's dump. ``checks`` are by "VS -> RS"."""
    lines = ["------< LVS Topology >------"]
    for pool in pools:
        lines += _dump_server(pool)
    lines.append("------< Health checkers >------")
    for name, found in checks.items():
        for kind, each in found:
            lines += _dump_check(name, kind, each)
    return "".join(f"{line}\n" for line in lines)


def _dump_server(pool: Pool) -> list[str]:
    server = pool.server
    lines = [" ------< Virtual server >------"]
    vip = server.vips[0]
    if server.group is not None:
        lines.append(f" VS GROUP = {pool.label}")
    elif vip.address is None:
        lines.append(f" VS FWMARK = {vip.fwmark}")
    else:
        lines.append(f" VS VIP = {vip.address}, VPORT = {vip.port}")
    lines += [
        f"   Address family = {'inet' if vip.family == AF_INET else 'inet6'}",
        f"   lvs_sched = {server.scheduler}",
        f"   One packet scheduling = {'enabled' if server.ops else 'disabled'}",
    ]
    if server.persistence is not None:
        lines.append(f"   persistence timeout = {server.persistence}")
    lines += [
        f"   protocol = {_PROTOCOLS.get(server.protocol, 'none')}",
        f"   alpha is {_on(server.alpha)}",
        f"   omega is {_on(server.omega)}",
        f"   quorum = {server.quorum}, hysteresis = {server.hysteresis}",
        *_dump_script("   Quorum up notify script", server.quorum_up),
        *_dump_script("   Quorum down notify script", server.quorum_down),
        f"   Using smtp notification = {_yes(server.smtp_alert)}",
    ]
    if server.sorry:
        lines.append(f"   sorry server = {server_label(server, server.sorry)}")
        lines.append(f"     forwarding method = {_METHODS[server.sorry.forward]}")
        lines.append(f"     Inhibit on failure is {_on(server.sorry.inhibit_on_failure)}")
    lines += [f"   alive = {int(pool.begun)}", f"   quorum_state_up = {int(pool.quorum.up)}"]
    for member in pool.members.values():
        lines += _dump_real(member.real, pool, alive=member.alive, weight=member.effective)
    return lines


def _dump_real(real: RealServer, pool: Pool, *, alive: bool, weight: int) -> list[str]:
    port = real.port or pool.server.vips[0].port
    return [
        "   ------< Real server >------",
        f"   RIP = {real.address}, RPORT = {port}, WEIGHT = {real.weight} EFF WEIGHT = {weight}",
        f"   forwarding method = {_METHODS[real.forward]}",
        f"   Alpha is {_on(real.alpha)}",
        f"   connection limit range = {real.lower} -> {real.upper}",
        f"   Inhibit on failure is {_on(real.inhibit_on_failure)}",
        *_dump_script("     RS up notify script", real.notify_up),
        *_dump_script("     RS down notify script", real.notify_down),
        f"   Using smtp notification = {_yes(real.smtp_alert)}",
        f"   initial weight = {real.weight}",
        f"   effective weight = {weight}",
        f"   alive = {int(alive)}",
    ]


def _dump_check(name: str, kind: str, each: Status) -> list[str]:
    return [
        f" {name}",
        f"   Enabled = {_yes(not each.paused)}",
        f"   Up = {_yes(each.verdict.up)}",
        f"   Has run = {_yes(each.ran)}",
        f"   Keepalive method = {_method(kind)}",
        f"   Retries iterations = {each.tries}",
        f"   Last = {each.last}",
    ]


def _method(kind: str) -> str:
    """keepalived's keyword of a check's class: TcpCheck is TCP_CHECK."""
    name = kind.removesuffix("Check").upper()
    return "HTTP_GET" if name == "HTTP" else f"{name}_CHECK"


def _dump_script(what: str, script: Script | None) -> list[str]:
    if script is None:
        return []
    words = " ".join(f"'{word}'" for word in script.arguments)
    return [f"{what} = {words}, uid:gid {script.user or 0}:{script.group or 0}"]


def _on(value: bool) -> str:
    return "ON" if value else "OFF"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
