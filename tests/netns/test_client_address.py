"""Real servers learn who the client is: by PROXY protocol, as nginx reads it, and by TCP option."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, wire
from xlvs.lab.topology import Method, host_port

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
PROXY_PORT, TOA_PORT, GREETING_PORT = 81, 80, 82
FIN, SYN = 1, 2
METHODS = [Method.NAT, Method.FULLNAT]
families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])

_CONFIGURATION = f"""\
user root;
worker_processes 1;
pid proxied.pid;
events {{ worker_connections 1024; }}
http {{
    default_type application/octet-stream;
    log_format told '$proxy_protocol_addr $proxy_protocol_port $request_uri';
    access_log told.log told;
    client_body_temp_path proxied_body;
    proxy_temp_path proxied_proxy;
    fastcgi_temp_path proxied_fastcgi;
    uwsgi_temp_path proxied_uwsgi;
    scgi_temp_path proxied_scgi;
    client_max_body_size 0;
    server {{
        listen {PROXY_PORT} proxy_protocol;
        listen [::]:{PROXY_PORT} proxy_protocol;
        root html;
        location /upload/ {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""

# Reads the header, says hello, and what it read: as mail servers do it.
_GREETER = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    peer, _ = listener.accept()
    peer.settimeout(10)
    head = peer.recv(16, socket.MSG_WAITALL)
    head += peer.recv(int.from_bytes(head[14:16], "big"), socket.MSG_WAITALL)
    peer.sendall(b"220 " + head.hex().encode() + b"\\n")
    peer.close()
"""

# Prints flags, options and payload's length of each segment to a port, as they are on the wire.
_WATCHER = """
import socket, sys
port = int(sys.argv[1])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
print("ready", flush=True)
while True:
    packet, (_, _, kind, *_) = wire.recvfrom(65535)
    if kind == socket.PACKET_OUTGOING:
        continue
    version = packet[0] >> 4
    at, protocol = ((packet[0] & 15) * 4, packet[9]) if version == 4 else (40, packet[6])
    if version in (4, 6) and protocol == 6 and int.from_bytes(packet[at + 2 : at + 4], "big") == port:
        size = (packet[at + 12] >> 4) * 4
        print(packet[at + 13], packet[at + 20 : at + size].hex() or "-", len(packet) - at - size, flush=True)
"""

# A SYN with options of the client's own choice, from a port that its kernel knows nothing of.
_FORGER = """
import socket, struct, sys
source, target, port, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
def segment(check):
    words = (33333, port, 7, 0, (5 + len(options) // 4) << 4, 2, 512, check, 0)
    return struct.pack("!HHIIBBHHH", *words) + options
ends = socket.inet_aton(source) + socket.inet_aton(target)
data = ends + struct.pack("!HH", 6, len(segment(0))) + segment(0)
total = sum(struct.unpack(f"!{len(data) // 2}H", data))
total = (total & 0xFFFF) + (total >> 16)
raw.sendto(segment(~(total + (total >> 16)) & 0xFFFF), (target, 0))
"""


def started(made: build.Lab, node: str, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A few lines of Python on a node, once they say that they are ready."""
    process = made.start(node, [sys.executable, "-c", code, *arguments])
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@dataclass(frozen=True)
class Seen:
    """A segment as it came to a real server."""

    flags: int
    options: bytes
    payload: int


def watched(process: subprocess.Popen[str], enough: Callable[[list[Seen]], bool]) -> list[Seen]:
    """The segments that a watcher saw until they were enough, or for twenty seconds; it is ended."""
    timer = threading.Timer(20, process.terminate)
    timer.start()
    seen: list[Seen] = []
    assert process.stdout
    for line in process.stdout:
        flags, options, payload = line.split()
        seen.append(Seen(int(flags), bytes.fromhex(options.strip("-")), int(payload)))
        if enough(seen):
            break
    timer.cancel()
    process.terminate()
    process.communicate(timeout=20)
    return seen


@pytest.fixture(scope="module", params=METHODS)
def made(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    """A lab with one real server, and services of two more ports that are told by PROXY protocol."""
    with labs.lab(request.param, 1, ipv6=True) as built:
        topology, site = built.topology, Path(built.site(1))
        (site / "proxied.conf").write_text(_CONFIGURATION)
        built.run(
            "rs1",
            ["nginx", "-p", str(site), "-c", str(site / "proxied.conf"), "-e", str(site / "proxied.log")],
        )
        for ipv6 in (False, True):
            for port, way in ((PROXY_PORT, "proxy"), (GREETING_PORT, "proxy"), (TOA_PORT, "toa")):
                vip, rip = host_port(topology.vips[ipv6], port), host_port(topology.rip(1, ipv6), port)
                verb = "-E" if port == TOA_PORT else "-A"
                labs.xlvs(built, "director", "ipvsadm", verb, "-t", vip, "-s", "rr", "--client-address", way)
                if verb == "-E":
                    continue
                if built.method is Method.FULLNAT:
                    labs.xlvs(built, "director", "ipvsadm", "-P", "-t", vip, "-z", topology.pool(ipv6))
                labs.xlvs(built, "director", "ipvsadm", "-a", "-t", vip, "-r", rip, topology.method.option)
        try:
            yield built
        finally:
            pid = (site / "proxied.pid").read_text().strip()
            os.kill(int(pid), 15)


def url(made: build.Lab, ipv6: bool, path: str = "/", port: int = PROXY_PORT) -> str:
    return f"http://{host_port(made.topology.vips[ipv6], port)}{path}"


def told(made: build.Lab, path: str) -> tuple[str, int]:
    """What nginx was told of the client of a request; waits for its log."""
    deadline = time.monotonic() + 20
    while True:
        for line in Path(made.site(1), "told.log").read_text().splitlines():
            address, port, asked = line.split()
            if asked == path:
                return address, int(port)
        assert time.monotonic() < deadline
        time.sleep(0.05)


@families
def test_nginx_is_told_by_proxy_protocol(made: build.Lab, ipv6: bool) -> None:
    for number in range(20):
        path = f"/index.html?v{4 + 2 * ipv6}={number}"
        command = ["curl", "-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "-w", "%{local_port}"]
        port = made.run("client", [*command, url(made, ipv6, path)])
        assert told(made, path) == (made.topology.client.addresses[ipv6], int(port))


@families
@pytest.mark.parametrize("lossy", [False, True], ids=["good wires", "bad wires"])
def test_both_directions_arrive_whole(made: build.Lab, ipv6: bool, lossy: bool, tmp_path: Path) -> None:
    content = os.urandom((2 if lossy else 10) * MEBIBYTE)
    name = f"big{4 + 2 * ipv6}{lossy}"
    (tmp_path / "body").write_bytes(content)
    Path(made.site(1), "html", name).write_bytes(content)
    if lossy:
        for segment in wire.qualities(made):
            wire.spoil(made, segment, wire.Quality(lost=1, late=5))
    try:
        curl = ["curl", "-sS", "--fail", "--max-time", "120", "-o"]
        made.run("client", [*curl, str(tmp_path / "down"), url(made, ipv6, f"/{name}")])
        upload = ["/dev/null", "-T", str(tmp_path / "body")]
        made.run("client", [*curl, *upload, url(made, ipv6, f"/upload/{name}")])
    finally:
        if lossy:
            for segment in wire.qualities(made):
                wire.spoil(made, segment, wire.Quality())
    wanted = hashlib.sha256(content).digest()
    assert hashlib.sha256((tmp_path / "down").read_bytes()).digest() == wanted
    assert hashlib.sha256(Path(made.site(1), "html/upload", name).read_bytes()).digest() == wanted


@families
@pytest.mark.parametrize("node", ["rs1", "director"])
def test_a_server_that_speaks_first_is_told_first(made: build.Lab, ipv6: bool, node: str) -> None:
    """The director may be the server: what it answers is the companion's."""
    service = host_port(made.topology.vips[ipv6], GREETING_PORT)
    rip = host_port(made.topology.rip(1, ipv6), GREETING_PORT)
    own = host_port(made.topology.director.addresses[ipv6], GREETING_PORT)
    if node == "director":
        labs.xlvs(made, "director", "ipvsadm", "-d", "-t", service, "-r", rip)
        labs.xlvs(made, "director", "ipvsadm", "-a", "-t", service, "-r", own, made.topology.method.option)
    greeter = started(made, node, _GREETER, str(GREETING_PORT))
    try:
        code = (
            "import socket, sys; peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10);"
            "print(peer.getsockname()[1], peer.makefile().read())"
        )
        for _ in range(5):
            vip = made.topology.vips[ipv6]
            port, word, head = made.run(
                "client", [sys.executable, "-c", code, vip, str(GREETING_PORT)]
            ).split()
            client = made.topology.client.addresses[ipv6]
            ends = ip_address(client).packed + ip_address(vip).packed
            ports = int(port).to_bytes(2, "big") + GREETING_PORT.to_bytes(2, "big")
            assert word == "220"
            assert bytes.fromhex(head)[16:] == ends + ports
    finally:
        greeter.terminate()
        greeter.communicate(timeout=20)
        if node == "director":
            labs.xlvs(made, "director", "ipvsadm", "-d", "-t", service, "-r", own)
            labs.xlvs(
                made, "director", "ipvsadm", "-a", "-t", service, "-r", rip, made.topology.method.option
            )


@families
def test_the_option_is_on_the_wire_until_the_server_answers(made: build.Lab, ipv6: bool) -> None:
    watcher = started(made, "rs1", _WATCHER, str(TOA_PORT))
    command = ["curl", "-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "-w", "%{local_port}"]
    port = int(made.run("client", [*command, url(made, ipv6, "/", TOA_PORT)]))
    segments = watched(watcher, lambda seen: bool(seen[-1].flags & FIN))
    address = ip_address(made.topology.client.addresses[ipv6]).packed
    option = bytes([254, 4 + len(address)]) + port.to_bytes(2, "big") + address
    carried = [each.options.startswith(option) for each in segments]
    # The SYN; acknowledgement and request; what came behind the answer.
    assert [has for has, _ in itertools.groupby(carried)] == [False, True, False]
    assert carried.count(True) >= 2
    timestamps = [b"\x08\x0a" in each.options for each in segments]
    assert any(timestamps) == (made.method is Method.NAT)


def test_a_forged_option_goes_no_further(made: build.Lab) -> None:
    watcher = started(made, "rs1", _WATCHER, str(TOA_PORT))
    forged = bytes([254, 8]) + b"\x12\x34" + ip_address("203.0.113.66").packed
    client, vip = made.topology.client.addresses[0], made.topology.vips[0]
    old = bytes([200]) + forged[1:]
    for options in (
        forged,
        b"\x01\x01" + old + b"\x01\x01",
        forged * 5,
        old + forged + bytes([254, 0, 0, 0]),
    ):
        made.run("client", [sys.executable, "-c", _FORGER, client, vip, str(TOA_PORT), options.hex()])
    segments = watched(watcher, lambda seen: len([each for each in seen if each.flags == SYN]) == 4)
    assert len([each for each in segments if each.flags == SYN]) == 4
    assert not [each for each in segments if forged[4:] in each.options]
