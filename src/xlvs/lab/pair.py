"""Two directors instead of one: a keepalived.conf for each, and the daemons that read them.

By ``xlvs`` the daemon does all of it, by ``keepalived`` the real one does the VRRP alone, and
services stay as they are: two labs that differ in nothing but who elects.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator

from xlvs.errors import XlvsError
from xlvs.lab import namespaces
from xlvs.lab.build import Lab, Say, xlvs
from xlvs.lab.topology import PORT, Method

PROGRAMS = ("xlvs", "keepalived")
ROUTER_ID = 51
PRIORITIES = (150, 100)
PATIENCE = 30.0  # seconds for the first election


def folder(lab: Lab, number: int) -> str:
    """Where director ``number`` (from 0) has its configuration, its log and its PID files."""
    return f"{lab.folder}/{lab.topology.directors[number].name}"


def start(lab: Lab, say: Say = lambda _: None) -> None:
    """Write the configurations, start both daemons, and wait for a master."""
    for number in range(2):
        os.makedirs(folder(lab, number), mode=0o700, exist_ok=True)
        path = f"{folder(lab, number)}/keepalived.conf"
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in configuration(lab, number))
        say(
            f"{lab.topology.directors[number].name}# {lab.pair} keepalived -f {path}".replace(
                "keepalived k", "k"
            )
        )
        launch(lab, number)
    wait_for_master(lab)


def launch(lab: Lab, number: int) -> None:
    """Start the daemon of director ``number`` (from 0) in its namespace; its words go to a log file."""
    own = folder(lab, number)
    files = [f"--{name}={own}/{name}.pid" for name in ("pid", "vrrp_pid", "checkers_pid")]
    options = ["--dont-fork", "--log-console", f"--use-file={own}/keepalived.conf", *files]
    command = xlvs("keepalived", *options) if lab.pair == "xlvs" else ["keepalived", "--vrrp", *options]
    node = lab.topology.directors[number].name
    with open(f"{own}/log", "ab") as log:
        subprocess.run(
            ["setsid", "--fork", *lab.typed(node, command)],  # nobody's child: it outlives this process
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def masters(lab: Lab) -> list[int]:
    """Which directors (from 0) have the VIP now."""
    return [number for number in range(2) if _has_vip(lab, number)]


def wait_for_master(lab: Lab, patience: float = PATIENCE) -> int:
    """Wait until exactly one director has the VIP, and tell which (from 0)."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = masters(lab)
        if len(found) == 1:
            return found[0]
        time.sleep(0.05)
    raise XlvsError(f"no director became master within {patience:g} seconds: see {lab.folder}/director*/log")


def _has_vip(lab: Lab, number: int) -> bool:
    space = lab.namespace(lab.topology.directors[number].name)
    if not namespaces.exists(space):
        return False
    links = json.loads(namespaces.run(["ip", "-n", space, "-json", "address", "show", "dev", "eth0"]))
    return any(each["local"] == lab.topology.vips[0] for link in links for each in link.get("addr_info", []))


def configuration(lab: Lab, number: int) -> Iterator[str]:
    """The keepalived.conf of director ``number`` (from 0), line by line."""
    topology = lab.topology
    first, *others = topology.moving
    yield from ("global_defs {", f"    router_id {topology.directors[number].name}", "}", "")
    yield "vrrp_instance lab {"
    yield f"    state {'BACKUP' if number else 'MASTER'}"
    yield "    interface eth0"
    yield f"    virtual_router_id {ROUTER_ID}"
    yield f"    priority {PRIORITIES[number]}"
    yield "    advert_int 1"
    yield from ("    virtual_ipaddress {", f"        {first[0]} dev {first[1]}", "    }")
    if others:
        yield "    virtual_ipaddress_excluded {"
        yield from (f"        {address} dev {device}" for address, device in others)
        yield "    }"
    tracked = [port.name for port in topology.directors[number].interfaces[1:]]
    if tracked:
        yield from ("    track_interface {", *(f"        {name}" for name in tracked), "    }")
    yield "}"
    if lab.pair != "xlvs":
        return
    for ipv6 in (False, True) if topology.ipv6 else (False,):
        yield from _service(lab, number, ipv6)


def _service(lab: Lab, number: int, ipv6: bool) -> Iterator[str]:
    topology, group = lab.topology, f"locals{6 if ipv6 else 4}"
    fullnat = lab.method is Method.FULLNAT
    yield ""
    if fullnat:
        yield from (f"local_address_group {group} {{", f"    {_range(topology.pool(ipv6, number))}", "}", "")
    yield f"virtual_server {topology.vips[ipv6]} {PORT} {{"
    yield from ("    delay_loop 1", "    lvs_sched rr", "    protocol TCP")
    if fullnat:
        yield from ("    lb_kind FNAT", f"    laddr_group_name {group}")
    else:
        yield f"    lvs_method {_method(lab)}"
    for server in range(1, len(topology.real_servers) + 1):
        yield f"    real_server {topology.rip(server, ipv6)} {PORT} {{"
        yield "        weight 1"
        yield from ("        TCP_CHECK {", "            connect_timeout 1", "            retry 1")
        yield from ("            delay_before_retry 1", "        }", "    }")
    yield "}"


def _method(lab: Lab) -> str:
    if lab.method is not Method.TUN:
        return lab.method.value.upper()
    port = " port 6080" if lab.tunnel.value == "gue" else ""
    return f"TUN type {lab.tunnel.value}{port}"


def _range(pool: str) -> str:
    """A pool as keepalived.conf writes ranges: of the last address the last part alone."""
    first, _, last = pool.partition("-")
    if not last:
        return first
    mark = ":" if ":" in first else "."
    head, same = first.rpartition(mark)[0], last.rpartition(mark)[0]
    return f"{first}-{last.rpartition(mark)[2]}" if head == same else pool
