"""Programs of others, as their packages install them: nginx and dnsmasq."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from tests.netns.toa.site import ANY, CLIENT, LOCAL, SERVER, Site
from tests.netns.toa.wire import PATIENCE, Stream, tcp_option
from tests.packet import frames

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])

NGINX = """\
daemon off; master_process on; worker_processes 2; user root;
pid {folder}/pid; error_log {folder}/error;
events {{ }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  log_format ends '$remote_addr $remote_port';
  access_log {folder}/access ends;
  server {{
    listen 80 reuseport; listen [::]:80 ipv6only=on reuseport;
    return 200 '$remote_addr $remote_port';
  }}
}}
"""


@families
def test_nginx_logs_the_clients(real_server: Site, version: int, tmp_path: Path) -> None:
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path))
    real_server.start(["nginx", "-c", str(configuration)])
    listening(real_server, 80)
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    lines = []
    for lport, attached in ((5000, False), (5001, True), (5002, True)):
        if attached:
            real_server.attach()
        client = (CLIENT[version], lport - 4000)
        local = (LOCAL[version], lport)
        stream = Stream(real_server.wire, local, (SERVER[version], 80), tcp_option(*client))
        shown = client if attached else local
        lines.append(f"{shown[0]} {shown[1]}")
        assert stream.ask(request).decode().endswith(f"\r\n\r\n{lines[-1]}")
    assert (tmp_path / "access").read_text().splitlines() == lines
    # What looks at the kernel's own tables sees what is on the wire: the director.
    stream = Stream(real_server.wire, (LOCAL[version], 5003), (SERVER[version], 80), tcp_option(*client))
    on_the_wire = f"[{LOCAL[6]}]:5003" if version == 6 else f"{LOCAL[4]}:5003"
    assert on_the_wire in sockets(real_server)
    stream.reset()


@families
def test_dnsmasq_answers_clients_that_it_sees(real_server: Site, version: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    real_server.attach()
    real_server.start(
        [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file",
            "--host-record=site.example,198.51.100.80",
            "--log-queries=extra",
            f"--log-facility={log}",
        ]
    )
    listening(real_server, 53)
    for number in range(20):
        local, client = (LOCAL[version], 5000 + number), (CLIENT[version], 1000 + number)
        question = query(number)
        real_server.wire.udp(local, (SERVER[version], 53), question, client)
        answer = real_server.wire.receive(frames.UDP, local, time.monotonic() + PATIENCE)
        assert answer, f"no answer to {local}"
        assert (answer.source, answer.sport) == (SERVER[version], 53)
        assert answer.payload[:2] == question[:2]
        assert answer.payload.endswith(bytes((198, 51, 100, 80)))
        assert f" {CLIENT[version]}/{1000 + number} query[A] site.example" in log.read_text()


def query(number: int) -> bytes:
    """A question for the address of site.example."""
    name = b"".join(bytes((len(label),)) + label for label in (b"site", b"example", b""))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)


def listening(site: Site, port: int) -> None:
    """Wait until somebody listens there over both families."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        text = sockets(site, "-l", "-u" if port == 53 else "-t")
        if f"{ANY[4]}:{port}" in text and f"[{ANY[6]}]:{port}" in text:
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


def sockets(site: Site, *options: str) -> str:
    process = site.start(["ss", "-n", "-a", *options])
    assert process.stdout
    return process.stdout.read()
