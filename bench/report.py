"""The figures as a table, or as JSON; and what the project asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.cost import Weighing
from bench.rate import Rate

FLOOR, NFTABLES, IPVS_DR, IPVS_NAT = "bare XDP redirect", "nftables DNAT", "kernel IPVS DR", "kernel IPVS NAT"
XLVS = {"xlvs DR": "-g", "xlvs NAT": "-m", "xlvs TUN": "-i", "xlvs FULLNAT": "-b"}
NAT, FULLNAT = "xlvs NAT", "xlvs FULLNAT"


@dataclass(frozen=True)
class Asked:
    """How many times as fast as another a director must be."""

    name: str
    than: str
    times: float


ASKED = (Asked("xlvs DR", NFTABLES, 3.0), Asked("xlvs NAT", NFTABLES, 2.5), Asked("xlvs DR", IPVS_DR, 6.0))


def rate_lines(rates: Sequence[Rate], against: str) -> list[str]:
    """A table of rates, each beside the floor's and another director's."""
    known = {rate.name: rate for rate in rates}
    lines = [
        f"{'':<20}{'known flows':>14}{'of the floor':>14}{f'to {against}':>20}{'new flows':>14}{'':>4}asked"
    ]
    for rate in rates:
        ratio = rate.known / known[against].known
        asked = next((each for each in ASKED if each.name == rate.name and each.than == against), None)
        fresh = f"{rate.fresh / 1e6:.3f} M/s" if rate.fresh else "-"
        lines.append(
            f"{rate.name:<20}{f'{rate.known / 1e6:.3f} Mpps':>14}{rate.known / known[FLOOR].known:>14.0%}"
            f"{f'{ratio:.2f}':>20}{fresh:>14}{'':>4}"
            + (f"> {asked.times:g}: {'yes' if ratio > asked.times else 'NO'}" if asked else "")
        )
    if FULLNAT in known and NAT in known:
        lines.append(f"\n{FULLNAT} to {NAT}: {_beside(known[FULLNAT], known[NAT])}")
    return [line.rstrip() for line in lines]


def _beside(one: Rate, other: Rate) -> str:
    fresh = f", new flows {one.fresh / other.fresh:.2f}" if one.fresh and other.fresh else ""
    return f"known flows {one.known / other.known:.2f}{fresh}"


def cost_lines(costs: Sequence[tuple[Weighing, float]]) -> list[str]:
    """A table of costs."""
    lines = []
    for weighing, cost in costs:
        most = most_of(weighing, costs)
        asked = f"    <= {most:.0f}: {'yes' if cost <= most else 'NO'}" if most else ""
        lines.append(f"{weighing.name:<34}{cost:>7.0f} ns{asked}")
    return lines


def most_of(weighing: Weighing, costs: Sequence[tuple[Weighing, float]]) -> float | None:
    """What it may cost: so many nanoseconds, or a tenth more than another one did in this run."""
    known = {each.name: cost for each, cost in costs}
    return known[weighing.like] * 1.1 if weighing.like in known else weighing.most


def missed(rates: Sequence[Rate], costs: Sequence[tuple[Weighing, float]]) -> list[str]:
    """What was asked and not reached."""
    known = {rate.name: rate.known for rate in rates}
    return [
        f"{asked.name} is {known[asked.name] / known[asked.than]:.2f} times {asked.than}, not {asked.times:g}"
        for asked in ASKED
        if asked.name in known and asked.than in known
        if known[asked.name] <= asked.times * known[asked.than]
    ] + [
        f"{weighing.name} costs {cost:.0f} ns, not {most:.0f}"
        for weighing, cost in costs
        if (most := most_of(weighing, costs)) and cost > most
    ]


def as_json(rates: Sequence[Rate], costs: Sequence[tuple[Weighing, float]]) -> dict[str, object]:
    """All of it for programs: packets a second, nanoseconds, ratios."""
    known = {rate.name: rate.known for rate in rates}
    return {
        "rates": [asdict(rate) for rate in rates],
        "ratios": {
            f"{name} / {other}": known[name] / known[other]
            for name in XLVS
            for other in (FLOOR, NFTABLES, IPVS_DR, IPVS_NAT, *([NAT] if name == FULLNAT else []))
            if name in known and other in known
        },
        "nanoseconds": {weighing.name: cost for weighing, cost in costs},
        "missed": missed(rates, costs),
    }
