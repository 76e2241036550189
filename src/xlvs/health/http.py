"""HTTP_GET and SSL_GET: one request, and what its answer must be."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from xlvs.health.answers import Answer
from xlvs.health.checks import HttpCheck, Url
from xlvs.health.regex import compiled

if TYPE_CHECKING:
    import h11

_BLANK = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"\S+ +(\d{3})[ \r]")
_HEAD = 64 * 1024  # bytes: a longer status line with headers is refused
_BODY = 4 * 1024 * 1024  # bytes of a body that a regex is searched in; a digest has no such limit


def request(check: HttpCheck, url: Url) -> bytes:
    """The request as keepalived writes it, to the byte: servers may tell checks by it."""
    host = url.virtualhost
    if host is None:
        address = f"[{check.address}]" if check.address.version == 6 else str(check.address)
        host = f"{address}:{check.port}"
    version = "1.1" if check.protocol == "1.1" else "1.0"
    close = "Connection: close\r\n" if check.protocol != "1.0" else ""
    return (
        f"GET {url.path} HTTP/{version}\r\nUser-Agent: KeepAliveClient\r\n{close}Host: {host}\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


class HttpDialogue:
    """GET and its answer. The digest is of the body's bytes as they came, as genhash has it.

    (So the framing of a chunked body counts in it, as it does for keepalived.)
    """

    def __init__(self, check: HttpCheck, url: Url) -> None:
        import h11

        self._url = url
        self._request = request(check, url)
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        # What h11 has to know of the request: how the body of its answer ends.
        head = [("Host", "x")]
        self._connection.send(h11.Request(method="GET", target="/", headers=head))
        self._connection.send(h11.EndOfMessage())
        self._status: int | None = None
        self._heard = 0
        self._head = bytearray()
        self._digest = hashlib.md5(usedforsecurity=False) if url.digest else None
        self._body = bytearray()
        self._search = compiled(url.regex, url.regex_options) if url.regex else None

    @property
    def status(self) -> int:
        """Of the answer; 0 before it came."""
        return self._status or 0

    @property
    def digest(self) -> str:
        """Of what came of the body, in hexadecimal; "" where none is to be compared."""
        return self._digest.hexdigest() if self._digest is not None else ""

    def opened(self) -> bytes | Answer:
        return self._request

    def received(self, data: bytes) -> bytes | Answer:
        import h11

        if self._status is None:
            self._head += data
        else:
            self._take(data)
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return b""
                if isinstance(event, h11.InformationalResponse):
                    self._head = bytearray(_behind_head(self._head))
                if isinstance(event, h11.Response):
                    self._begin(event.status_code)
                if isinstance(event, h11.EndOfMessage):
                    return self._judge()
        except h11.RemoteProtocolError as error:
            # Framing is between the server and its clients: what came until the end counts.
            return b"" if self._status is not None else self._forgiven(error)

    def ended(self, *, reset: bool = False) -> Answer:
        return Answer(False, "Read error with") if reset else self._judge()

    def _forgiven(self, error: h11.RemoteProtocolError) -> bytes | Answer:
        """A head that is not as it should be: keepalived looks at its status alone, and so do we."""
        found = _STATUS.match(self._head)
        if found is None or not _BLANK.search(self._head):
            return Answer(False, f"Read, no HTTP from ({error})")
        self._begin(int(found[1]))
        return b""

    def _begin(self, status: int) -> None:
        """The head is whole: what was heard behind it begins the body."""
        self._status = status
        self._take(_behind_head(self._head))
        self._head.clear()

    def _take(self, data: bytes) -> None:
        if self._digest is not None:
            self._digest.update(data)
        if self._search is not None and len(self._body) < _BODY:
            self._body += data

    def _judge(self) -> Answer:
        url = self._url
        if self._status is None:
            return Answer(False, "Read, no data received from")
        if not any(low <= self._status <= high for low, high in url.statuses):
            return Answer(False, f"HTTP status code error to (status {self._status})")
        if self._digest is not None and self._digest.hexdigest() != (url.digest or "").lower():
            return Answer(False, "MD5 digest error to")
        if self._search is not None:
            found = self._search(bytes(self._body), url.regex_min_offset, url.regex_max_offset)
            if found == url.regex_no_match:
                return Answer(False, "Regex match failed")
        return Answer(True, f"HTTP status code {self._status}")


def _behind_head(heard: bytearray) -> bytes:
    """What follows the blank line, however lines end."""
    found = _BLANK.search(heard, len(heard) - len(heard.lstrip(b"\r\n")))
    return bytes(heard[found.end() :]) if found else b""
