"""What the vrrp child tells operators: the dumps of SIGUSR1 and SIGUSR2, and answers as values."""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.daemon.vrrp.exported import exported
from xlvs.daemon.vrrp.runtime import Runtime
from xlvs.vrrp.commands import State
from xlvs.vrrp.machine import Machine
from xlvs.vrrp.packet import Fault

# The counters of keepalived's dump, in its order.
_PACKETS = (Fault.LENGTH, Fault.TTL, Fault.TYPE, Fault.INTERVAL, Fault.ADDRESSES)
_AUTHENTICATION = (
    ("Invalid Type", Fault.AUTH_TYPE),
    ("Type Mismatch", Fault.AUTH_MISMATCH),
    ("Failure", Fault.AUTH_FAILURE),
)


def status(runtime: Runtime) -> dict[str, object]:
    """How many instances are in which state."""
    states = [machine.state.value for machine in runtime.router.machines.values()]
    return {"instances": len(states), "states": {state: states.count(state) for state in sorted({*states})}}


def instances(runtime: Runtime) -> dict[str, object]:
    """Every instance and group with its state and counters."""
    now = runtime.now
    return {
        "instances": [_instance(runtime, name, machine, now) for name, machine in _all(runtime)],
        "groups": [
            {"name": name, "state": group.state.value, "members": list(group.settings.members)}
            for name, group in runtime.router.groups.items()
        ],
    }


def export(runtime: Runtime) -> dict[str, object]:
    """Every instance as keepalived.json has it."""
    now, configured = runtime.now, {one.name: one for one in runtime.config.instances}
    return {
        "instances": [
            exported(configured[name], machine, runtime.sites[name], now) for name, machine in _all(runtime)
        ]
    }


def _instance(runtime: Runtime, name: str, machine: Machine, now: float) -> dict[str, object]:
    settings, counters, site = machine.settings, machine.counters, runtime.sites[name]
    return {
        "name": name,
        "state": machine.state.value,
        "since": round(max(0.0, now - machine.since), 3),
        "interface": site.wire,
        "router_id": settings.router_id,
        "version": settings.version,
        "family": settings.family,
        "priority": settings.priority,
        "effective_priority": machine.priority,
        "advert": settings.advert,
        "master": str(machine.master) if machine.master else None,
        "master_priority": machine.master_priority,
        "faults": sorted(machine.faults),
        "addresses": [str(place.address.address) for place in site.addresses],
        "counters": {
            "received": counters.received,
            "sent": counters.sent,
            "became_master": counters.became_master,
            "released_master": counters.released_master,
            "priority_zero_received": counters.zero_received,
            "priority_zero_sent": counters.zero_sent,
            "refused": {fault.name.lower(): count for fault, count in counters.refused.items() if count},
        },
    }


def stats(runtime: Runtime) -> str:
    """The statistics, as keepalived.stats has them."""
    return "".join(f"{line}\n" for name, machine in _all(runtime) for line in _counters(name, machine))


def _counters(name: str, machine: Machine) -> Iterator[str]:
    counters = machine.counters
    yield f"VRRP Instance: {name}"
    yield "  Advertisements:"
    yield f"    Received: {counters.received}"
    yield f"    Sent: {counters.sent}"
    yield f"  Became master: {counters.became_master}"
    yield f"  Released master: {counters.released_master}"
    yield "  Packet Errors:"
    for fault in _PACKETS:
        yield f"    {fault.value}: {counters.refused[fault]}"
    yield "  Authentication Errors:"
    for text, fault in _AUTHENTICATION:
        yield f"    {text}: {counters.refused[fault]}"
    yield "  Priority Zero:"
    yield f"    Received: {counters.zero_received}"
    yield f"    Sent: {counters.zero_sent}"


def data(runtime: Runtime) -> str:
    """The topology, in the words of keepalived.data."""
    lines = ["------< VRRP Topology >------"]
    for name, machine in _all(runtime):
        lines += _topology(runtime, name, machine)
    if runtime.router.groups:
        lines.append("------< VRRP Sync groups >------")
    for name, group in runtime.router.groups.items():
        lines += [f" VRRP Sync Group = {name}, {group.state.value}", "   VRRP member instances :"]
        lines += [f"     {member}" for member in group.settings.members]
    return "".join(f"{line}\n" for line in lines)


def _topology(runtime: Runtime, name: str, machine: Machine) -> Iterator[str]:
    settings, site = machine.settings, runtime.sites[name]
    yield f" VRRP Instance = {name}"
    yield f"   VRRP Version = {settings.version}"
    yield f"   State = {machine.state.value}"
    yield f"   Number of interface and track script faults = {len(machine.faults)}"
    for fault in sorted(machine.faults):
        yield f"     {fault}"
    if machine.state is State.BACKUP and machine.master is not None:
        yield f"   Master router = {machine.master}"
        yield f"   Master priority = {machine.master_priority}"
    yield f"   Master down timer = {round(machine.down_interval * 1_000_000)} usecs"
    yield f"   Interface = {site.wire}"
    yield f"   Using src_ip = {machine.source}"
    if settings.unicast:
        yield "   Unicast peers:"
        for peer in settings.peers:
            yield f"     {peer}"
    else:
        yield f"   Multicast address {settings.destinations[0]}"
    yield f"   Virtual Router ID = {settings.router_id}"
    yield f"   Priority = {settings.priority}"
    yield f"   Effective priority = {machine.priority}"
    yield f"   Advert interval = {settings.advert:g} sec"
    yield f"   Preempt = {'enabled' if settings.preempt else 'disabled'}"
    yield f"   Authentication type = {settings.auth or 'none'}"
    yield f"   Virtual IP ({len(site.addresses)}):"
    for place in site.addresses:
        yield f"     {place.address.address} dev {place.device}"
    for track in settings.tracks:
        yield f"   Tracked {track.kind.value} = {track.name} weight {track.weight}"


def _all(runtime: Runtime) -> list[tuple[str, Machine]]:
    return list(runtime.router.machines.items())
