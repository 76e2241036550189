"""The pinned maps of one network namespace, opened, created and mapped into memory.

Two groups: the rule maps come to life with the first rule (or `up`), so that rules
can be entered before; the connection maps with `up`. One lock file a namespace keeps
changes apart: exclusive for writers, shared for readers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from xlvs.dataplane import bulk, journal, layout, libbpf, pins, sysctls
from xlvs.errors import XlvsError

OBJECT = os.path.join(os.path.dirname(__file__), "objects", "xlvs.bpf.o")

RULE_MAPS = (
    "settings",
    "services",
    "dests",
    "members",
    "locals",
    "loads",
    "counters",
    "rates",
    "service_index",
    "buckets",
    "mark_rules",
    "mark_prefixes",
    "clients",
    "addresses",
    "ports",
)
CONN_MAPS = (
    "conns",
    "conn_index4",
    "conn_index6",
    "localities",
    "engine_data",
    "datagrams",
    "waiting",
    "sources",
    "path_mtus",
    "events",
    "outcomes",
    "scratch",
    "ticker",
)

DEFAULT_SLOTS = 1 << 20
KERNEL_FLOOR = (6, 1)
# Seconds by TCP state, in the order of layout.TCP_STATES (ip_vs_proto_tcp.c), and UDP's.
TCP_TIMEOUTS = (2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120)
UDP_TIMEOUT = 300
# Seconds by SCTP state, in the order of layout.SCTP_STATES (ip_vs_proto_sctp.c).
SCTP_TIMEOUTS = (2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61)

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_CMD_GLOBAL = 1  # linux/membarrier.h: waits for a grace period of RCU

Row = TypeVar("Row", bound=ctypes.Structure)


def possible_cpus() -> int:
    """CPUs that may ever run a program here: highest number plus one."""
    with open("/sys/devices/system/cpu/possible") as text:
        return int(text.read().strip().replace(",", "-").split("-")[-1]) + 1


def open_object() -> libbpf.BpfObject:
    """The data plane's object file with maps sized for this machine."""
    if not os.path.exists(OBJECT):
        raise XlvsError(f"{OBJECT} is missing: run `make setup`")
    opened = libbpf.BpfObject(OBJECT)
    opened.set_max_entries("counters", layout.ROWS * possible_cpus())
    return opened


def reset_sysctls(settings: layout.Settings) -> None:
    """Put every sysctl to what a new network namespace begins with."""
    for name, value in sysctls.machine_defaults().items():
        setattr(settings.sysctl, name, value if len(value) > 1 else value[0])


