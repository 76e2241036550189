"""A child that does nothing but note what happens to it: for the parent's tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from xlvs.daemon.keepalived import child, process
from xlvs.daemon.keepalived.child import Context, Event
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config


class Toy:
    """Its notes are a file that is named by the environment; "bad" as router_id cannot be run."""

    def __init__(self, context: Context) -> None:
        self._emit = context.emit
        self._heard: list[Event] = []
        self._config = Config()

    async def start(self, config: Config) -> None:
        if config.globals.router_id == "bad":
            raise XlvsError("it cannot be")
        self._config = config
        note(f"start {config.globals.router_id}")

    async def reload(self, config: Config) -> None:
        self._config = config
        note(f"reload {config.globals.router_id}")

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        match request.get("command"):
            case "instances":
                return {"heard": self._heard, "router_id": self._config.globals.router_id}
            case "force":
                self._emit({"event": "toy", "name": str(request.get("instance")), "up": True})
                return {}
            case "servers":
                return {"heard": self._heard}
            case "drain":
                raise RuntimeError("a fault of its own")
            case "status":
                return {"fine": True}
            case "data" | "stats":
                return {"text": f"{request['command']}\n"}
        raise XlvsError("never heard of it")

    async def stop(self) -> None:
        note("stop")

    async def abandoned(self) -> None:
        note("abandoned")

    def post(self, event: Event) -> None:
        self._heard.append(event)


def note(text: str) -> None:
    with open(os.environ["TOY_NOTES"], "a", encoding="utf-8") as file:
        file.write(f"{sys.argv[1]} {text}\n")


if __name__ == "__main__":
    name, descriptor = sys.argv[1:]
    child.CHILDREN = dict.fromkeys(child.CHILDREN, "tests.unit.toy_child:Toy")
    sys.exit(process.serve(name, int(descriptor), Context()))
