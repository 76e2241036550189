"""The real program's dump and our values, both as sections of lines that can be compared.

A section begins with a service, a real server, a sorry server or a check; its lines are sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from xlvs.health.checks import (
    AnyCheck,
    BfdCheck,
    DnsCheck,
    FileCheck,
    HttpCheck,
    MiscCheck,
    NetworkCheck,
    PingCheck,
    Script,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from xlvs.keepalived.config import Config, RealServer, VirtualServer
from xlvs.model import Forward, Tunnel, TunnelType

Sections = list[list[str]]
_HEADS = ("VS ", "RIP = ", "sorry server", "CHECK ")
_PROTOCOLS = {0: "none", 6: "TCP", 17: "UDP", 132: "SCTP"}
# What our values have a line for; all else of a dump is state, other processes', or said twice.
_OURS = re.compile(
    "|".join(
        (
            *("VS (VIP|FWMARK|GROUP) = ", "RIP = ", "sorry server", r"(\[|FWM ).* -> \[[^,]*$", "VIP = "),
            *("VIP Range = ", "FWMARK = ", "lvs_sched = ", "(flag|sh|mh)-", "One packet", "persistence "),
            *("protocol = ", "alpha is", "omega is", "quorum = ", "Quorum (up|down)", "Using "),
            *("forwarding method = ", "Alpha ", "connection limit", "Inhibit on", "RS (up|down)"),
            *(r"[^ ,]+, weight -?\d+", "Delay loop = .* us$", "Warmup = .* us$", "Retries = "),
            *("Delay before retry = ", "Log all failures = ", "Dest = ", "Bind ", "Mark = ", "Timeout = "),
            *("Keepalive method = ", "helo = ", "Type = ", "Name =", "script = ", "timeout = ", "dynamic = "),
            *("Payload ", "Require reply", "(Min|Max) reply", "Reply data", "Enable SNI", "Fast recovery"),
            *("Checked url", "HTTP Status", r"\d{3}(-\d{3})?$", "digest = ", 'Regex = "', "Regex no match"),
            *("Regex min", "Tracked file"),
        )
    )
)


def real(lines: Iterable[str]) -> Sections:
    """What the real program has dumped."""
    flat: list[str] = []
    group: list[str] = []
    for line in _without_tracks(lines):
        if not _OURS.match(line):
            continue
        if line.startswith(("VIP = ", "VIP Range = ", "FWMARK = ")):
            group += _expanded(line)
        elif line.startswith("Inhibit on failure is") and flat and flat[-1].startswith("omega is"):
            continue
        elif line.startswith("forwarding method") and _head(flat).startswith("VS "):
            continue  # the default, which some methods are not called
        else:
            flat.append(_plain(line))
            if line.startswith("VS GROUP"):
                flat += group
    return _sections(flat)


def _head(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.startswith(_HEADS)), "")


def _without_tracks(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("File = "):
            return
        yield line


def _plain(line: str) -> str:
    line = re.sub(r", uid:gid \d+:\d+$| EFF WEIGHT.*$", "", line)
    line = line.replace("sorry server (duplicates rs) =", "sorry server =")
    line = re.sub(r"^(.*, weight) (-?\d+) reverse$", lambda m: f"{m[1]} {-int(m[2])}", line)
    if re.match(r"^(\[|FWM ).* -> \[", line):
        return "CHECK "
    return "Name = ." if line == "Name =" else line


def _expanded(line: str) -> Iterator[str]:
    match = re.match(r"VIP Range = (\S+)-(\S+), VPORT = (\d+)", line)
    if match is None:
        yield re.sub(r"^(FWMARK = \d+).*", r"\1", line)
        return
    first, last = ip_address(match[1]), ip_address(match[2])
    for number in range(int(last) - int(first) + 1):
        yield f"VIP = {first + number}, VPORT = {match[3]}"


def _sections(lines: Iterable[str]) -> Sections:
    found: Sections = []
    for line in lines:
        if line.startswith(_HEADS) or not found:
            found.append([])
        found[-1].append(line)
    return [sorted(_bfd(section)) for section in found if section]


def _bfd(section: list[str]) -> list[str]:
    """A check of BFD has no times of its own: the real one prints what stands for none."""
    if "Keepalive method = BFD_CHECK" not in section:
        return section
    return [line for line in section if line.startswith(("CHECK ", "Keepalive", "Alpha = "))]


# -- ours ---------------------------------------------------------------------------


def ours(config: Config) -> Sections:
    """What our values are in the real program's words."""
    lines: list[str] = []
    for service in config.virtual_servers:
        lines += _service(service)
    for service in config.virtual_servers:
        for server in service.servers:
            for check in server.checks:
                lines += ["CHECK ", *_check(check)]
    return _sections(lines)