class Tables:
    """All pinned maps of the current network namespace.

    Structures returned are live: they are the data plane's own memory.
    """

    def __init__(self) -> None:
        self.folder = pins.namespace_folder()
        self._fds: dict[str, int] = {}
        self._memory: dict[str, mmap.mmap] = {}

    def __del__(self) -> None:
        """Close the maps: whoever opens the tables often must not run out of descriptors."""
        for fd in self.__dict__.get("_fds", {}).values():
            os.close(fd)

    # -- existence ---------------------------------------------------------

    @property
    def have_rules(self) -> bool:
        """Whether the rule maps exist."""
        return os.path.exists(f"{self.folder}/maps/settings")

    @property
    def have_conns(self) -> bool:
        """Whether the connection maps exist, which is to say: whether `up` has run."""
        return self.have_rules and os.path.exists(f"{self.generation_folder()}/conns")

    def generation_folder(self, number: int | None = None) -> str:
        """Where a generation (default: the one that counts) pins its programs and connection maps."""
        return f"{self.folder}/generation-{self.settings.generation if number is None else number}"

    @contextmanager
    def locked(self, exclusive: bool, finish: bool = True) -> Iterator[None]:
        """Hold the namespace's lock; it goes with the process, however that ends.

        What a killed process left half written is finished first, unless told not to.
        """
        lock = self._lock(exclusive)
        try:
            if finish and os.path.exists(self.note):
                if not exclusive:
                    os.close(lock)
                    lock = self._lock(True)
                self._finish()
            yield
        finally:
            os.close(lock)

    @property
    def lock_file(self) -> str:
        """The file whose lock keeps changes apart."""
        return f"{pins.run_folder()}/{pins.netns_cookie():016x}.lock"

    @property
    def note(self) -> str:
        """Where a change is written down before it is carried out (journal.py)."""
        return f"{pins.run_folder()}/{pins.netns_cookie():016x}.journal"

    def _lock(self, exclusive: bool) -> int:
        """Lock the file that has the name now: `down` removes it while it holds the lock."""
        while True:
            lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            try:
                if os.path.samestat(os.fstat(lock), os.stat(self.lock_file)):
                    return lock
            except FileNotFoundError:
                pass
            os.close(lock)

    def _finish(self) -> None:
        changes = journal.read(self.note)
        if changes is None:
            return  # somebody else was first
        if self.have_rules:
            self.apply(changes)
            wait_for_programs()
        os.unlink(self.note)

    def carry_out(self, changes: list[journal.Change]) -> None:
        """Write changes so that whoever comes next finishes them should we be killed."""
        if not changes:
            return
        journal.write(self.note, changes)
        self.apply(changes)
        os.unlink(self.note)

    def apply(self, changes: Iterable[journal.Change]) -> None:
        """Write changes one after the other."""
        for each in changes:
            self._apply(each)

    def _apply(self, change: journal.Change) -> None:
        if isinstance(change, journal.Write):
            self.memory(change.map)[change.offset : change.offset + len(change.content)] = change.content
        elif isinstance(change, journal.Entries):
            if change.values is None:
                bulk.delete_all(self.fd(change.map), change.count, change.keys)
            else:
                bulk.update_all(self.fd(change.map), change.count, change.keys, change.values)
        elif change.value is None:
            libbpf.delete(self.fd(change.map), change.key)
        else:
            libbpf.update(self.fd(change.map), change.key, change.value)

    def create_rules(self) -> None:
        """Make and pin the rule maps, if they are not there. Under the exclusive lock."""
        if self.have_rules:
            return
        with open_object() as plane:
            for name in plane.programs():
                plane.skip_program(name)
            for name in plane.maps():
                if name not in RULE_MAPS:
                    plane.skip_map(name)
            plane.load()
            os.makedirs(f"{self.folder}/maps", mode=0o700, exist_ok=True)
            # settings last: it says that all are there.
            for name in reversed(RULE_MAPS):
                path = f"{self.folder}/maps/{name}"
                if os.path.exists(path):
                    os.unlink(path)
                if name == "settings":
                    self._initialise(plane.map_fd(name))
                libbpf.pin(plane.map_fd(name), path)

    def _initialise(self, fd: int) -> None:
        settings = layout.Settings(abi=layout.ABI, cpus=possible_cpus(), slots=DEFAULT_SLOTS)
        settings.tcp_seconds[:] = (TCP_TIMEOUTS[1], TCP_TIMEOUTS[4], UDP_TIMEOUT)
        reset_sysctls(settings)
        libbpf.update(fd, bytes(4), bytes(settings))

    # -- access ------------------------------------------------------------

    def fd(self, name: str) -> int:
        """The file descriptor of a pinned map, opened once (connection maps: once a generation)."""
        path = self._path(name)
        if path not in self._fds:
            self._fds[path] = libbpf.get_pinned(path)
        return self._fds[path]

    def _path(self, name: str) -> str:
        return f"{self.generation_folder() if name in CONN_MAPS else f'{self.folder}/maps'}/{name}"

    def memory(self, name: str) -> mmap.mmap:
        """An mmapable map's values."""
        path = self._path(name)
        if path not in self._memory:
            self._memory[path] = libbpf.map_memory(self.fd(name))
        return self._memory[path]

    def row(self, name: str, kind: type[Row], number: int) -> Row:
        """One row of an mmapable map, live."""
        return kind.from_buffer(self.memory(name), number * ctypes.sizeof(kind))

    def column(self, name: str, kind: type[Row], field: str, rows: int) -> list[int]:
        """One 32-bit field of the first rows, copied at once."""
        size = ctypes.sizeof(kind)
        at: int = getattr(kind, field).offset // 4
        words = memoryview(self.memory(name)).cast("I")
        return words[at : rows * size // 4 : size // 4].tolist()

    def slots_used(self) -> int:
        """Slots of the connection table that are not free."""
        import numpy

        size, at = ctypes.sizeof(layout.ConnRow), layout.ConnRow.phase.offset
        phases = numpy.frombuffer(self.memory("conns"), dtype=numpy.uint32)[at // 4 :: size // 4]
        return int(numpy.count_nonzero(phases & layout.PHASE))

    @cached_property
    def settings(self) -> layout.Settings:
        """The settings, live. XlvsError where another version's tables are pinned."""
        settings = self.row("settings", layout.Settings, 0)
        if settings.abi != layout.ABI:
            raise XlvsError(
                f"the tables in this namespace have layout {settings.abi}, this xlvs speaks {layout.ABI}: "
                "run `xlvs down` with the xlvs that made them, or keep using that one"
            )
        return settings

    def service_row(self, number: int) -> layout.ServiceRow:
        """A row of services, live."""
        return self.row("services", layout.ServiceRow, number)

    def dest_row(self, number: int) -> layout.DestRow:
        """A row of dests, live."""
        return self.row("dests", layout.DestRow, number)

    def load_row(self, number: int) -> layout.LoadRow:
        """The connections of a destination, live."""
        return self.row("loads", layout.LoadRow, number)

    def rate_row(self, number: int) -> layout.RateRow:
        """A row of rates, live."""
        return self.row("rates", layout.RateRow, number)

    def member_rows(self, first: int, count: int) -> Any:
        """A stretch of members, live, as a ctypes array."""
        return (layout.MemberRow * count).from_buffer(
            self.memory("members"), first * ctypes.sizeof(layout.MemberRow)
        )

    def local_rows(self, first: int, count: int) -> Any:
        """A stretch of locals, live, as a ctypes array."""
        return (layout.LocalRow * count).from_buffer(
            self.memory("locals"), first * ctypes.sizeof(layout.LocalRow)
        )

    def counter_sums(self, number: int) -> list[int]:
        """A row of counters over all CPUs: connections, packets in and out, bytes in and out."""
        sums = [0] * 5
        for cpu in range(self.settings.cpus):
            values = self.row("counters", layout.CounterRow, cpu * layout.ROWS + number).values
            sums = [total + value for total, value in zip(sums, values, strict=True)]
        return sums

    def find_service(self, key: bytes) -> int | None:
        """The row of the service with this wire key (struct xlvs_service_key)."""
        found = libbpf.lookup(self.fd("service_index"), key, 4)
        return int.from_bytes(found, "little") if found else None

    def outcome_counts(self) -> list[list[int]]:
        """Packets by outcome, each a list by CPU."""
        cpus = self.settings.cpus
        counts = []
        for number in range(len(layout.OUTCOMES)):
            value = libbpf.lookup(self.fd("outcomes"), number.to_bytes(4, "little"), 8 * cpus)
            counts.append([int.from_bytes((value or b"")[i * 8 : i * 8 + 8], "little") for i in range(cpus)])
        return counts


def explain_refusal(error: libbpf.BpfError) -> XlvsError:
    """One clear sentence for what a kernel says when it will not have us."""
    release = platform.release()
    if error.errno == errno.EPERM:
        return XlvsError(
            "the kernel refuses BPF: run xlvs as root; in a container it needs the capabilities "
            "BPF, NET_ADMIN and SYS_ADMIN"
        )
    if error.errno == errno.ENOSYS:
        return XlvsError("this kernel has no BPF: xlvs needs Linux 6.1 or newer with CONFIG_BPF_SYSCALL")
    if kernel_version(release) < KERNEL_FLOOR:
        return XlvsError(f"this kernel ({release}) is too old for xlvs: Linux 6.1 or newer is needed")
    if error.errno == errno.ENOMEM:
        return XlvsError("not enough memory for the tables: choose fewer connections with --connections")
    return error


def kernel_version(release: str) -> tuple[int, ...]:
    """The first two numbers of a kernel release such as 6.1.0-28-amd64."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def wait_for_programs() -> None:
    """Return when every BPF program that was running has ended (a grace period of RCU)."""
    number = _SYS_MEMBARRIER.get(platform.machine())
    result = ctypes.CDLL(None).syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0) if number else -1
    if result != 0:
        time.sleep(0.05)  # no such call here: longer than any program runs
