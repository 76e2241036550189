"""``python -m bench``: one run, one table. See ``--help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from bench import checks, cost, directors, effort, failover, floods, guest, rate, report
from bench.directors import Director
from bench.effort import Effort
from bench.place import settings
from bench.rate import Rate
from bench.road import Road, Traffic
from xlvs.errors import XlvsError

# Counting the run time of programs would be most of what they take.
_QUIET_KERNEL = {"/proc/sys/kernel/bpf_stats_enabled": 0}
_SAME_CORE = "60-byte packets; generator, director and sink share one core, nothing is lost"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks and return the exit status: 1 where something asked was not reached."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.only == "floods":
            return floods.main(chosen.json)
        if chosen.only == "checks":
            return checks.main(chosen.json, chosen.quick, chosen.guest, chosen.in_guest)
        if chosen.only == "failover":
            return failover.main(chosen.json, chosen.quick, _say)
        rates, costs = _run(chosen)
    except XlvsError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
    if chosen.json:
        print(json.dumps(report.as_json(rates, costs), indent=2))
    else:
        _print(rates, costs)
    return int(bool(report.missed(rates, costs)) and not (chosen.quick or chosen.in_guest))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of xlvs.")
    parser.add_argument("--guest", action="store_true", help="against the kernel's own IPVS, in the guest")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    parser.add_argument("--quick", action="store_true", help="see that it works, not how fast")
    parser.add_argument(
        "--only",
        choices=("rates", "costs", "floods", "checks", "failover"),
        help="leave the rest out; floods, health checks and failover are measured by themselves",
    )
    parser.add_argument("--in-guest", action="store_true", help=argparse.SUPPRESS)
    return parser


def _run(chosen: argparse.Namespace) -> tuple[list[Rate], list[tuple[cost.Weighing, float]]]:
    if chosen.guest:
        return guest.rates_in_guest(chosen.quick), []
    how = effort.QUICK if chosen.quick else effort.GUEST if chosen.in_guest else effort.FULL
    rates: list[Rate] = []
    costs: list[tuple[cost.Weighing, float]] = []
    with settings(_QUIET_KERNEL), Road() as road:
        traffic = Traffic(road)
        try:
            for name, director in _directors(how, chosen.in_guest) if chosen.only != "costs" else ():
                _say(f"measuring {name}")
                rates.append(rate.measure(name, director, road, traffic, how))
            if chosen.only != "rates" and not chosen.in_guest:
                costs = cost.weigh_all(road, traffic, how, _say)
        finally:
            traffic.close()
    return rates, costs


def _directors(how: Effort, in_guest: bool) -> Iterator[tuple[str, Director]]:
    """In this order: the kernel's own leave flows behind that it goes on looking after."""
    yield report.FLOOR, directors.floor
    for name, method in report.XLVS.items():
        yield name, directors.xlvs(method, how.slots)
    if in_guest:
        yield report.IPVS_DR, directors.ipvs("-g")
        yield report.IPVS_NAT, directors.ipvs("-m")
    else:
        yield report.NFTABLES, directors.nftables(how.slots)


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def _print(rates: Sequence[Rate], costs: Sequence[tuple[cost.Weighing, float]]) -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if rates:
        in_guest = any(each.name == report.IPVS_DR for each in rates)
        print(f"{'Linux 6.1 guest, software emulation' if in_guest else 'Rates'}: {_SAME_CORE}\n")
        print("\n".join(report.rate_lines(rates, report.IPVS_DR if in_guest else report.NFTABLES)))
    if costs:
        print("\nAdded to a packet (BPF_PROG_TEST_RUN; the same wrapper around nothing is subtracted)\n")
        print("\n".join(report.cost_lines(costs)))
    for line in report.missed(rates, costs):
        print(f"\nMISSED: {line}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
