"""A pair of directors, one of which dies: clients hardly notice, and in the end there is one master.

xlvs and the real keepalived run the same events in the same minute. Figures are for ``bench --only
failover`` on a quiet machine; here the bounds leave room for a busy one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import failover
from xlvs.lab import namespaces, pair
from xlvs.lab.topology import Method

pytestmark = [pytest.mark.root, pytest.mark.slow]

BUSY = 2.0  # seconds that a busy machine may add to what the protocol allows
EARLY = 0.5  # seconds by which an advert may have been late on its way to the backup, or to us
LISTENS = "Entering BACKUP STATE (init)"


def test_the_daemon_the_link_and_the_node() -> None:
    events = [one for one in failover.EVENTS if one.name != "kill -9 of the parent"]  # which says goodbye
    found = list(failover.measure(1, events, together=True))
    assert len(found) == 4 * len(events)
    theirs = {each.event: each for each in found if each.program == "keepalived"}
    for mine in (each for each in found if each.program == "xlvs"):
        assert mine.seconds <= mine.bound + BUSY, found
        assert mine.seconds <= theirs[mine.event].seconds + BUSY, found
        assert mine.both <= failover.ADVERT + BUSY, found  # two masters that hear each other
    for name in (one.name for one in events):
        silences = [each.silence for each in found if each.event == name]
        # Nobody takes over before time is up.
        assert all(one is not None and one > failover.BOUND - EARLY for one in silences), found
    for name in (one.name for one in events if one.cuts):
        # Which nobody can bridge: else the plug was not pulled.
        assert all(each.seconds > failover.ADVERT for each in found if each.event == name), found


def test_without_preemption_the_old_master_stays_behind() -> None:
    with failover.paired("xlvs", Method.NAT) as each:
        lab = each.lab
        each.gap(time.monotonic(), 0)  # what is killed leaves its addresses behind: one's only
        for number in range(2):
            path = Path(pair.folder(lab, number), "keepalived.conf")
            text = path.read_text().replace("state MASTER", "state BACKUP")
            path.write_text(text.replace("    advert_int 1\n", "    advert_int 1\n    nopreempt\n"))
            each.kill_daemon(number)
        each.start_daemon(0)
        each.gap(time.monotonic(), 0)
        log = Path(pair.folder(lab, 1), "log")
        before = log.read_text().count(LISTENS)
        each.start_daemon(1)
        _wait_until(lambda: log.read_text().count(LISTENS) > before, "director 1 listens")
        began = time.monotonic()
        each.kill_node(0)
        assert each.gap(began, 1) <= failover.BOUND + BUSY
        began = time.monotonic()
        each.start_node(0)
        # What the old master left when it was killed is taken away by its successor in office.
        _wait_until(lambda: 0 not in pair.masters(lab), "director 0 has no VIP")
        time.sleep(2 * failover.BOUND)  # time enough to take it back, if it were to
        assert pair.masters(lab) == [1]
        assert each.gap(began, 1) <= failover.ADVERT + BUSY
        # NAT's gateway moved along: one of two addresses would be no use.
        held = namespaces.run(["ip", "-n", lab.namespace("director2"), "address", "show", "dev", "eth1"])
        assert " 192.168.22.1/24 " in held


def _wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + failover.PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {failover.PATIENCE:g} seconds"
        time.sleep(0.1)
