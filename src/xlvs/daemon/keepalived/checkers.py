"""The ``checkers`` child: checks of real servers become rules of the data plane, scripts and mail.

Reports that come together are carried out together: first the rules, in one transaction, then
what is said, run and told, in keepalived's order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import cast

from xlvs.daemon.checks.files import read as read_file
from xlvs.daemon.checks.runner import Runner
from xlvs.daemon.checks.tls import Credentials
from xlvs.daemon.keepalived import orders, topology
from xlvs.daemon.keepalived.child import Context, Event
from xlvs.daemon.keepalived.outlet import Outlet
from xlvs.daemon.keepalived.ownership import Ownership
from xlvs.daemon.keepalived.pool import Action, Pool, Say, ServerKey, key_of, label, server_label
from xlvs.daemon.keepalived.rules import Rules
from xlvs.daemon.keepalived.suspension import Suspension
from xlvs.daemon.keepalived.synchronisation import Synchronisation
from xlvs.errors import XlvsError
from xlvs.health import files
from xlvs.health.checks import AnyCheck, FileCheck, MiscCheck
from xlvs.health.verdict import Health, Verdict, health
from xlvs.keepalived.config import Config, RealServer, VirtualServer

_REMEMBER = 1.0  # seconds between two records of what changed, for whoever comes after a kill
_AGAIN = 2.0  # seconds within which servers that a killed daemon had out are asked
_LITTLE = 0.02  # seconds of work that changes of rules may come to without a pause
_RETRY = 5.0  # seconds until rules that the engine refused are tried again

# What is the same of a virtual server before and after a reload.
PoolKey = Hashable
# One check of one real server: virtual server, real server, its class, and the how-many'th of that class.
CheckKey = tuple[PoolKey, ServerKey, str, int]

log = logging.getLogger(__name__)


class CheckersChild:
    """See :class:`xlvs.daemon.keepalived.child.Child`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pools: dict[PoolKey, Pool] = {}
        self._checks: dict[CheckKey, AnyCheck] = {}
        self._seen: set[CheckKey] = set()
        self._doubtful: set[CheckKey] = set()  # their server was down when a killed daemon left it
        self._dirty: dict[PoolKey, None] = {}
        self._actions: list[Action] = []
        self._flushing: asyncio.Handle | None = None
        self._work = 0.0  # seconds of the processor that the last change of rules took
        self._timer: asyncio.TimerHandle | None = None
        self._remembering: asyncio.TimerHandle | None = None
        self._unrecorded = False  # something has changed since
        self._config = Config()
        self._synchronisation = Synchronisation("checkers", context)

    # -- the child --------------------------------------------------------------------

    async def start(self, config: Config) -> None:
        """See the protocol: what a killed daemon left is taken over."""
        self._loop = asyncio.get_running_loop()
        path = self._context.state_path("checkers", config.globals.instance)
        self._rules = Rules(self._context.open_data_plane(), path)
        self._runner = Runner(self._report, label=self._name_check)
        self._outlet = Outlet(config.globals)
        self._suspension = Suspension(self._suspend)
        self._set_up(config)
        left = self._rules.take_over(flush=config.globals.lvs_flush)
        self._rules.set_timeouts(config.globals.lvs_timeouts)
        self._configure(config)
        if left:
            self._doubtful = self._left_out(left)
        self._doubtful |= self._down_by_file(self._checks)
        self._set_checks()
        for server in config.virtual_servers:
            pool = Pool(server, self._states(server))
            self._pools[pool_key(server)] = pool
            self._actions += pool.begin()
        self._restore(left.orders if left else {})
        self._own()
        self._rules.carry_out(self._pools.values(), self._now())
        self._suspension.watch(config.virtual_servers)
        self._finish()
        log.info("Startup complete")
        for real, virtual in self._labels.values():
            log.info("Activating healthchecker for service %s for VS %s", real, virtual)

    async def reload(self, config: Config) -> None:
        """See the protocol. A file of TLS that is no good leaves the ones before at work."""
        try:
            self._set_up(config)
        except XlvsError as error:
            log.error("%s", error)
        self._flush()
        known = self._checks.keys()
        old, self._pools = self._pools, {}
        self._configure(config)
        self._outlet.configure(config.globals)
        self._rules.set_timeouts(config.globals.lvs_timeouts)
        self._seen &= self._checks.keys()
        self._doubtful &= self._checks.keys()
        self._doubtful |= self._down_by_file(self._checks.keys() - known)
        self._set_checks()
        now = self._now()
        for server in config.virtual_servers:
            key = pool_key(server)
            states = self._states(server)
            pool = old.pop(key, None)
            if pool is None:
                self._pools[key] = pool = Pool(server, states)
                self._actions += pool.begin()
            else:
                self._pools[key] = pool
                self._actions += pool.reconfigured(server, states, now)
        for pool in old.values():
            self._actions += pool.end(removed=True)
        self._own()
        self._rules.carry_out(self._pools.values(), now)
        self._suspension.watch(config.virtual_servers)
        self._finish()
        log.info("Reload complete")

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """See the protocol. What an operator has been told is on record, too."""
        if self._unrecorded:
            self._remember()
        command = request.get("command")
        if command == "status":
            return topology.status(self._pools.values())
        if command == "servers":
            return {"virtual_servers": self._described()}
        if command == "data":
            return {"text": topology.dump(self._pools.values(), self._check_statuses())}
        if command == "stats":
            return {"text": topology.statistics(self._rules.entries())}
        if command in orders.ORDERS:
            return self._order(str(command), request)
        raise XlvsError(f"the checkers know no '{command}'")

    async def stop(self) -> None:
        """See the protocol: our services go, unless -I or lvs_flush_on_stop say otherwise."""
        await self._end(keep=self._context.options.keep_services)

    async def abandoned(self) -> None:
        """The parent died: leave the services to serve, for whoever is started next."""
        await self._end(keep=True, tell=False)

    def post(self, event: Event) -> None:
        """A BFD session went up or down."""
        if event.get("event") == "bfd":
            self._runner.bfd(str(event.get("name")), bool(event.get("up")))

    # -- what checks say ----------------------------------------------------------------

    def _report(self, name: Hashable, verdict: Verdict) -> None:
        del verdict  # it is among those that the server's health is made of
        if name not in self._checks:
            return
        key = name
        pool = self._pools.get(key[0])
        if pool is None:
            return
        # keepalived reads files before it begins: what they say first is no news.
        first = key not in self._seen and key[2] != FileCheck.__name__
        self._seen.add(key)
        member = pool.members[key[1]]
        before = (member.healthy, member.weight)
        state = self._health(key[0], member.real)
        actions = pool.heard(key[1], state, self._now(), first=first)
        if actions or before != (member.healthy, member.weight):
            self._changed(key[0], actions)

    def _changed(self, key: PoolKey, actions: Iterable[Action]) -> None:
        self._dirty[key] = None
        self._actions += actions
        if self._flushing is None:
            # Thousands that fail together are gathered, and checks have their turn in between.
            if self._work < _LITTLE:
                self._flushing = self._loop.call_soon(self._flush)
            else:
                self._flushing = self._loop.call_later(self._work, self._flush)

    def _flush(self, *, whole: bool = False) -> None:
        if self._flushing:
            self._flushing.cancel()
            self._flushing = None
        pools = [pool for key, pool in self._pools.items() if whole or key in self._dirty]
        self._dirty.clear()
        self._unrecorded = True  # and recorded before it is done, unless that was a moment ago
        if self._remembering is None:
            self._remember()
        begun = time.thread_time()
        self._rules.carry_out(pools, self._now(), whole=whole)
        self._work = time.thread_time() - begun
        self._finish()

    def _finish(self) -> None:
        """What follows the rules: actions, and the next moment at which something is due."""
        actions, self._actions = self._actions, []
        self._outlet.act(actions)
        now = self._now()
        due = [when for pool in self._pools.values() if (when := pool.deadline(now)) is not None]
        if self._rules.failed:
            due.append(now + _RETRY)
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(due), self._due) if due else None

    def _due(self) -> None:
        """A drained server's time is up, or what was refused is tried again."""
        self._timer = None
        failed = self._rules.failed
        for key, pool in self._pools.items():
            if pool.server.drain_limit or pool.label in failed:
                self._dirty[key] = None
        self._flush(whole="" in failed)

    # -- checks and states ----------------------------------------------------------------

    def _set_up(self, config: Config) -> None:
        """What global_defs say of all checks. Raises XlvsError where a file of TLS is no good."""
        defs = config.globals
        self._runner.secure, self._runner.log_all = defs.script_security, defs.checker_log_all_failures
        self._runner.credentials = Credentials(defs.ca, defs.certificate, defs.key, defs.password)

    def _configure(self, config: Config) -> None:
        self._config = config
        self._synchronisation.follow(config)
        self._checks = checks_of(config)
        self._labels = {
            (pool_key(server), key_of(real), *kind): (server_label(server, real), label(server))
            for server in self._config.virtual_servers
            for real in server.servers
            for kind in _kinds(real)
        }

    def _set_checks(self) -> None:
        checks: dict[Hashable, AnyCheck] = dict(self._checks.items())
        for key in self._doubtful:
            check = self._checks[key]
            checks[key] = replace(check, alpha=True, warmup=min(check.warmup, _AGAIN))
        self._runner.set(checks, {file.name: file.file for file in self._config.files})

    def _health(self, key: PoolKey, real: RealServer) -> Health:
        names = [(key, key_of(real), *rest) for rest in _kinds(real)]
        return health(real.weight, (self._runner.status(name).verdict for name in names))

    def _states(self, server: VirtualServer) -> dict[ServerKey, Health]:
        key = pool_key(server)
        return {key_of(real): self._health(key, real) for real in server.servers}

    def _left_out(self, left: Ownership) -> set[CheckKey]:
        """Checks of servers that a killed daemon had taken out: they begin as down."""
        return {key for key, (real, virtual) in self._labels.items() if (virtual, real) in left.down}

    def _down_by_file(self, keys: Iterable[CheckKey]) -> set[CheckKey]:
        """Those of these checks whose file says down already: so does keepalived begin with them."""
        paths = {file.name: file.file for file in self._config.files}
        found: set[CheckKey] = set()
        for key in keys:
            check = self._checks[key]
            if isinstance(check, FileCheck):
                path = paths.get(check.track_file)
                value = read_file(path) if path else None
                if value is not None and not files.answer(check, value).ok:
                    found.add(key)
        return found

    def _own(self) -> None:
        self._rules.own(self._pools.values())

    def _remember(self) -> None:
        if self._remembering:
            self._remembering.cancel()
            self._remembering = None
        if self._unrecorded:
            self._unrecorded = False
            self._rules.remember(self._pools.values())
            self._remembering = self._loop.call_later(_REMEMBER, self._remember)

    def _name_check(self, name: Hashable) -> str:
        key = cast("CheckKey", name)
        real, virtual = self._labels[key]
        return f"{real} VS {virtual}" if key[2] == MiscCheck.__name__ else real  # as keepalived does

    # -- operators ------------------------------------------------------------------------

    def _order(self, command: str, request: Mapping[str, object]) -> Mapping[str, object]:
        found = orders.find(self._pools, request)
        for key, server in found:
            pool = self._pools[key]
            member = pool.members[server]
            order = orders.ORDERS[command]
            if member.order != order:
                text = f"Operator: {command} service {pool.name(member.real)} of VS {pool.label}"
                self._changed(key, [Say(text), *pool.ordered(server, order, self._now())])
        self._flush()
        self._own()
        return {"changed": [orders.described(self._pools[key], server) for key, server in found]}

    def _restore(self, given: Mapping[tuple[str, str], str]) -> None:
        for pool in self._pools.values():
            for key, member in pool.members.items():
                order = given.get((pool.label, pool.name(member.real)), "")
                if order:
                    self._actions += pool.ordered(key, order, self._now())

    def _described(self) -> list[dict[str, object]]:
        return [
            topology.describe(
                pool, {each: self._status_of(key, pool, each) for each in pool.members}, self._now()
            )
            for key, pool in self._pools.items()
        ]

    def _check_statuses(self) -> dict[str, list[topology.CheckStatus]]:
        return {
            f"{pool.label} -> {pool.name(pool.members[server].real)}": self._status_of(key, pool, server)
            for key, pool in self._pools.items()
            for server in pool.members
        }

    def _status_of(self, key: PoolKey, pool: Pool, server: ServerKey) -> list[topology.CheckStatus]:
        real = pool.members[server].real
        return [(kind, self._runner.status((key, server, kind, number))) for kind, number in _kinds(real)]

    def _suspend(self, asleep: Iterable[VirtualServer]) -> None:
        """ha_suspend: checks of virtual servers whose addresses are not ours rest."""
        keys = {pool_key(server) for server in asleep}
        self._runner.pause({key for key in self._checks if key[0] in keys})

    # -- the end --------------------------------------------------------------------------

    async def _end(self, *, keep: bool, tell: bool = True) -> None:
        self._runner.stop()
        self._suspension.close()
        for handle in (self._timer, self._flushing, self._remembering):
            if handle:
                handle.cancel()
        if keep:
            self._rules.remember(self._pools.values())
        else:
            self._rules.clear(everything=self._config.globals.lvs_flush_on_stop == "all")
        if tell:
            await self._synchronisation.close()
            for pool in self._pools.values():
                self._actions += pool.end()
        self._outlet.act(self._actions)
        self._actions = []
        await self._outlet.close()

    def _now(self) -> float:
        return self._loop.time()


def pool_key(server: VirtualServer) -> PoolKey:
    """What makes it the same virtual server: its group, or its addresses, and the protocol."""
    return (server.group or server.vips, server.protocol)


def checks_of(config: Config) -> dict[CheckKey, AnyCheck]:
    """Every check of every real server, by a name that a reload leaves the same."""
    return {
        (pool_key(server), key_of(real), kind, number): check
        for server in config.virtual_servers
        for real in server.servers
        for (kind, number), check in zip(_kinds(real), real.checks, strict=True)
    }


def _kinds(real: RealServer) -> list[tuple[str, int]]:
    """For each check of a server its class, and how many of that class come before it."""
    found: list[tuple[str, int]] = []
    for check in real.checks:
        kind = type(check).__name__
        found.append((kind, sum(1 for other, _ in found if other == kind)))
    return found
