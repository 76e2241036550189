"""``xlvs status``: what the data plane is, and what became of its packets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from xlvs.cli import pools
from xlvs.cli.engine import open_plane
from xlvs.daemon import supervise
from xlvs.dataplane import layout
from xlvs.dataplane.loopback import forwarding
from xlvs.dataplane.plane import Plane
from xlvs.network.neighbours import NetlinkHost

OFF = "OFF: no answer of NAT's real servers passes"
SUMMARY = "show interfaces, table fill, packets by outcome, forwarding and helper"


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs status ARGUMENTS``: 0 while the data plane is up, 3 while it is not."""
    parser = argparse.ArgumentParser(
        prog="xlvs status", description=SUMMARY, epilog="exit status: 0 up, 3 not up (as systemctl has it)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    chosen = parser.parse_args(arguments)
    found = collect(open_plane())
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0 if found["up"] else 3


def collect(plane: Plane) -> dict[str, Any]:
    """Everything `status` shows, as plain data."""
    tables = plane.tables
    found: dict[str, Any] = {"up": plane.is_up, "forwarding": forwarding(), "helper": supervise.running()}
    found["helper_trouble"] = supervise.trouble()
    if tables.have_rules:
        services = tables.column("services", layout.ServiceRow, "flags", tables.settings.services_high)
        dests = tables.column("dests", layout.DestRow, "flags", tables.settings.dests_high)
        found["services"] = sum(1 for flags in services if flags & layout.SERVICE_USED)
        found["destinations"] = sum(1 for flags in dests if flags & layout.DEST_AVAILABLE)
        found["local_addresses"] = pools.collect(tables, NetlinkHost())
    if not plane.is_up:
        return found
    found["interfaces"] = [
        {"name": each.name, "ifindex": each.ifindex, "mode": each.mode} for each in plane.attached()
    ]
    found["generation"] = tables.settings.generation
    found["connections"] = {
        "size": tables.settings.slots,
        "used": tables.slots_used(),
    }
    found["helper_gave_up"] = tables.settings.helper_dropped
    found["not_reset"] = tables.settings.unreset
    counts = tables.outcome_counts()
    found["packets"] = {
        name: {"count": sum(cpus), "per_cpu": cpus, "meaning": meaning}
        for (name, meaning), cpus in zip(layout.OUTCOMES, counts, strict=True)
    }
    return found


def _print(found: dict[str, Any]) -> None:
    if not found["up"]:
        print("data plane: not up in this network namespace")
        if "services" in found:
            print(f"rules kept: {found['services']} services, {found['destinations']} destinations")
        _print_pools(found)
        return
    print(f"data plane: up, program generation {found['generation']}")
    for each in found["interfaces"]:
        print(f"interface:  {each['name']} ({each['mode']})")
    table = found["connections"]
    share = 100 * table["used"] / table["size"]
    print(f"table:      {table['used']} of {table['size']} connections ({share:.1f} %)")
    print(f"rules:      {found['services']} services, {found['destinations']} destinations")
    _print_pools(found)
    for family, name in (("ipv4", "IPv4"), ("ipv6", "IPv6")):
        print(f"forwarding: {name} {'on' if found['forwarding'][family] else OFF}")
    helper = found["helper"]
    print(f"helper:     {f'running (pid {helper})' if helper else 'not running: `xlvs up` starts it'}")
    if found["helper_gave_up"]:
        print(f"given up:   {found['helper_gave_up']} frames that waited in the helper for nothing")
    if found["not_reset"]:
        print(f"not reset:  both ends of {found['not_reset']} connections that time ended")
    if found["helper_trouble"]:
        print(f"trouble:    {found['helper_trouble']}")
    print(f"\n{'packets':>14}  {'per CPU':<24} what became of them")
    for each in found["packets"].values():
        if each["count"]:
            per_cpu = " ".join(str(value) for value in each["per_cpu"])
            print(f"{each['count']:>14}  {per_cpu:<24} {each['meaning']}")


def _print_pools(found: dict[str, Any]) -> None:
    if found.get("local_addresses"):
        print("\n".join(pools.lines(found["local_addresses"])))