def _on(value: bool, on: str = "ON", off: str = "OFF") -> str:
    return on if value else off


def _script(script: Script) -> str:
    words = ("/usr" + script.arguments[0], *script.arguments[1:])
    return " ".join(f"'{word}'" for word in words)


def _service(service: VirtualServer) -> Iterator[str]:
    first = service.vips[0]
    if service.group is not None:
        yield f"VS GROUP = [{service.group}]:0"
        for vip in service.vips:
            yield f"FWMARK = {vip.fwmark}" if vip.fwmark else f"VIP = {vip.address}, VPORT = {vip.port}"
    elif first.fwmark:
        yield f"VS FWMARK = {first.fwmark}"
    else:
        yield f"VS VIP = {first.address}, VPORT = {first.port}"
    yield f"lvs_sched = {service.scheduler}"
    names = {
        "sh": ("sh-port", "sh-fallback"),
        "mh": ("mh-port", "mh-fallback"),
    }.get(service.scheduler, ("flag-1", "flag-2", "flag-3"))
    for name in names:
        yield f"{name} = {_on(name in service.flags, 'enabled', 'disabled')}"
    yield f"One packet scheduling = {_on(service.ops, 'enabled', 'disabled')}"
    if service.persistence is not None:
        yield f"persistence timeout = {service.persistence}"
    if service.granularity is not None:
        six = first.family == 10
        yield f"persistence granularity = {service.granularity if six else ip_address(service.granularity)}"
    yield f"protocol = {_PROTOCOLS[service.protocol]}"
    yield f"alpha is {_on(service.alpha)}"
    yield f"omega is {_on(service.omega)}"
    yield f"quorum = {service.quorum}, hysteresis = {service.hysteresis}"
    for name, script in (("up", service.quorum_up), ("down", service.quorum_down)):
        if script is not None:
            yield f"Quorum {name} notify script = {_script(script)}"
    yield f"Using smtp notification = {_on(service.smtp_alert, 'yes', 'no')}"
    if service.ha_suspend:
        yield "Using HA suspend"
    if service.sorry is not None:
        protocol = _PROTOCOLS[service.protocol].lower()
        ours = 0 if service.sorry.forward == Forward.MASQ else first.port
        yield f"sorry server = [{service.sorry.address}]:{protocol}:{service.sorry.port or ours}"
        yield f"forwarding method = {_method(service.sorry.forward, service.sorry.tunnel)}"
        yield f"Inhibit on failure is {_on(service.sorry.inhibit_on_failure)}"
    for server in service.servers:
        yield from _server(server, 0 if service.group is not None or first.fwmark else first.port)


def _method(forward: Forward, tunnel: Tunnel) -> str:
    if forward != Forward.TUNNEL:
        return {Forward.MASQ: "NAT", Forward.ROUTE: "DR"}[forward]
    checksum = ("no checksum", "checksum", "remote checksum")[tunnel.flags]
    if tunnel.type == TunnelType.IPIP:
        return "TUN, type = IPIP"
    port = f", port = {tunnel.port}" if tunnel.type == TunnelType.GUE else ""
    return f"TUN, type = {tunnel.type.name}{port}, {checksum}"


def _server(server: RealServer, port: int) -> Iterator[str]:
    yield f"RIP = {server.address}, RPORT = {server.port or port}, WEIGHT = {server.weight}"
    yield f"forwarding method = {_method(server.forward, server.tunnel)}"
    yield f"Alpha is {_on(server.alpha)}"
    yield f"connection limit range = {server.lower} -> {server.upper}"
    yield f"Inhibit on failure is {_on(server.inhibit_on_failure)}"
    yield f"Using smtp notification = {_on(server.smtp_alert, 'yes', 'no')}"
    for name, script in (("up", server.notify_up), ("down", server.notify_down)):
        if script is not None:
            yield f"RS {name} notify script = {_script(script)}"
    for check in server.checks:
        if isinstance(check, FileCheck):
            yield f"{check.track_file}, weight {check.weight}"


