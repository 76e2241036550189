"""lvs_sync_daemon: the kernel's own connection synchronisation, in the role that VRRP's state asks for.

As keepalived 2.2.7 has it (tests/conformance/checkers): with an instance's name the master daemon
while that instance is MASTER, and else the backup daemon; without one both, all the time. The end of
keepalived ends them, with -I and -V, too. Where VRRP runs it is VRRP's to do, else the checkers'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from xlvs.daemon.keepalived.child import Context, wanted_children
from xlvs.dataplane.port import DataPlane, Transaction
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config
from xlvs.model import SyncDaemon

# What the kernel takes where nothing is said.
_GROUP, _PORT, _TTL = bytes((224, 0, 0, 81)), 8848, 1
_LEAST_OF_BACKUP = 1024  # bytes: the kernel takes no smaller messages for a backup

log = logging.getLogger(__name__)


def daemons(config: Config, *, master: bool) -> tuple[SyncDaemon, ...]:
    """The daemons that shall run; ``master``: the instance that is named is MASTER."""
    settings = config.globals.lvs_sync_daemon
    if settings is None:
        return ()
    identity = settings.id or 0
    roles: tuple[str, ...] = ("master", "backup")
    if settings.instance:
        named = [one for one in config.instances if one.name == settings.instance]
        if not named:
            return ()
        identity = named[0].router_id if settings.id is None else settings.id
        roles = ("master",) if master else ("backup",)
    group = settings.group.packed if settings.group else b""
    return tuple(
        SyncDaemon(role, settings.interface, identity, settings.maxlen, group, settings.port, settings.ttl)
        for role in roles
    )


class Synchronisation:
    """One child's hold on the daemons, where they are this child's. Changes are made beside its loop."""

    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._options = context.options
        self._open = context.open_data_plane
        self._plane: DataPlane | None = None
        self._wanted: tuple[SyncDaemon, ...] = ()
        self._asked: dict[str, SyncDaemon] = {}
        self._told = ""
        self._worker = ThreadPoolExecutor(1)  # in order, and a failover does not wait for the kernel

    def follow(self, config: Config, *, master: bool = False) -> None:
        """The configuration is this now, and the instance that is named is MASTER or not."""
        if not self._ours(config):
            self._wanted = ()  # whoever has them now sees to what runs
            return
        wanted = daemons(config, master=master)
        trouble = self._trouble(config, wanted)
        if trouble and trouble != self._told:
            log.warning("%s", trouble)
        self._told = trouble
        if wanted != self._wanted and self._options.engine == "kernel":
            self._wanted = wanted
            self._worker.submit(self._carry_out, wanted)

    async def close(self) -> None:
        """End what runs of ours."""
        if self._wanted:
            self._wanted = ()
            await asyncio.wrap_future(self._worker.submit(self._carry_out, ()))
        self._worker.shutdown()

    def _ours(self, config: Config) -> bool:
        children = wanted_children(config, self._options.children, everything=self._options.everything)
        if "vrrp" in children:
            return self._name == "vrrp"
        settings = config.globals.lvs_sync_daemon
        return settings is None or not settings.instance

    def _trouble(self, config: Config, wanted: Collection[SyncDaemon]) -> str:
        """What keeps connections from being synchronised."""
        settings = config.globals.lvs_sync_daemon
        if settings is None:
            return ""
        if self._options.engine != "kernel":
            return "lvs_sync_daemon: xlvs's own engine does not synchronise connections yet"
        missing = (
            f"Unable to find vrrp instance {settings.instance} for lvs_sync_daemon: nothing is synchronised"
        )
        return "" if wanted else missing

    # -- in the worker's thread -----------------------------------------------------------

    def _carry_out(self, wanted: Collection[SyncDaemon]) -> None:
        try:
            self._plane = plane = self._plane or self._open()
            running = {one.role: one for one in plane.daemons()}
        except (XlvsError, OSError) as error:
            log.error("IPVS: lvs_sync_daemon: %s", error)
            return
        stay = {one.role for one in wanted if one.role in running and self._stays(one, running[one.role])}
        for role in running.keys() - stay:
            _try(plane, f"ending the {role} sync daemon", partial(_stop, role))
            self._asked.pop(role, None)
        for one in wanted:
            text = f"starting the {one.role} sync daemon on {one.interface}"
            if one.role not in stay and _try(plane, text, partial(_start, one)):
                self._asked[one.role] = one

    def _stays(self, wanted: SyncDaemon, there: SyncDaemon) -> bool:
        return self._asked.get(wanted.role, wanted) == wanted and _as_wanted(wanted, there)


def _as_wanted(wanted: SyncDaemon, there: SyncDaemon) -> bool:
    """Whether one that runs is what this would be. The greatest message is the device's unless given."""
    least = _LEAST_OF_BACKUP if wanted.role == "backup" else 0
    return (
        (wanted.interface, wanted.syncid) == (there.interface, there.syncid)
        and (wanted.group or _GROUP, wanted.port or _PORT, wanted.ttl or _TTL)
        == (there.group or _GROUP, there.port or _PORT, there.ttl or _TTL)
        and (not wanted.maxlen or max(wanted.maxlen, least) == there.maxlen)
    )


def _start(daemon: SyncDaemon, change: Transaction) -> None:
    change.start_daemon(daemon)


def _stop(role: str, change: Transaction) -> None:
    change.stop_daemon(role)


def _try(plane: DataPlane, what: str, change: Callable[[Transaction], None]) -> bool:
    try:
        with plane.transaction() as transaction:
            change(transaction)
    except (XlvsError, OSError) as error:
        log.error("IPVS: %s: %s", what, error)
        return False
    return True
