"""Configurations of virtual servers that the real keepalived was asked about: every keyword, good and bad.

A place is a configuration with a hole; a case is a place with a statement in it, ";" for the end of a
line. ``cases.txt`` has the statements, by place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

_SERVICE = """virtual_server {head} {{
    lb_algo rr
    lb_kind NAT
    protocol TCP
    {service}
    real_server {server} {{
        {inside}
    }}
    {after}
}}
"""
_PLAIN = {
    "head": "10.0.0.1 80",
    "service": "",
    "server": "10.0.0.2 8080",
    "inside": "TCP_CHECK {\n}",
    "after": "",
}


def _place(before: str = "", **parts: str) -> str:
    return before + _SERVICE.format(**{**_PLAIN, **parts})


def _checker(kind: str, before: str = "") -> str:
    return _place(before, inside=f"{kind} {{\n@@\n}}")


_FILE = "track_file file {\nfile /tmp/xlvs-none\nweight 5\n}\n"
_BFD = "bfd_instance bfd {\nneighbor_ip 10.0.0.2\n}\n"
SAFE = "global_defs {\nenable_script_security\nscript_user root\n}\n"
PLACES: dict[str, str] = {
    "service": _place(service="@@"),
    "service, behind its servers": _place(after="@@"),
    "service by DR": _place(service="lb_kind DR\n@@", server="10.0.0.2 80"),
    "service with safe scripts": _place(SAFE, service="@@"),
    "global_defs": _place("global_defs {\n@@\nsmtp_server 1.2.3.4\nnotification_email {\na@b\n}\n}\n"),
    "bare service": "virtual_server 10.0.0.1 80 {\n@@\nreal_server 10.0.0.2 80 {\n}\n}\n",
    "service without servers": "virtual_server 10.0.0.1 80 {\nprotocol TCP\nlb_algo rr\nlb_kind NAT\n@@\n}\n",
    "head": _place(head="@@"),
    "head, by DR": _place(head="@@", service="lb_kind DR"),
    "head, by TUN to IPv6": _place(head="@@", service="lb_kind TUN", server="2001:db8::2"),
    "head, to IPv6": _place(head="@@", server="2001:db8::2 80"),
    "group": _place("virtual_server_group g {\n@@\n}\n", head="group g"),
    "group, to IPv6": _place("virtual_server_group g {\n@@\n}\n", head="group g", server="::2 80"),
    "group, by TUN": _place(
        "virtual_server_group g {\n@@\n}\n", head="group g", service="lb_kind TUN", server="::2 80"
    ),
    "group, by DR": _place(
        "virtual_server_group g {\n@@\n}\n", head="group g", service="lb_kind DR", server="10.0.0.2 80"
    ),
    "server": _place(inside="@@"),
    "server with a check": _place(inside="@@\nTCP_CHECK {\n}"),
    "server, inheriting": _place(
        service="delay_loop 9\nretry 7\nwarmup 3\nconnect_timeout 1.5\ndelay_before_retry 2.5\nalpha\n"
        "inhibit_on_failure\nweight 3\nvirtualhost v\nsmtp_alert",
        inside="@@\nTCP_CHECK {\n}\nHTTP_GET {\nurl {\npath /\n}\n}\nDNS_CHECK {\n}\nPING_CHECK {\n}",
    ),
    "server's head": _place(server="@@"),
    "server's head, by DR": _place(server="@@", service="lb_kind DR"),
    "TCP_CHECK": _checker("TCP_CHECK"),
    "TCP_CHECK, inheriting": _place(
        service="delay_loop 9\nretry 7\nwarmup 3\nconnect_timeout 1.5\ndelay_before_retry 2.5\nalpha",
        inside="TCP_CHECK {\n@@\n}\nTCP_CHECK {\n}",
    ),
    "HTTP_GET": _checker("HTTP_GET"),
    "url": _place(inside="HTTP_GET {\nurl {\npath /\n@@\n}\n}"),
    "HTTP_GET with a url": _place(inside="HTTP_GET {\nurl {\npath /\n}\n@@\n}"),
    "SSL_GET with a url": _place(inside="SSL_GET {\nurl {\npath /\n}\n@@\n}"),
    "SMTP_CHECK": _checker("SMTP_CHECK"),
    "DNS_CHECK": _checker("DNS_CHECK"),
    "MISC_CHECK": _checker("MISC_CHECK"),
    "MISC_CHECK with a script": _place(inside="MISC_CHECK {\nmisc_path /bin/true\n@@\n}"),
    "safe MISC_CHECK": _checker("MISC_CHECK", SAFE),
    "PING_CHECK": _checker("PING_CHECK"),
    "UDP_CHECK": _checker("UDP_CHECK"),
    "FILE_CHECK": _checker("FILE_CHECK"),
    "FILE_CHECK with a file": _place(_FILE, inside="FILE_CHECK {\ntrack_file file\n@@\n}"),
    "BFD_CHECK": _checker("BFD_CHECK", _BFD),
    "all": "@@",
}

NOTHING = "(nothing)"


def listed(path: Path, places: Collection[str]) -> Iterator[tuple[str, str]]:
    """The cases of a file: lines of statements below their place in brackets."""
    place = ""
    for line in path.read_text().splitlines():
        if line.startswith("[") and line.endswith("]") and line[1:-1] in places:
            place = line[1:-1]
        elif line:
            yield place, "" if line == NOTHING else line


def filled(hollow: str, statement: str) -> str:
    """A configuration with a statement in its hole."""
    return hollow.replace("@@", statement.replace(";", "\n"))


def cases() -> Iterator[tuple[str, str]]:
    """Names of the cases: place and statement."""
    return listed(Path(__file__).with_name("cases.txt"), PLACES)


def text(place: str, statement: str) -> str:
    """A case's configuration."""
    return filled(PLACES[place], statement)
