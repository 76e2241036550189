"""``xlvs fwmark``: the classifier's rules in the pinned maps, kept, killed and taken over."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns import labs
from tests.netns.alone import Alone
from tests.netns.killing import killed_before
from xlvs.lab import build
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root
DIRECTOR = Alone("xlvs-fwmark")
xlvs = DIRECTOR.xlvs
# HTTPS beside the lab's nginx: its page is the real server's name.
HTTPS = """if True:
    import http.server, socket, ssl, sys
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{sys.argv[1]}\\n".encode())
        def log_message(self, *_):
            pass
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
    server = Server(("::", 443), Page)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()"""


def listed() -> list[tuple[int, str, int]]:
    rules = json.loads(xlvs("fwmark", "list", "--json").stdout)["rules"]
    assert [rule["number"] for rule in rules] == list(range(1, len(rules) + 1))
    return [(rule["mark"], rule["to"], rule["first_port"]) for rule in rules]


@pytest.fixture
def namespace() -> Iterator[None]:
    with DIRECTOR.made():
        yield


@pytest.mark.usefixtures("namespace")
def test_rules_keep_their_order_and_outlive_the_plane() -> None:
    xlvs("fwmark", "add", "1", "--to", "10.1.252.161", "--protocol", "tcp", "--port", "80")
    xlvs("fwmark", "add", "0x10", "--to", "2001:db8::/64")
    xlvs("fwmark", "add", "3", "--at", "1")
    rules = [(3, "0.0.0.0/0", 0), (1, "10.1.252.161/32", 80), (16, "2001:db8::/64", 0)]
    assert listed() == rules
    xlvs("up", "eth0", "--no-helper")
    xlvs("down", "--keep-rules")
    assert listed() == rules
    xlvs("fwmark", "del", "3")
    xlvs("fwmark", "del", "--number", "1")
    assert listed() == rules[2:]
    assert "no such rule" in xlvs("fwmark", "del", "3", check=False).stderr
    for words in (
        ("add", "1", "--port", "80"),
        ("add", "1", "--to", "10.1.0.1/16"),
        ("add", "4294967296"),
        ("add", "1", "--protocol", "tcp", "--port", "81:80"),
        ("add", "1", "--to", "10.0.0.1", "-6"),
        ("add", "1", "--at", "3"),
        ("del", "--number", "2"),
        ("del",),
    ):
        refused = xlvs("fwmark", *words, check=False)
        assert (refused.returncode, refused.stderr[:6]) == (1, "xlvs: "), words
    xlvs("fwmark", "flush")
    assert listed() == []


@pytest.mark.usefixtures("namespace")
def test_a_change_that_is_killed_is_finished_by_the_next_command() -> None:
    xlvs("fwmark", "add", "1", "--to", "10.0.0.0/8")
    xlvs("fwmark", "add", "2", "--to", "10.1.0.0/16")
    steps = 0
    for step in range(50):
        command = killed_before(step, "fwmark", "add", str(100 + step), "--to", "10.1.0.1")
        done = DIRECTOR.run(*command, check=False)
        if done.returncode == 0:
            break
        assert done.returncode in (-9, 137), done.stderr
        steps += 1
        assert [mark for mark, _, _ in listed()] == [1, 2, *range(100, 100 + steps)]
    assert steps > 4
    xlvs("fwmark", "flush")
    assert listed() == []


@pytest.mark.usefixtures("namespace")
def test_rules_of_iptables_are_taken_over() -> None:
    for words in (
        (
            "-d",
            "10.2.3.4",
            "-p",
            "tcp",
            "-m",
            "multiport",
            "--dports",
            "80,443",
            "-j",
            "MARK",
            "--set-mark",
            "5",
        ),
        ("-s", "10.9.9.9", "-j", "MARK", "--set-mark", "6"),
    ):
        DIRECTOR.run("iptables", "-t", "mangle", "-A", "PREROUTING", *words)
    DIRECTOR.run(
        "ip6tables", "-t", "mangle", "-A", "PREROUTING", "-d", "2001:db8::1", "-j", "MARK", "--set-mark", "7"
    )
    xlvs("fwmark", "add", "1", "--to", "10.0.0.1")
    done = xlvs("fwmark", "import", check=False)
    assert done.returncode == 3  # one was left out
    assert "1 MARK rules taken over as 2; 1 left out" in done.stdout
    assert "-s 10.9.9.9/32" in done.stderr
    assert xlvs("fwmark", "import", "-6").returncode == 0
    rules = [(5, "10.2.3.4/32", 80), (5, "10.2.3.4/32", 443), (7, "2001:db8::1/128", 0)]
    assert listed() == [(1, "10.0.0.1/32", 0), *rules]
    saved = DIRECTOR.run("iptables-save", "-t", "mangle").stdout
    assert xlvs("fwmark", "import", "--replace", "-f", "-", check=False, text=saved).returncode == 3
    assert sorted(listed()) == sorted(rules)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("method", [Method.NAT, Method.DR])
def test_http_and_https_of_one_client_stay_together(method: Method, ipv6: bool, tmp_path: Path) -> None:
    """The classic of services by mark: one service, two ports, persistence across both."""
    certificate = str(tmp_path / "server.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=site"),
            *("-keyout", certificate, "-out", str(tmp_path / "only.pem")),
        ],
        check=True,
        capture_output=True,
    )
    with open(certificate, "a") as file:
        file.write((tmp_path / "only.pem").read_text())
    with labs.lab(method, ipv6=True, rules=False) as made, ExitStack() as stack:
        for node in made.topology.real_servers:
            server = stack.enter_context(
                made.start(node.name, [sys.executable, "-c", HTTPS, node.name, certificate])
            )
            stack.callback(server.kill)
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
        _serve_by_mark(made, method, ipv6)


def _serve_by_mark(made: build.Lab, method: Method, ipv6: bool) -> None:
    def page(scheme: str) -> str:
        url = made.topology.url(ipv6).replace("http", scheme)
        said = made.run("client", ["curl", "-sS", "-k", "--max-time", "20", f"{url}/"])
        return re.sub("<[^>]*>", "", said).strip().lower()

    vip = made.topology.vips[ipv6]
    six = ["-6"] if ipv6 else []
    for port in ("80", "443"):
        labs.xlvs(made, "director", "fwmark", "add", "1", "--to", vip, "--protocol", "tcp", "--port", port)
    labs.xlvs(made, "director", "ipvsadm", "-A", "-f", "1", *six, "-s", "rr")
    for number in (1, 2):
        rip = made.topology.rip(number, ipv6)
        real = f"[{rip}]:0" if ipv6 else f"{rip}:0"
        labs.xlvs(made, "director", "ipvsadm", "-a", "-f", "1", *six, "-r", real, method.option)
    # One service for both ports: rr alternates across them.
    turns = [page(scheme) for scheme in ("http", "https", "http", "https", "https", "http")]
    assert turns in (["rs2", "rs1"] * 3, ["rs1", "rs2"] * 3)
    labs.xlvs(made, "director", "ipvsadm", "-E", "-f", "1", *six, "-s", "rr", "-p", "600")
    (server,) = {page(scheme) for scheme in ("http", "https", "http", "https")}
    assert server in turns
    listing = labs.xlvs(made, "director", "ipvsadm", "-Lnc", "--persistent-conn")
    # The template's virtual address is the mark.
    assert any(line.startswith("IP ") for line in listing.splitlines()), listing
    # Another port is not marked, and so nobody's.
    labs.xlvs(made, "director", "fwmark", "del", "1", "--to", vip, "--protocol", "tcp", "--port", "443")
    url = made.topology.url(ipv6).replace("http", "https")
    refused = labs.typed(made, "client", ["curl", "-sS", "-k", "--max-time", "2", f"{url}:443/"])
    assert refused.returncode in (7, 28), refused
    assert page("http") == server
