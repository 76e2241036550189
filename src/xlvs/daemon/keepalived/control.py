"""The local control socket: a line of JSON is asked, a line of JSON answers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from xlvs.dataplane import pins
from xlvs.errors import XlvsError

_LONGEST = 1 << 16  # bytes of a question
_PATIENCE = 60.0  # seconds for an answer, and for a question

Asked = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]

log = logging.getLogger(__name__)


def default_path(instance: str | None = None) -> str:
    """Where the daemon of this network namespace listens; ``instance`` as in global_defs."""
    suffix = f".{instance}" if instance else ""
    return f"{pins.run_folder()}/{pins.netns_cookie():016x}.keepalived{suffix}"


class Control:
    """The daemon's end. Only the file's owner, root, may connect."""

    def __init__(self, path: str, asked: Asked) -> None:
        self._path = path
        self._asked = asked
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a socket that a killed daemon left is replaced."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LONGEST)
        except OSError as error:
            log.warning("no control socket at %s: %s", self._path, error.strerror)
        finally:
            os.umask(before)

    def close(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await asyncio.wait_for(reader.readline(), _PATIENCE):
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), _PATIENCE)
        except (OSError, ValueError):  # TimeoutError is one
            pass  # it hung up, sleeps, or sent a line without end
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, object]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise XlvsError("a request is a JSON object")
            return {"answer": await self._asked(request)}
        except XlvsError as error:
            return {"error": str(error)}
        except (ValueError, RecursionError):
            return {"error": "a request is a line of JSON"}


def ask(path: str, request: Mapping[str, object]) -> dict[str, object]:
    """Ask the daemon; raises :class:`XlvsError` for its refusals, and where it does not run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline() or b"{}")
        except (FileNotFoundError, ConnectionRefusedError):
            raise XlvsError("xlvs keepalived does not run in this network namespace") from None
        except (OSError, ValueError) as error:
            raise XlvsError(f"xlvs keepalived does not answer: {error}") from None
    if "error" in answer or "answer" not in answer:
        raise XlvsError(str(answer.get("error", "xlvs keepalived hung up")))
    content = answer["answer"]
    assert isinstance(content, dict)
    return content
