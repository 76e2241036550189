"""Virtual servers of a keepalived.conf: values, inheritance, and FULLNAT's dialect of two files."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.documents import REPOSITORY
from xlvs.health.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    MiscCheck,
    Script,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from xlvs.keepalived.config import Outcome, VirtualServer
from xlvs.keepalived.endpoints import classic_ipv4
from xlvs.keepalived.files import Memory
from xlvs.keepalived.octets import octets, pattern
from xlvs.keepalived.parse import parse
from xlvs.model import AF_INET, AF_INET6, Forward, SynProxy, Tunnel, TunnelType


def read(text: str, **others: str) -> Outcome:
    files = {"/etc/keepalived/keepalived.conf": text}
    return parse(
        "/etc/keepalived/keepalived.conf",
        Memory(files | {f"/etc/keepalived/{name}": body for name, body in others.items()}),
    )


def service(body: str, inside: str = "", head: str = "10.0.0.1 80", before: str = "") -> VirtualServer:
    outcome = read(
        f"{before}\nvirtual_server {head} {{\nprotocol TCP\nlb_algo rr\nlb_kind NAT\n{body}\n"
        f"real_server 10.0.0.2 8080 {{\n{inside}\n}}\n}}\n"
    )
    assert outcome.config is not None
    (found,) = outcome.config.virtual_servers
    return found


GLOBAL = """
! one file for the director, one for each business
global_defs {
    router_id LVS_DEVEL
}
local_address_group laddr_g1 {
    192.168.100.1
    192.168.100.5-8      # both ends
    192.168.100.20 eth1
}
include business/*.conf
"""
BUSINESS = """
virtual_server_group shop {
    10.10.0.1 80       # one
    10.10.0.2-3 80
}
virtual_server group shop {
    delay_loop 7
    lb_algo wrr
    lb_kind FNAT
    protocol TCP
    syn_proxy
    persistence_timeout 50
    laddr_group_name laddr_g1
    alpha
    omega
    quorum 1
    hysteresis 0
    quorum_up " ip addr add 10.10.0.1/32 dev lo; ip addr add 10.10.0.2/32 dev lo;"
    quorum_down " ip addr del 10.10.0.1/32 dev lo ;ip addr del 10.10.0.2/32 dev lo"
    real_server 172.16.0.1 80 {
        weight 100
        inhibit_on_failure
        TCP_CHECK {
            connect_timeout 4
        }
    }
    include ../rs.conf
}
"""
SERVERS = (
    "real_server 172.16.0.2 8080 {\nweight 50\nTCP_CHECK {\nconnect_timeout 4\nconnect_port 9000\n}\n}\n"
)


def test_the_two_files_of_fullnat() -> None:
    outcome = read(GLOBAL, **{"business/shop.conf": BUSINESS, "rs.conf": SERVERS})
    assert outcome.config is not None
    assert {message.text for message in outcome.messages} == {
        "SECURITY VIOLATION - check scripts are being executed but script_security not enabled."
    }
    assert outcome.status == 6
    (shop,) = outcome.config.virtual_servers
    assert [str(vip.address) for vip in shop.vips] == ["10.10.0.1", "10.10.0.2", "10.10.0.3"]
    assert {(vip.family, vip.port) for vip in shop.vips} == {(AF_INET, 80)}
    assert [int(address) - int(IPv4Address("192.168.100.0")) for address in shop.local_addresses] == [
        *(1, 5, 6, 7, 8, 20)
    ]
    assert (shop.synproxy, shop.scheduler, shop.persistence) == (SynProxy.ALWAYS, "wrr", 50)
    assert (shop.alpha, shop.omega, shop.quorum, shop.hysteresis) == (True, True, 1, 0)
    add = "ip addr add 10.10.0.{}/32 dev lo"
    assert shop.quorum_up == Script(tuple(add.format(1).split()), then=Script(tuple(add.format(2).split())))
    assert shop.quorum_down is not None
    assert shop.quorum_down.then == Script(("ip", "addr", "del", "10.10.0.2/32", "dev", "lo"))
    assert [(str(rs.address), rs.port, rs.weight, rs.forward) for rs in shop.servers] == [
        ("172.16.0.1", 80, 100, Forward.FULLNAT),
        ("172.16.0.2", 8080, 50, Forward.FULLNAT),
    ]
    first, second = (rs.checks[0] for rs in shop.servers)
    assert isinstance(first, TcpCheck)
    assert isinstance(second, TcpCheck)
    assert (first.interval, first.timeout, first.port, first.alpha) == (7.0, 4.0, 80, True)
    assert second.port == 9000
    assert shop.origins["local_addresses"].file == "/etc/keepalived/business/shop.conf"


def test_the_documents_example_is_understood() -> None:
    outcome = parse(str(REPOSITORY / "docs/examples/keepalived/keepalived.conf"))
    assert outcome.status == 0, [str(message) for message in outcome.messages]
    assert outcome.config is not None
    (shop,) = outcome.config.virtual_servers
    assert len(shop.local_addresses) == 28
    up = shop.quorum_up
    for number in (161, 162, 163):
        assert up is not None
        assert up.arguments == ("ip", "addr", "add", f"10.1.252.{number}/32", "dev", "lo")
        up = up.then
    assert up is None
    assert [server.forward for server in shop.servers] == [Forward.FULLNAT] * 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("lb_kind FNAT\nladdr_group_name nobody", "no local_address_group nobody"),
        ("lb_kind FNAT", "serves nobody"),
        ("lb_kind NAT\nlocal_address {\n1.2.3.4\n}", "are for lb_kind FNAT"),
        ("lb_kind DR\nsyn_proxy", "syn_proxy is for TCP by NAT or FNAT"),
        ("lb_kind NAT\nsyn_proxy maybe", "Invalid syn_proxy parameter maybe"),
    ],
)
def test_the_dialect_is_judged(body: str, told: str) -> None:
    server = "real_server 10.0.0.2 80 {\n}\n"
    outcome = read(f"virtual_server 10.0.0.1 80 {{\nprotocol TCP\nlb_algo rr\n{body}\n{server}}}\n")
    assert outcome.config is not None
    assert any(told in message.text for message in outcome.messages), outcome.messages


def test_fullnat_serves_servers_of_the_other_family() -> None:
    text = """virtual_server 10.0.0.1 80 {
        protocol TCP
        lb_algo rr
        lb_kind FNAT
        local_address {
            2001:db8::1-3
        }
        syn_proxy auto
        real_server 2001:db8::80 8080 {
        }
    }"""
    outcome = read(text)
    assert outcome.status == 0
    assert outcome.config is not None
    (found,) = outcome.config.virtual_servers
    assert found.synproxy == SynProxy.AUTO
    assert found.local_addresses == tuple(IPv6Address(f"2001:db8::{n}") for n in (1, 2, 3))
    assert found.servers[0].port == 8080


def test_values_are_inherited_wherever_they_stand() -> None:
    found = service(
        "delay_loop 9\nretry 7\nwarmup 3\nalpha\nweight 4\nvirtualhost v",
        "TCP_CHECK {\n}\nTCP_CHECK {\nretry 0\nalpha off\n}\nretry 8\nconnect_timeout 2.5\n"
        "HTTP_GET {\nurl {\npath /\n}\nurl {\npath /b\nvirtualhost u\n}\n}\n",
    )
    first, second, third = found.servers[0].checks
    assert isinstance(first, TcpCheck)
    assert isinstance(second, TcpCheck)
    assert isinstance(third, HttpCheck)
    assert (first.interval, first.retries, first.warmup, first.alpha, first.timeout) == (9, 8, 3, True, 2.5)
    assert (second.retries, second.alpha, second.retry_delay, third.retry_delay) == (0, False, 1.0, 3.0)
    assert [url.virtualhost for url in third.urls] == ["v", "u"]
    assert found.servers[0].weight == 4
    assert [str(first.origins[name]).rpartition("=")[2] for name in ("retries", "interval")] == ["19)", "6)"]


def test_defaults_of_the_kinds_of_checks() -> None:
    found = service(
        "delay_loop 9",
        "DNS_CHECK {\nname a.b\ntype aaaa\n}\nMISC_CHECK {\nmisc_path \"/bin/x 'a b'\"\nuser u g\n}\n"
        "AGENT_CHECK {\nconnect_port 9777\nsend hello\ndamping 0.25\n}\nSMTP_CHECK {\nconnect_port 25\n"
        "host {\nconnect_ip 1.2.3.4\n}\n}\nUDP_CHECK {\npayload Ab1\nrequire_reply x1\n}\n",
    )
    dns, misc, agent, smtp, host, udp = found.servers[0].checks
    assert isinstance(dns, DnsCheck)
    assert (dns.retries, dns.retry_delay, dns.name, dns.type, dns.port) == (3, 9.0, "a.b", "AAAA", 8080)
    assert isinstance(misc, MiscCheck)
    assert (misc.retries, misc.script) == (0, Script(("/bin/x", "a b"), "u", "g"))
    assert isinstance(agent, AgentCheck)
    assert (agent.send, agent.damping, agent.port) == ("hello", 0.25, 9777)
    assert isinstance(smtp, SmtpCheck)
    assert isinstance(host, SmtpCheck)
    assert [(str(each.address), each.port) for each in (smtp, host)] == [("10.0.0.2", 25), ("1.2.3.4", 8080)]
    assert isinstance(udp, UdpCheck)
    assert (udp.payload, udp.reply, udp.require_reply) == (b"\xab\x01", ((0x01, 0x0F),), True)


def test_ports_follow_the_method() -> None:
    head = "virtual_server 10.0.0.1 80 {{\nprotocol TCP\nlb_algo rr\nlb_kind {}\n"
    text = f"{head}real_server 10.0.0.2{{}} {{{{\n{{}}\n}}}}\n}}}}\n"
    for method, port, expected, asked in (("NAT", " 81", 81, 81), ("DR", " 81", 80, 81), ("DR", "", 0, 80)):
        outcome = read(text.format(method, port, "TCP_CHECK {\n}"))
        assert outcome.config is not None
        server = outcome.config.virtual_servers[0].servers[0]
        check = server.checks[0]
        assert isinstance(check, TcpCheck)
        assert (server.port, check.port) == (expected, asked)


def test_groups_expand_and_marks_follow_their_servers() -> None:
    group = "virtual_server_group g {\n10.0.0.250-10.0.1.1 80\n10.0.2.0/30 443\nfwmark 7\n}\n"
    found = service("", head="group g", before=group)
    assert len(found.vips) == 8 + 4 + 1
    assert (found.vips[-1].fwmark, found.vips[-1].family) == (7, AF_INET)
    assert (found.name, found.group) == ("group g", "g")
    method = "lb_algo rr\nlb_kind TUN type gue port 6080 csum"
    outcome = read(f"virtual_server fwmark 5 {{\n{method}\nreal_server ::2 {{\n}}\n}}\n")
    assert outcome.status == 0
    assert outcome.config is not None
    (marked,) = outcome.config.virtual_servers
    assert marked.vips[0].family == AF_INET6
    assert marked.servers[0].tunnel == Tunnel(TunnelType.GUE, 6080, 1)


def test_flags_have_the_names_of_their_scheduler() -> None:
    assert service("lb_algo sh\nflag-1\nsh-port").flags == ("sh-fallback", "sh-port")
    assert service("lb_algo mh\nmh-port\nsh-fallback").flags == ("mh-port",)
    assert service("flag-3\nflag-3").flags == ("flag-3",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("255.255.255.0", 0xFFFFFF00),
        ("24", 24),
        ("1.2", 0x01000002),
        ("0x7f.1", 0x7F000001),
        ("010.1", 0x08000001),
    ],
)
def test_classic_addresses(text: str, value: int) -> None:
    assert classic_ipv4(text) == value


@pytest.mark.parametrize(
    "text", ["", ".", "256.1.1.1", "1.2.3.4.5", "1.2.3.256", "09", "x", "4294967296", "1..2"]
)
def test_what_is_no_classic_address(text: str) -> None:
    assert classic_ipv4(text) is None


def test_bytes_in_hexadecimal() -> None:
    assert octets(["Ab12f", "3", "456", "546443123"]) == bytes.fromhex("ab120f03450654644312") + b"\x03"
    assert octets(["0x12"]) is None
    assert octets([]) is None
    assert pattern(["xX", "1x", "f"]) == ((0, 0), (0x10, 0xF0), (0x0F, 0xFF))


def test_nothing_of_a_refused_file_is_kept() -> None:
    outcome = read("virtual_server 10.0.0.1 80 {\nlb_algo\n}\n")
    assert outcome.config is None
    assert outcome.status == 2
    assert str(outcome.messages[0]).startswith("(/etc/keepalived/keepalived.conf: Line 2) ")
