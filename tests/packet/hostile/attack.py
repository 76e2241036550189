"""Millions of hostile frames through the data plane, and single ones of them under the eyes of the judge.

python -m tests.packet.hostile.attack [MILLIONS [SEED]]
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy

from tests.packet.cookies import counter
from tests.packet.director import Director
from tests.packet.hostile.corpus import LONGEST, Corpus
from tests.packet.hostile.judge import Judge, Wrong, connection
from tests.packet.hostile.site import DENIED, VIRTUAL, Flow, build, served_once, special
from xlvs.dataplane import layout, libbpf, migrate
from xlvs.model import Forward, ServiceFlag

SOURCE = Path(__file__).with_name("mutate.bpf.c")
OBJECT = Path(__file__).resolve().parents[3] / "build/tests/mutate.bpf.o"
CORPUS = 8192
SLOTS = 1 << 12
ROUND = 250_000  # frames in one call of the kernel
CPUS = 2  # that attack at once
BESIDES = "toa_left_out"  # counted of packets that have an outcome


class _State(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
        ("broken", ctypes.c_uint64),
        ("frames", ctypes.c_uint32),
        ("alone", ctypes.c_uint32),
    )


class _Frame(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint32), ("bytes", ctypes.c_uint8 * LONGEST))


def _words(memory: object, name: str) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.uint32]]:
    """A 32-bit field of every slot, live; "ports" are the client's and the VIP's."""
    at = getattr(layout.ConnRow, "cport" if name == "ports" else name).offset // 4
    words: numpy.ndarray[tuple[int], numpy.dtype[numpy.uint32]]
    words = numpy.frombuffer(memory, numpy.uint32)  # type: ignore[call-overload]
    return words[at :: ctypes.sizeof(layout.ConnRow) // 4][:SLOTS]


def compiled() -> str:
    """The mutator's object file."""
    if not OBJECT.exists() or OBJECT.stat().st_mtime < SOURCE.stat().st_mtime:
        OBJECT.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
        flags += ["-Wno-unused-parameter", f"-I/usr/include/{platform.machine()}-linux-gnu"]
        subprocess.run(["clang-16", *flags, "-c", str(SOURCE), "-o", str(OBJECT)], check=True)
    return str(OBJECT)


