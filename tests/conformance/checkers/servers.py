"""Real servers for the events: each address answers on port 80 as its file in /tmp/web says.

``200`` and ``500`` are HTTP's answers, ``hang`` accepts and says nothing, ``off`` refuses.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

STATES = Path("/tmp/web")
_NAMES = {"200": "OK", "500": "Internal Server Error"}


async def serve(address: str) -> None:
    """Be one of them, for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        state = read(address)
        if state not in _NAMES:
            return
        head = f"HTTP/1.0 {state} {_NAMES[state]}\r\nContent-Length: 2\r\n\r\n"
        writer.write(head.encode() + b"x\n")
        writer.close()

    server: asyncio.Server | None = None
    while True:
        if read(address) == "off":
            if server:
                server.close()
                server = None
        elif server is None:
            server = await asyncio.start_server(answer, address, 80)
        await asyncio.sleep(0.1)


def read(address: str) -> str:
    """What an address is to do."""
    return (STATES / address).read_text().strip()


async def main() -> None:
    """Be all of them."""
    await asyncio.gather(*map(serve, sys.argv[1:]))


asyncio.run(main())
