"""A node with nothing but our bfd child: prints its events as JSON lines; ends with its standard input.

``python -m tests.interop.bfd_node NAME,NEIGHBOR,SOURCE,MIN_TX,MIN_RX,MULTIPLIER ...``. A line of input
of the same form is a reload with those sessions.
"""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import ip_address

from xlvs.daemon.keepalived.bfd import BfdChild
from xlvs.daemon.keepalived.child import Context, Event
from xlvs.keepalived.config import Bfd, Config


def config(words: list[str]) -> Config:
    bfds = []
    for word in words:
        name, neighbor, source, min_tx, min_rx, multiplier = word.split(",")
        times = {"min_tx": float(min_tx), "min_rx": float(min_rx)}
        ends = {"neighbor": ip_address(neighbor), "source": ip_address(source)}
        bfds.append(Bfd(name, **ends, **times, multiplier=int(multiplier)))  # type: ignore[arg-type]
    return Config(bfds=tuple(bfds))


def emit(event: Event) -> None:
    print(json.dumps(event), flush=True)


async def main() -> None:
    child = BfdChild(Context(emit=emit))
    await child.start(config(sys.argv[1:]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if words := line.split():
            await child.reload(config(words))
        emit({"event": "sessions", **await child.ask({"command": "sessions"})})
    await child.stop()


if __name__ == "__main__":
    asyncio.run(main())
