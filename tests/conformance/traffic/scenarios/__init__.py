"""What is sent. Every scenario has a VIP of its own and begins without connections."""

from __future__ import annotations

from functools import cache

from tests.conformance.traffic.scenarios import (
    announcements,
    associations,
    choices,
    conversations,
    errors,
    ftp,
    marks,
    oddities,
    persistence,
    pieces,
    related,
    settings,
    thresholds,
    tunnels,
)
from tests.conformance.traffic.stage import Scenario

TOPICS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        announcements,
        associations,
        choices,
        conversations,
        errors,
        ftp,
        marks,
        oddities,
        persistence,
        pieces,
        related,
        settings,
        thresholds,
        tunnels,
    )
}


@cache
def topics() -> dict[str, dict[str, Scenario]]:
    """Scenarios by topic and name; names are unique, and so are their VIPs."""
    found = {topic: {s.name: s for s in module.scenarios()} for topic, module in TOPICS.items()}
    flat = [scenario for part in found.values() for scenario in part.values()]
    assert len(flat) == len({s.name for s in flat}) == len({s.number for s in flat})
    return found


@cache
def scenarios() -> dict[str, Scenario]:
    return {name: scenario for part in topics().values() for name, scenario in part.items()}
