"""The vrrp child of ``xlvs keepalived`` alone: ``python -m tests.interop.vrrp.node FILE``.

SIGHUP reads FILE again, SIGTERM ends; SIGUSR1 writes all instances as JSON to FILE.state.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys

from xlvs.daemon.keepalived.child import Context
from xlvs.daemon.vrrp.child import VrrpChild
from xlvs.keepalived.config import Config
from xlvs.keepalived.parse import parse


def read(path: str) -> Config:
    """The configuration; anything that the parser has to say is an error here."""
    outcome = parse(path)
    assert outcome.config is not None, outcome.messages
    return outcome.config


async def main(path: str) -> None:
    """Run until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    child = VrrpChild(Context())

    async def tell() -> None:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump(await child.ask({"command": "instances"}), file)
        os.rename(f"{path}.new", f"{path}.state")

    tasks = set()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.add(loop.create_task(tell())))
    loop.add_signal_handler(signal.SIGHUP, lambda: tasks.add(loop.create_task(child.reload(read(path)))))
    await child.start(read(path))
    print("started", flush=True)
    await ended.wait()
    await child.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main(sys.argv[1]))
