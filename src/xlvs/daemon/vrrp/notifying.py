"""What the outside is told of changes of state: scripts and fifos, in keepalived's order and words."""

from __future__ import annotations

import asyncio
import logging

from xlvs.daemon.keepalived import mail, scripts
from xlvs.daemon.keepalived.fifo import NotifyFifo
from xlvs.daemon.tasks import Tasks
from xlvs.health.checks import Script
from xlvs.keepalived.config import Config, Fifo, Notify
from xlvs.vrrp.commands import Event
from xlvs.vrrp.router import Router

log = logging.getLogger(__name__)

# The script of its own that each event has.
_SCRIPTS = {
    Event.MASTER: "master",
    Event.BACKUP: "backup",
    Event.FAULT: "fault",
    Event.STOP: "stop",
    Event.DELETED: "deleted",
    Event.MASTER_RX_LOWER_PRI: "master_rx_lower_pri",
}
_OF_STATES = (Event.MASTER, Event.BACKUP, Event.FAULT, Event.STOP, Event.DELETED)


class Notifier:
    """Runs scripts and writes to the fifos; nobody waits for a script."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._secure = config.globals.script_security
        self._fifos: dict[str, NotifyFifo] = {}
        self._running = Tasks()
        self._told: set[tuple[bool, str]] = set()  # who had an event before
        self._readers: dict[str, asyncio.Task[int]] = {}
        self.load(config)

    def load(self, config: Config) -> None:
        """Go on with another configuration: its scripts and fifos."""
        self.config = config
        self._secure = config.globals.script_security
        self._notifies: dict[tuple[bool, str], Notify] = {
            **{(False, one.name): one.notify for one in config.instances},
            **{(True, one.name): one.notify for one in config.groups},
        }
        # The common fifo has its reader from the parent: several children write to it.
        wanted = {fifo.path: fifo for fifo in (config.globals.fifo, config.globals.vrrp_fifo) if fifo}
        for path in set(self._fifos) - set(wanted):
            self._fifos.pop(path).close()
        for path in wanted:
            if path not in self._fifos:
                self._fifos[path] = NotifyFifo(path)
        own = config.globals.vrrp_fifo
        if own is not None and own.script is not None and own.path in self._fifos:
            self._start_reader(own)

    def _start_reader(self, fifo: Fifo) -> None:
        assert fifo.script is not None
        if fifo.path not in self._readers or self._readers[fifo.path].done():
            self._readers[fifo.path] = asyncio.get_running_loop().create_task(
                scripts.run(fifo.script, fifo.path, secure=self._secure)
            )

    async def close(self, patience: float = 1.0) -> None:
        """Let scripts that are running go on, end the fifos' readers, close the fifos."""
        await asyncio.sleep(0)  # those just asked for are started
        if self._running:
            await asyncio.wait(self._running, timeout=patience)
        for reader in self._readers.values():
            reader.cancel()
        await asyncio.gather(*self._readers.values(), return_exceptions=True)
        for fifo in self._fifos.values():
            fifo.close()
        self._fifos.clear()

    # -- telling ------------------------------------------------------------------------

    def notify(self, name: str, event: Event, priority: int, group: bool) -> None:
        """Tell of an instance's (or a group's) event."""
        chosen = self._notifies.get((group, name), Notify())
        kind = "GROUP" if group else "INSTANCE"
        number = "0" if group else str(priority)
        attribute = _SCRIPTS.get(event)
        own: Script | None = getattr(chosen, attribute) if attribute else None
        if own is not None:
            self._running.start(scripts.run(own, secure=self._secure))
        if chosen.any is not None and event in _OF_STATES:
            self._running.start(scripts.run(chosen.any, kind, name, event.value, number, secure=self._secure))
        self._write(f'{kind} "{name}" {event.value} {number}')
        if chosen.smtp_alert and event in (Event.MASTER, Event.BACKUP, Event.FAULT):
            self._alert(name, event, group)
        self._told.add((group, name))

    def _alert(self, name: str, event: Event, group: bool) -> None:
        """The mail about a state; there is none about beginning as backup."""
        if event is Event.BACKUP and (group, name) not in self._told:
            return
        if group:
            subject = f"VRRP Group {name} - Entering {event.value} state"
            body = f"=> All VRRP group instances are now in {event.value} state <="
        else:
            subject = f"VRRP Instance {name} - Entering {event.value} state"
            owning = "now" if event is Event.MASTER else "no longer"
            body = f"=> VRRP Instance is {owning} owning VRRP VIPs <="
        settings = self.config.globals
        self._running.start(mail.send(settings.mail, settings.router_id, subject, f"{body}\n\n"))

    def tell_all(self, router: Router) -> None:
        """Write every state to the fifos (fifo_write_vrrp_states_on_reload)."""
        for name, group in router.groups.items():
            self._write(f'GROUP "{name}" {group.state.value} 0')
        for name, machine in router.machines.items():
            self._write(f'INSTANCE "{name}" {machine.state.value} {machine.priority}')

    def _write(self, text: str) -> None:
        for fifo in self._fifos.values():
            fifo.tell(text)
