"""The checkers' hold on the data plane: what is theirs there, and how it comes to be as wanted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from xlvs.daemon.keepalived import ownership, services
from xlvs.daemon.keepalived.carry import carry_out
from xlvs.daemon.keepalived.ownership import Ownership
from xlvs.daemon.keepalived.pool import Pool
from xlvs.dataplane.port import DataPlane
from xlvs.errors import XlvsError
from xlvs.model import ServiceEntry, ServiceKey, Timeouts
from xlvs.reconcile import Wanted, difference

_FEW = 16  # services up to which each is asked for alone

log = logging.getLogger(__name__)


class Rules:
    """Services of ours in a data plane. ``path`` is the file that tells others of them.

    ``failed`` names the virtual servers whose rules the engine refused, with the reason.
    """

    def __init__(self, plane: DataPlane, path: str) -> None:
        self._plane = plane
        self._path = path
        self._ours = Ownership()
        self._fresh: ownership.Owned = {}  # what the present configuration makes ours
        self.failed: dict[str, str] = {}
        self._unrecorded = ""

    def take_over(self, *, flush: bool) -> Ownership | None:
        """Own what a killed daemon left, and give that; with ``flush`` own all that is there."""
        left = ownership.read(self._path)
        if left:
            self._ours = Ownership(
                {key: set(names) for key, names in left.owned.items()}, left.orders, left.down
            )
        if flush:
            for entry in self._plane.services():
                names = {one.destination.key for one in entry.destinations}
                self._ours.owned.setdefault(entry.service.key, set()).update(names)
        return left

    def own(self, pools: Collection[Pool]) -> None:
        """From now on all that these virtual servers may ever want is ours, too, and on record."""
        self._fresh = {}
        for pool in pools:
            sorry = (pool.server.sorry,) if pool.server.sorry else ()
            for vip in pool.server.vips:
                key = services.key_of(pool.server, vip)
                names = {services.destination_key(real, vip) for real in (*pool.server.servers, *sorry)}
                self._fresh[key] = self._fresh.get(key, set()) | names
        for key, names in self._fresh.items():
            self._ours.owned[key] = self._ours.owned.get(key, set()) | names
        self.remember(pools)

    def remember(self, pools: Iterable[Pool]) -> None:
        """How real servers stand goes on record: whoever comes after a kill begins with that."""
        named = [(pool.label, pool.name(each.real), each) for pool in pools for each in pool.members.values()]
        self._ours.orders = {(virtual, real): each.order for virtual, real, each in named if each.order}
        self._ours.down = {(virtual, real) for virtual, real, each in named if not each.healthy}
        self._record()

    def entries(self) -> list[ServiceEntry]:
        """Our services as they are."""
        return [entry for entry in self._plane.services() if entry.service.key in self._ours.owned]

    def set_timeouts(self, seconds: Mapping[str, int]) -> None:
        """lvs_timeouts, where it is given."""
        if seconds:
            wanted = Timeouts(seconds.get("tcp", 0), seconds.get("tcpfin", 0), seconds.get("udp", 0))
            with self._plane.transaction() as transaction:
                transaction.set_timeouts(wanted)

    def carry_out(self, pools: Iterable[Pool], now: float, *, whole: bool = True) -> None:
        """Bring the services of these virtual servers to what they want.

        ``whole``: they are all there are, and what else is ours goes. One that the engine refuses
        does not keep the others from what they want.
        """
        pools = list(pools)
        wanted = {pool.label: pool.wanted(now) for pool in pools}
        everything = [each for some in wanted.values() for each in some]
        names = {each.service.key for each in everything}
        owned = {key: some for key, some in self._ours.owned.items() if whole or key in names}
        if not owned and not everything:
            return
        try:
            self._change(everything, owned)
            for name in wanted:
                self.failed.pop(name, None)
        except (XlvsError, OSError):
            self._one_by_one(wanted, {key: some for key, some in owned.items() if key not in names})
        if whole and not self.failed and self._ours.owned != self._fresh:
            # What nobody may want any more is gone by now: ours no longer.
            self._ours.owned = dict(self._fresh)
            self._record()

    def clear(self, *, everything: bool) -> None:
        """Delete our services; with ``everything`` all there are."""
        if everything:
            with self._plane.transaction() as transaction:
                transaction.flush()
        else:
            self._change([], self._ours.owned)
        ownership.forget(self._path)

    def _record(self) -> None:
        """Serving matters more than the record of it: a full disk is said, once."""
        trouble = ""
        try:
            ownership.write(self._path, self._ours)
        except OSError as error:
            trouble = f"{self._path}: {error.strerror}: if we are killed, nobody knows what was ours"
        if trouble and trouble != self._unrecorded:
            log.error("%s", trouble)
        self._unrecorded = trouble

    def _one_by_one(self, wanted: Mapping[str, Sequence[Wanted]], gone: ownership.Owned) -> None:
        for name, some in [*wanted.items(), ("", ())]:
            keys = [each.service.key for each in some]
            owned = {key: self._ours.owned.get(key, set()) for key in keys} if name else gone
            try:
                self._change(some, owned)
                self.failed.pop(name, None)
            except (XlvsError, OSError) as error:
                if self.failed.get(name) != str(error):
                    log.error("IPVS: rules of VS %s: %s", name or "no longer there", error)
                self.failed[name] = str(error)

    def _change(self, wanted: Sequence[Wanted], owned: ownership.Owned) -> None:
        keys = list(dict.fromkeys([*(each.service.key for each in wanted), *owned]))
        carry_out(self._plane, difference(wanted, self._there(keys), owned))

    def _there(self, keys: Sequence[ServiceKey]) -> list[ServiceEntry]:
        if len(keys) > _FEW:
            return self._plane.services()
        found = [self._plane.service(key) for key in keys]
        return [entry for entry in found if entry]
