"""What lblc and lblcr remember, and when they forget it; that they choose well is histories' to say."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

import pytest

from tests.packet.director import Director
from tests.packet.frames import Datagram
from tests.packet.histories import VIPS, History
from tests.packet.models import Ask
from xlvs.dataplane import layout, libbpf
from xlvs.model import Service

pytestmark = pytest.mark.root

KEY, ENTRY = ctypes.sizeof(layout.LocalityKey), ctypes.sizeof(layout.Locality)
MANY = 16 * 1024  # ip_vs_lblc.c: more than these, and what was not used for six minutes goes
SIX_MINUTES = 6 * 60


def entries(director: Director) -> dict[bytes, layout.Locality]:
    """By address."""
    map_fd = director.tables.fd("localities")
    found = {key: libbpf.lookup(map_fd, key, ENTRY) for key in libbpf.keys(map_fd, KEY)}
    return {key[8:]: layout.Locality.from_buffer_copy(value) for key, value in found.items() if value}


def ask(history: History, target: int = 0) -> None:
    history.asked += 1
    assert history.ask(Ask("11.0.0.1", 1024 + history.asked, VIPS[2][target]))


def remember(director: Director, address: bytes, idle: float) -> None:
    """An entry of the first service that was not used for so many seconds."""
    settings, service = director.tables.settings, director.tables.service_row(0)
    entry = layout.Locality(used=int(director.now() - idle * settings.hz) & 0xFFFFFFFF, count=1)
    key = layout.LocalityKey(service.mark)
    key.address = layout.wire_address(address.ljust(16, b"\0"))
    libbpf.update(director.tables.fd("localities"), bytes(key), bytes(entry))
    service.localities += 1


def minute(director: Director, number: int) -> None:
    """Let the timer do what it does in that minute."""
    settings = director.tables.settings
    settings.tick_ns, settings.scan_chunk = 2_000_000, 1
    settings.localities_round, settings.localities_due = number - 1, director.now()
    assert libbpf.test_run(director.plane.program_fd("xlvs_arm"), bytes(64))[0] == 0
    deadline = time.monotonic() + 60
    while settings.localities_round != number and time.monotonic() < deadline:
        time.sleep(0.01)
    sweep = settings.scan_next
    while settings.scan_next == sweep and time.monotonic() < deadline:
        time.sleep(0.01)  # the walk is over when the timer is at its next tick
    settings.flags |= layout.MIGRATING  # keep the timer's hands off the next test
    assert settings.localities_round == number


@pytest.mark.parametrize("name", ["lblc", "lblcr"])
def test_an_address_has_an_entry(director: Director, name: str) -> None:
    history = History(director, name, [1, 1])
    for target in (0, 1, 0):
        ask(history, target)
    assert len(entries(director)) == director.tables.service_row(0).localities == 2


def another_scheduler(history: History) -> None:
    for scheduler in ("wlc", "lblc"):
        change = history.director.transaction()
        change.edit_service(Service(history.key, scheduler))
        history.director.tables.apply(change.changes())


def another_service(history: History) -> None:
    for method, what in (("delete_service", history.key), ("add_service", Service(history.key, "lblc"))):
        change = history.director.transaction()
        getattr(change, method)(what)
        history.director.tables.apply(change.changes())


@pytest.mark.parametrize("begin_again", [another_scheduler, another_service])
def test_a_scheduler_that_begins_knows_nothing(
    director: Director, begin_again: Callable[[History], None]
) -> None:
    history = History(director, "lblc", [1])
    ask(history)
    (before,) = entries(director)
    mark = director.tables.service_row(0).mark
    begin_again(history)
    assert director.tables.service_row(0).mark not in (0, mark)
    assert director.tables.service_row(0).localities == 0
    minute(director, 1)
    assert before not in entries(director)


def test_the_same_scheduler_goes_on(director: Director) -> None:
    history = History(director, "lblcr", [1, 2])
    ask(history)
    mark = director.tables.service_row(0).mark
    history.weigh(history.known[0], 5)
    history.add(history.new_server(3))
    history.remove(history.known[1])
    assert director.tables.service_row(0).mark == mark


def test_a_row_that_is_anothers_now_is_not_believed(director: Director) -> None:
    history = History(director, "lblc", [1, 1])
    ask(history)
    (entry,) = entries(director).values()
    row = director.tables.dest_row(entry.dests[0])
    row.born = director.tables.settings.rules_version + 1
    director.tables.load_row(entry.dests[0]).inactive = 50
    other = history.known[1 - entry.dests[0]]
    history.known[entry.dests[0]].inactive = 50
    assert history.ask(Ask("11.0.0.1", 1023, VIPS[2][0])) is other


@pytest.mark.parametrize(("name", "minutes", "stay"), [("lblc", 30, 1), ("lblcr", 30, 2), ("lblc", 29, 3)])
def test_every_half_hour_what_is_older_than_the_sysctl_says(
    director: Director, name: str, minutes: int, stay: int
) -> None:
    History(director, name, [1])
    sysctl = director.tables.settings.sysctl
    sysctl.lblc_expiration, sysctl.lblcr_expiration = 1000, 5000
    for number, idle in enumerate((900, 1100, 6000)):
        remember(director, bytes((10, 0, 0, number)), idle)
    minute(director, minutes)
    assert len(entries(director)) == director.tables.service_row(0).localities == stay


def test_every_minute_what_is_old_of_a_service_with_too_many(director: Director) -> None:
    History(director, "lblc", [1])
    for number in range(5):
        remember(director, bytes((10, 0, 0, number)), SIX_MINUTES + 1 if number else 100)
    director.tables.service_row(0).localities = MANY + 3
    minute(director, 1)
    assert len(entries(director)) == 2
    assert director.tables.service_row(0).localities == MANY


@pytest.mark.parametrize("name", ["lblc", "lblcr"])
def test_two_cpus_at_once(director: Director, name: str) -> None:
    """Every connection is somebody's and counted, every entry is counted once."""
    history = History(director, name, [1, 2, 3])
    program = director.plane.program_fd("xlvs_known")
    cpus, count = sorted(os.sched_getaffinity(0)), 400

    def client(thread: int) -> None:
        os.sched_setaffinity(0, {cpus[thread % len(cpus)]})
        for number in range(count):
            ask = Datagram(f"11.0.{thread}.1", VIPS[2][number % 3], 1024 + number)
            libbpf.test_run(program, ask.frame())

    threads = [threading.Thread(target=client, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(director.connections()) == sum(history.loads()) == 2 * count
    assert len(entries(director)) == director.tables.service_row(0).localities == 3
