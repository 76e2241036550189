"""`xlvs keepalived -T` and Debian's genhash, of the same pages."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from xlvs.cli import keepalived as command
from xlvs.errors import XlvsError


class Pages(BaseHTTPRequestHandler):
    """A page for every path, with a status of its own for /gone; with all that the request said."""

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        body = f"{self.path} {self.request_version} {host}\n".encode() * 50_000
        self.send_response(404 if self.path == "/gone" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody wants to know."""


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The options that name it."""
    made = HTTPServer(("127.0.0.1", 0), Pages)
    if request.param:
        files = ("-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/certificate")
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", *files)
        subprocess.run(("openssl", *words), check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
        made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield ["-s", "127.0.0.1", "-p", str(made.server_port), *(["-S"] if request.param else [])]
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("words", [("/",), ("/gone",), ("/", "-V", "shop.example"), ("/", "-P", "1.1")])
def test_digests_are_genhash_s(
    server: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*server, "-u", *words]
    real = subprocess.run(["keepalived", "-T", *options], check=True, capture_output=True, text=True)
    assert command.main(["-T", *options]) == 0
    assert capsys.readouterr().out.strip() == real.stdout.strip()


def test_a_page_that_is_not_there_is_no_digest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(XlvsError, match="Connection failed"):
        command.main(["--genhash", "-s", "127.0.0.1", "-p", "1", "-u", "/"])
    with pytest.raises(SystemExit):
        command.main(["-n", "-T"])
    assert "must be the first option" in capsys.readouterr().err