def _micro(seconds: float) -> str:
    return f"{round(seconds * 1_000_000)} us"


def _check(check: AnyCheck) -> Iterator[str]:
    if isinstance(check, FileCheck):
        yield from ("Keepalive method = FILE_CHECK", f"Tracked file = {check.track_file}")
        yield "Log all failures = no"
        return
    yield f"Alpha = {_on(check.alpha, 'yes', 'no')}"
    if isinstance(check, BfdCheck):
        yield "Keepalive method = BFD_CHECK"
        return
    yield f"Delay loop = {_micro(check.interval)}"
    yield f"Warmup = {_micro(check.warmup)}"
    yield f"Retries = {check.retries}"
    if check.retries:
        yield f"Delay before retry = {_micro(check.retry_delay)}"
    yield f"Log all failures = {_on(check.log_all_failures, 'yes', 'no')}"
    if isinstance(check, NetworkCheck):
        yield from _connection(check)
    yield from _own(check)


def _connection(check: NetworkCheck) -> Iterator[str]:
    mapped = getattr(check.address, "ipv4_mapped", None)
    yield f"Dest = [{f'::ffff:{mapped}' if mapped else check.address}]:{check.port}"
    if check.bind_address is not None:
        yield f"Bind to = [{check.bind_address}]:{check.bind_port}"
    if check.bind_interface is not None:
        yield f"Bind i/f = {check.bind_interface}"
    if check.fwmark:
        yield f"Mark = {check.fwmark}"
    yield f"Timeout = {check.timeout:f}"


def _own(check: AnyCheck) -> Iterator[str]:
    if isinstance(check, TcpCheck):
        yield "Keepalive method = TCP_CHECK"
    elif isinstance(check, PingCheck):
        yield "Keepalive method = PING_CHECK"
    elif isinstance(check, SmtpCheck):
        yield from ("Keepalive method = SMTP_CHECK", f"helo = {check.helo_name}")
    elif isinstance(check, DnsCheck):
        yield from ("Keepalive method = DNS_CHECK", f"Type = {check.type}", f"Name = {check.name}")
    elif isinstance(check, MiscCheck):
        yield from ("Keepalive method = MISC_CHECK", f"script = {_script(check.script)}")
        yield from (f"timeout = {check.timeout:g}", f"dynamic = {_on(check.dynamic, 'YES', 'NO')}")
    elif isinstance(check, UdpCheck):
        yield from _udp(check)
    elif isinstance(check, HttpCheck):
        yield from _http(check)


def _udp(check: UdpCheck) -> Iterator[str]:
    yield "Keepalive method = UDP_CHECK"
    yield "Payload specified = no" if check.payload is None else f"Payload len = {len(check.payload)}"
    yield f"Require reply = {_on(check.require_reply, 'yes', 'no')}"
    if check.require_reply:
        yield from (f"Min reply length = {check.min_reply}", f"Max reply length = {check.max_reply}")
        yield f"Reply data len = {len(check.reply)}"
        if check.reply:
            masked = any(mask != 0xFF for _, mask in check.reply)
            yield f"Reply data mask = {_on(masked, 'yes', 'no')}"


def _http(check: HttpCheck) -> Iterator[str]:
    kind = "SSL" if check.tls else "HTTP"
    yield f"Keepalive method = {kind}_GET, http protocol {check.protocol}"
    yield f"Enable SNI {_on(check.sni, 'set', 'unset')}"
    yield f"Fast recovery {_on(check.fast_recovery, 'set', 'unset')}"
    for url in check.urls:
        yield from (f"Checked url = {url.path}".strip(), "HTTP Status Code(s)")
        if url.digest is not None:
            yield f"digest = {url.digest}"
        for first, last in url.statuses:
            yield f"{first}" if first == last else f"{first}-{last}"
        if url.regex is not None:
            yield f'Regex = "{url.regex}"'
            if url.regex_no_match:
                yield "Regex no match"
            high = f", max_offset = {url.regex_max_offset}" if url.regex_max_offset else ""
            if url.regex_min_offset or high:
                yield f"Regex min offset = {url.regex_min_offset}{high}"
