"""``xlvs keepalived -T`` (genhash): the digest that HTTP_GET and SSL_GET compare, of a page as it is now."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address

from xlvs.daemon.checks.sockets import Unasked, prepared
from xlvs.daemon.checks.tls import Credentials, context
from xlvs.errors import XlvsError
from xlvs.health.answers import Answer
from xlvs.health.checks import HttpCheck, Url
from xlvs.health.http import HttpDialogue

_PIECE = 1 << 16
_PROTOCOLS = ("1.0", "1.0c", "1.1")
_TIMEOUT = 5.0  # seconds


def main(arguments: Sequence[str]) -> int:
    """Run it: prints the digest, and gives 0; raises :class:`XlvsError` where there is no answer."""
    chosen = _parser().parse_args(arguments)
    begun = time.monotonic()
    digest = digest_of(check_of(chosen), chosen.use_virtualhost if chosen.use_sni else None)
    print(digest)
    if chosen.verbose:
        taken = 1_000_000 * (time.monotonic() - begun)
        print(f"Global response time for [{chosen.url}] = {taken:.0f} usecs", file=sys.stderr)
    return 0


def digest_of(check: HttpCheck, name: str | None = None) -> str:
    """The MD5 of a page, in hexadecimal, whatever its status; ``name`` is for SNI."""
    dialogue = HttpDialogue(check, check.urls[0])
    try:
        with prepared(check, socket.SOCK_STREAM) as plain:
            plain.settimeout(check.timeout)
            plain.connect((str(check.address), check.port))
            if check.tls:
                with context(Credentials()).wrap_socket(plain, server_hostname=name) as secure:
                    _talk(secure, dialogue)
            else:
                _talk(plain, dialogue)
    except OSError as error:
        raise XlvsError(f"Connection failed: {error.strerror or error}") from None
    except Unasked as refusal:
        raise XlvsError(f"Connection failed: {refusal}") from None
    if not dialogue.status:
        raise XlvsError("no answer in HTTP")
    return dialogue.digest


def check_of(chosen: argparse.Namespace) -> HttpCheck:
    """The check that would ask for it, as the command line says."""
    # Any digest: that has it counted.
    url = Url(path=chosen.url, digest="?", virtualhost=chosen.use_virtualhost)
    return HttpCheck(
        address=chosen.server,
        port=chosen.port,
        urls=(url,),
        tls=chosen.use_ssl,
        sni=chosen.use_sni,
        protocol=chosen.protocol.upper(),
        fwmark=chosen.fwmark,
        timeout=chosen.timeout,
    )


def _talk(connection: socket.socket, dialogue: HttpDialogue) -> None:
    request = dialogue.opened()
    assert isinstance(request, bytes)
    connection.sendall(request)
    while data := connection.recv(_PIECE):
        if isinstance(dialogue.received(data), Answer):
            return
    dialogue.ended()


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="xlvs keepalived -T", description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add("-s", "--server", metavar="ADDRESS", type=ip_address, required=True)
    add("-p", "--port", type=_port, required=True)
    add("-u", "--url", metavar="PATH", required=True, help="of the page, with its /")
    add("-S", "--use-ssl", action="store_true")
    add("-I", "--use-sni", action="store_true", help="the virtual host is the name of TLS, too")
    add("-V", "--use-virtualhost", metavar="NAME", help="the request's Host")
    add("-P", "--protocol", choices=_PROTOCOLS, default="1.0", help="of HTTP; 1.0c: with Connection: close")
    add("-m", "--fwmark", metavar="MARK", type=int, default=0)
    add("-t", "--timeout", metavar="SECONDS", type=float, default=_TIMEOUT)
    add("-v", "--verbose", action="store_true", help="how long it took, too")
    return made


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 1 << 16:
        raise ValueError(text)
    return number
