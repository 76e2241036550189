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
# As the kernel's documentation has it: SYNs are left to no connection, and what has none is proxied.
_PEER = """
table ip peer {
  chain early { type filter hook prerouting priority raw; tcp dport 80 tcp flags syn notrack; }
  chain onward {
    type filter hook forward priority filter;
    tcp dport 80 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
    ct state invalid drop
  }
}
"""


@dataclass(frozen=True)
class Weather:
    """A kind of flood (none: quiet), and what stands against it."""

    name: str
    flood: str = ""
    synproxy: bool = False
    drop_entry: bool = False
    peer: bool = False  # no xlvs: the kernel's own SYNPROXY, by nftables, on the way to one real server


WEATHERS = (
    Weather("quiet"),
    Weather("quiet, SYNPROXY", synproxy=True),
    Weather("SYN flood", "SYN"),
    Weather("SYN flood, SYNPROXY", "SYN", synproxy=True),
    Weather("SYN flood, nftables synproxy", "SYN", peer=True),
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
    """Each weather in a lab of its own: of FULLNAT, or of a mere router between clients and servers."""
    for weather in WEATHERS:
        with _router() if weather.peer else _lab() as lab:
            if not weather.peer:
                _xlvs(lab, "sysctl", f"tcp_drop_entry={weather.drop_entry:d}")
            if weather.synproxy:
                _xlvs(lab, "ipvsadm", "-E", "-t", f"{VIP4}:80", "-s", "rr", "-j", "enable")
            target = lab.topology.rip(1) if weather.peer else VIP4
            with flooded(lab, weather.flood, target) if weather.flood else nullcontext():
                yield _notice(lab, weather, target)


def lines(found: list[Noticed]) -> list[str]:
    """A table, beside the quiet."""
    heads = f"{'median':>10}{'99 of 100':>12}{'to quiet':>10}{'failed':>8}{'packets':>14}{'table':>10}"
    rows = [f"{'':<28}{heads}{'busy':>7}"]
    for each in found:
        took = f"{each.median:>7.2f} ms{each.worst:>9.2f} ms{each.median / found[0].median:>10.2f}"
        seen = f"{each.failed:>8}{each.packets / 1e6:>9.3f} Mpps{each.connections:>10}{each.busy:>7.0%}"
        rows.append(f"{each.name:<28}{took}{seen}")
    taken = {weather: each.packets for weather, each in zip(WEATHERS, found, strict=True) if weather.flood}
    (peer,) = (packets for weather, packets in taken.items() if weather.peer)
    (ours,) = (packets for weather, packets in taken.items() if weather.synproxy)
    rows.append(f"\nof a SYN flood xlvs's SYNPROXY takes {ours / peer:.1f} times as much in as nftables'")
    return rows


def main(as_json: bool) -> int:
    """Measure and print; 1 where a defended client failed."""
    found = list(measure())
    print(json.dumps([asdict(each) for each in found], indent=2) if as_json else "\n".join(lines(found)))
    return int(any(each.failed for each in found if "SYNPROXY" in each.name or "entry" in each.name))


def _notice(lab: build.Lab, weather: Weather, target: str) -> Noticed:
    packets, connections = (_routed, _tracked) if weather.peer else (_packets, _connections)
    before, start, ticks = packets(lab), time.monotonic(), _ticks()
    url = f"http://{target}/?[1-{REQUESTS}]"
    command = ["curl", "-sS", "--max-time", "30", "-H", "Connection: close", "-o", "/dev/null"]
    command += ["-w", "%{http_code} %{time_total}\n", url]
    done = subprocess.run(lab.typed("client", command), capture_output=True, text=True, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    took = sorted(1000 * float(seconds) for code, seconds in rows if code == "200")
    seconds = time.monotonic() - start
    busy, all_of_it = (now - then for now, then in zip(_ticks(), ticks, strict=True))
    return Noticed(
        weather.name,
        statistics.median(took),
        took[len(took) * 99 // 100],
        REQUESTS - len(took),
        (packets(lab) - before) / seconds,
        connections(lab),
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


@contextmanager
def _router() -> Iterator[build.Lab]:
    """The machines of a lab of NAT, the director a router with the kernel's SYNPROXY."""
    lab = build.Lab(f"floods{os.getpid()}", Method.NAT, 2, False)
    build.reserve(lab)
    try:
        build.machines(lab)
        director = lab.topology.director.addresses[0]
        lab.run("router", ["ip", "route", "add", f"{lab.topology.rip(1)}/32", "via", director])
        # The flood's frames are redirected into a veth, and arrive only where the far end polls.
        lab.run("director", ["ethtool", "-K", "eth0", "gro", "on"])
        lab.run("director", ["nft", "-f", "-"], _PEER)
        lab.run("director", ["sysctl", "-q", "net.netfilter.nf_conntrack_tcp_loose=0"])
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


def _connections(lab: build.Lab) -> int:
    return int(_status(lab)["connections"]["used"])


def _routed(lab: build.Lab) -> int:
    (link,) = json.loads(lab.run("director", ["ip", "-j", "-s", "link", "show", "eth0"]))
    return int(link["stats64"]["rx"]["packets"])


def _tracked(lab: build.Lab) -> int:
    return int(lab.run("director", ["sysctl", "-n", "net.netfilter.nf_conntrack_count"]))


def _ticks() -> tuple[int, int]:
    """Busy and all ticks of the processors so far (proc(5): idle and iowait are the fourth and fifth)."""
    with open("/proc/stat") as file:
        values = [int(word) for word in file.readline().split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)