class Attack:
    """A director under attack."""

    def __init__(self, seed: int, ways: Sequence[str], sysctls: Mapping[str, int]) -> None:
        self.director = Director(SLOTS)
        self.flows, self.bystanders = build(self.director)
        for name, value in sysctls.items():
            setattr(self.director.tables.settings.sysctl, name, value)
        self._mutator = libbpf.BpfObject(compiled())
        self._mutator.load()
        entry = self.director.plane.program_fd("xlvs_known").to_bytes(4, "little")
        libbpf.update(self._mutator.map_fd("tested"), bytes(4), entry)
        self._program = self._mutator.program_fd("hostile")
        self._seed, self._ways = seed, ways
        self._judge = Judge(served_once(), special(), VIRTUAL, DENIED)
        self._seen = numpy.zeros((3, SLOTS), numpy.uint32)
        self._period = 0
        self._set(0, alone=False)

    def close(self) -> None:
        self._mutator.close()
        self.director.close()

    def _bake(self) -> None:
        """Put frames into the corpus, again where the cookies in them are old."""
        period = counter(self.director)
        if period == self._period:
            return
        self._period = period
        for number, frame in enumerate(Corpus(self.flows, self._seed, period, self._ways).frames(CORPUS)):
            row = _Frame(len(frame))
            row.bytes[: len(frame)] = frame
            libbpf.update(self._mutator.map_fd("corpus"), number.to_bytes(4, "little"), bytes(row))

    def _set(self, first: int, *, alone: bool) -> None:
        state = _State(self._seed, first, 0, CORPUS, alone)
        libbpf.update(self._mutator.map_fd("state"), bytes(4), bytes(state))

    def _state(self) -> _State:
        found = libbpf.lookup(self._mutator.map_fd("state"), bytes(4), ctypes.sizeof(_State))
        assert found
        return _State.from_buffer_copy(found)

    def storm(self, frames: int, together: int = ROUND) -> Counter[str]:
        """So many frames on all CPUs at once, some together in one call; the outcomes."""
        self._bake()
        self.director._fill_caches()
        self.director.counted()
        rounds = frames // together // CPUS

        def attack(worker: int) -> None:
            for _ in range(rounds):
                libbpf.test_run(self._program, bytes(LONGEST), together)

        workers = [threading.Thread(target=attack, args=(number,)) for number in range(CPUS)]
        first = self._state().next
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        state = self._state()
        assert state.broken == 0, f"{state.broken} frames could not be made"
        outcomes = Counter(self.director.counted())
        assert _ends(outcomes) == state.next - first == together * rounds * CPUS, outcomes
        return outcomes

    def frame(self, number: int) -> bytes:
        """The hostile frame of that number."""
        self._set(number, alone=True)
        verdict, frame, _ = libbpf.test_run(self._program, bytes(LONGEST))
        assert verdict, number
        return frame

    def look(self) -> None:
        """Tell the judge what has changed in the table, and give new connections their way back."""
        director, tables = self.director, self.director.tables
        names = ("phase", "flags", "ports")
        columns = [_words(tables.memory("conns"), name) for name in names]
        now = director.now()
        for slot in numpy.flatnonzero((numpy.stack(columns) != self._seen).any(axis=0)).tolist():
            row = director.conn_row(slot)
            live = row.phase & layout.PHASE == layout.LIVE and not row.flags & layout.CONN_TEMPLATE
            if live:
                director.outside.write(row.back, now)
            copy = layout.ConnRow.from_buffer_copy(row)
            self._judge.learn(slot, connection(copy, tables.dest_row(copy.dest)) if live else None)
        self._seen = numpy.stack(columns)

    def judged(self, first: int, count: int) -> Counter[str]:
        """Single frames, each judged; the outcomes."""
        seen: Counter[str] = Counter()
        self._bake()
        self.director._fill_caches()
        for number in range(first, first + count):
            before = self.frame(number)
            seen[self.judge(before, f"frame {number}")] += 1
        self._set(first + count, alone=False)
        return seen

    def judge(self, before: bytes, name: str) -> str:
        """One frame through the director, and before the judge; its outcome."""
        self.look()
        self.director.counted()
        verdict, after, _ = libbpf.test_run(self.director.plane.program_fd("xlvs_known"), before)
        outcomes = self.director.counted()
        assert _ends(outcomes) == 1, (name, before.hex(), outcomes)
        (outcome,) = outcomes.keys() - {BESIDES}
        self.look()
        try:
            self._judge.check(outcome, verdict, before, after)
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}\n{outcome}\n{before.hex()}\n{after.hex()}") from None
        return outcome

    @property
    def named(self) -> int:
        """Packets so far that told a real server who its client is."""
        return self._judge.named

    def trouble(self) -> list[str]:
        """Slots, keys and loads that do not agree."""
        tables, found = self.director.tables, []
        live = {slot: self.director.conn_row(slot) for slot in self.director.live_slots()}
        index = {}
        for name, size in {"conn_index4": 16, "conn_index6": 40}.items():
            for key in list(libbpf.keys(tables.fd(name), size)):
                index[key] = int.from_bytes(libbpf.lookup(tables.fd(name), key, 4) or b"", "little")
        for slot, row in live.items():
            if migrate.is_replaced(row, slot, index.get):
                continue
            for key, reference in migrate._keys(row, slot):
                there = index.get(key)
                if row.controlled and there != reference:
                    continue  # a template whose server went
                if there is not None and _is_older(live, slot, there):
                    continue  # announced to the same client, on the same port
                if there is None or (there != reference and not reference & layout.REF_REPLY):
                    found.append(f"slot {slot} is not found by {key.hex()}: {there}")
        for key, reference in index.items():
            row_of = live.get(reference & layout.REF_SLOT)
            if row_of is None or (key, reference) not in migrate._keys(row_of, reference & layout.REF_SLOT):
                found.append(f"key {key.hex()} leads to {reference:#x}")
        for number in range(tables.settings.dests_high):
            load = tables.load_row(number)
            mine = [row for row in live.values() if row.dest == number]
            plain = [row for row in mine if not row.flags & layout.CONN_TEMPLATE]
            inactive = sum(bool(row.state & layout.STATE_INACTIVE) for row in plain)
            waiting = sum(bool(row.flags & layout.CONN_HALF_OPEN) for row in plain)
            counted = (load.active, load.inactive, load.persistent, load.half_open)
            if counted != (len(plain) - inactive, inactive, len(mine) - len(plain), waiting):
                found.append(f"destination {number}: counted {counted}")
        return found


def _ends(outcomes: Mapping[str, int]) -> int:
    """How many packets these are."""
    return sum(outcomes.values()) - outcomes.get(BESIDES, 0)


def _is_older(live: Mapping[int, layout.ConnRow], slot: int, newer: int) -> bool:
    """Whether a connection waits behind another one for its key (conn.older)."""
    for _ in live:
        row = live.get(newer)
        if row is None or not row.flags & layout.CONN_NO_CPORT or not row.older:
            return False
        newer = row.older - 1
        if newer == slot:
            return True
    return False


def check_bystanders(attack: Attack, flows: Sequence[Flow]) -> None:
    """Flows that the attack did not touch go on as before."""
    for flow in flows:
        if flow.kind.flags & ServiceFlag.ONEPACKET:
            continue  # each packet is a new connection, for which there may be no room
        for message in (flow.request, flow.reply):
            if message is not None:
                outcome = attack.judge(message.frame(), str(flow))
                if outcome == "drop_table_full" and flow.kind.method is Forward.FULLNAT:
                    break  # its local address is the attackers', too: an answer to it may have ended it
                assert outcome == "forwarded", (outcome, flow)


@contextmanager
def attacking(seed: int, *ways: str, **sysctls: int) -> Iterator[Attack]:
    """An attack for a block, on a director with these sysctls; in these ways of corpus.py only."""
    attack = Attack(seed, ways, sysctls)
    try:
        yield attack
    finally:
        attack.close()


def main() -> None:
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with attacking(seed) as attack:
        judged = attack.judged(0, 2000)
        began = time.monotonic()
        outcomes = attack.storm(int(millions * 1_000_000))
        rate = sum(outcomes.values()) / (time.monotonic() - began) / 1e6
        judged += attack.judged(1 << 40, 2000)
        check_bystanders(attack, attack.bystanders)
        for name, count in outcomes.most_common():
            print(f"{count:>12,}  {name} ({judged[name]} judged)")
        print(f"{sum(outcomes.values()):>12,}  frames, {rate:.2f} million a second")
        for line in attack.trouble()[:20]:
            print("! ", line)


if __name__ == "__main__":
    main()
