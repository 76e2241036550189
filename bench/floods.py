"""What honest clients notice of a flood, with its defence and without; and the director's table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

from bench.flood import flooded
from xlvs.lab import build
from xlvs.lab.topology import VIP4, Method

REQUESTS = 300


@dataclass(frozen=True)
class Weather:
    """A kind of flood (none: quiet), and what stands against it."""

    name: str
    flood: str = ""
    synproxy: bool = False
    drop_entry: bool = False


WEATHERS = (
    Weather("quiet"),
    Weather("quiet, SYNPROXY", synproxy=True),
    Weather("SYN flood", "SYN"),
    Weather("SYN flood, SYNPROXY", "SYN", synproxy=True),
    Weather("ACK flood", "ACK"),
    Weather("ACK flood, tcp_drop_entry", "ACK", drop_entry=True),
    Weather("RST flood", "RST"),
    Weather("RST flood, tcp_drop_entry", "RST", drop_entry=True),
)


@dataclass(frozen=True)
class Noticed:
    """Milliseconds a request took, requests that failed; of the director: packets a second, table, load."""

    name: str
    median: float
    worst: float  # of a hundred
    failed: int
    packets: float
    connections: int
    busy: float  # of all processors, generator and clients included


def measure() -> Iterator[Noticed]:
    """Each weather in a lab of FULLNAT of its own."""
    for weather in WEATHERS:
        with _lab() as lab:
            _xlvs(lab, "sysctl", f"tcp_drop_entry={weather.drop_entry:d}")
            if weather.synproxy:
                _xlvs(lab, "ipvsadm", "-E", "-t", f"{VIP4}:80", "-s", "rr", "-j", "enable")
            with flooded(lab, weather.flood) if weather.flood else nullcontext():
                yield _notice(lab, weather.name)


def lines(found: list[Noticed]) -> list[str]:
    """A table, beside the quiet."""
    heads = f"{'median':>10}{'99 of 100':>12}{'to quiet':>10}{'failed':>8}{'packets':>14}{'table':>10}"
    rows = [f"{'':<28}{heads}{'busy':>7}"]
    for each in found:
        took = f"{each.median:>7.2f} ms{each.worst:>9.2f} ms{each.median / found[0].median:>10.2f}"
        seen = f"{each.failed:>8}{each.packets / 1e6:>9.3f} Mpps{each.connections:>10}{each.busy:>7.0%}"
        rows.append(f"{each.name:<28}{took}{seen}")
    return rows


def main(as_json: bool) -> int:
    """Measure and print; 1 where a defended client failed."""
    found = list(measure())
    print(json.dumps([asdict(each) for each in found], indent=2) if as_json else "\n".join(lines(found)))
    return int(any(each.failed for each in found if "SYNPROXY" in each.name or "entry" in each.name))


def _notice(lab: build.Lab, name: str) -> Noticed:
    before, start, ticks = _packets(lab), time.monotonic(), _ticks()
    url = f"{lab.topology.url()}/?[1-{REQUESTS}]"
    command = ["curl", "-sS", "--max-time", "30", "-H", "Connection: close", "-o", "/dev/null"]
    command += ["-w", "%{http_code} %{time_total}\n", url]
    done = subprocess.run(lab.typed("client", command), capture_output=True, text=True, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    took = sorted(1000 * float(seconds) for code, seconds in rows if code == "200")
    seconds = time.monotonic() - start
    busy, all_of_it = (now - then for now, then in zip(_ticks(), ticks, strict=True))
    return Noticed(
        name,
        statistics.median(took),
        took[len(took) * 99 // 100],
        REQUESTS - len(took),
        (_packets(lab) - before) / seconds,
        int(_status(lab)["connections"]["used"]),
        busy / all_of_it,
    )


@contextmanager
def _lab() -> Iterator[build.Lab]:
    lab = build.Lab(f"floods{os.getpid()}", Method.FULLNAT, 2, False)
    build.up(lab)
    try:
        yield lab
    finally:
        build.down(lab)


def _xlvs(lab: build.Lab, *words: str) -> str:
    return lab.run("director", build.xlvs(*words))


def _status(lab: build.Lab) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(_xlvs(lab, "status", "--json"))
    return found


def _packets(lab: build.Lab) -> int:
    counts: dict[str, dict[str, int]] = json.loads(_xlvs(lab, "status", "--json"))["packets"]
    # What the companion gets is counted there once more.
    return sum(each["count"] for name, each in counts.items() if not name.startswith("handed_"))


def _ticks() -> tuple[int, int]:
    """Busy and all ticks of the processors so far (proc(5): idle and iowait are the fourth and fifth)."""
    with open("/proc/stat") as file:
        values = [int(word) for word in file.readline().split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)
