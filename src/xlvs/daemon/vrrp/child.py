"""The ``vrrp`` child itself: what the parent and operators ask of it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Mapping

from xlvs.daemon.keepalived.child import Context, Event
from xlvs.daemon.keepalived.synchronisation import Synchronisation
from xlvs.daemon.vrrp import report
from xlvs.daemon.vrrp.runtime import Runtime
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config
from xlvs.vrrp.commands import State
from xlvs.vrrp.settings import TrackKind

_FORCED = {"master": State.MASTER, "backup": State.BACKUP}

log = logging.getLogger(__name__)


class VrrpChild:
    """:class:`xlvs.daemon.keepalived.child.Child` for VRRP."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runtime: Runtime | None = None
        self._delayed: asyncio.TimerHandle | None = None
        self._bfds: dict[str, bool] = {}
        self._synchronisation = Synchronisation("vrrp", context)

    async def start(self, config: Config) -> None:
        """Begin, after ``vrrp_startup_delay``."""
        self._runtime = Runtime(config, self._emit)
        self._synchronise()
        delay = config.globals.vrrp_startup_delay
        if delay:
            log.info("Delaying startup for %g seconds", delay)
            self._delayed = asyncio.get_running_loop().call_later(delay, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._delayed = None
        assert self._runtime is not None
        self._runtime.start()
        # What is here stays: later collections look at what is new only, and are over in microseconds.
        gc.collect()
        gc.freeze()

    async def reload(self, config: Config) -> None:
        """Go on with another configuration."""
        runtime = self._running()
        if self._delayed is not None:
            self._delayed.cancel()
            await runtime.stop()
            await self.start(config)
            return
        runtime.reload(config)
        self._synchronise()

    async def stop(self) -> None:
        """Give way, and clean up."""
        if self._delayed is not None:
            self._delayed.cancel()
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.stop(keep_addresses=self._context.options.keep_addresses)
        await self._synchronisation.close()

    def post(self, event: Event) -> None:
        """Hear of BFD sessions."""
        if event.get("event") == "bfd" and self._runtime is not None:
            self._runtime.report(TrackKind.BFD, str(event["name"]), int(bool(event["up"])))

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer ``status``, ``instances``, ``export``, ``data``, ``stats`` and ``force``."""
        runtime = self._running()
        match request.get("command"):
            case "status":
                return report.status(runtime)
            case "instances":
                return report.instances(runtime)
            case "export":
                return report.export(runtime)
            case "data":
                return {"text": report.data(runtime)}
            case "stats":
                return {"text": report.stats(runtime)}
            case "force":
                return self._force(runtime, str(request.get("instance")), str(request.get("state")).lower())
        raise XlvsError(f"vrrp knows no command {request.get('command')}")

    def _force(self, runtime: Runtime, name: str, state: str) -> Mapping[str, object]:
        if name not in runtime.router.machines:
            raise XlvsError(f"no such instance: {name}")
        if state not in _FORCED:
            raise XlvsError(f"an instance can be forced to be master or backup, not {state}")
        machine = runtime.router.machines[name]
        if machine.state not in (State.MASTER, State.BACKUP):
            why = ", ".join(sorted(machine.faults)) or "it has not begun yet"
            raise XlvsError(f"{name} is in state {machine.state.value}: {why}")
        runtime.run(runtime.router.force(name, _FORCED[state], runtime.now))
        return {"instance": name, "state": machine.state.value}

    def _emit(self, event: Event) -> None:
        self._context.emit(event)
        self._synchronise()

    def _synchronise(self) -> None:
        runtime = self._runtime
        if runtime is not None:
            settings = runtime.config.globals.lvs_sync_daemon
            machine = runtime.router.machines.get(settings.instance) if settings else None
            master = machine is not None and machine.state is State.MASTER
            self._synchronisation.follow(runtime.config, master=master)

    def _running(self) -> Runtime:
        if self._runtime is None:
            raise XlvsError("vrrp is not running")
        return self._runtime
