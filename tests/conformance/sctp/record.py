"""Have the real IPVS say which state every path leads to: python -m tests.conformance.sctp.record

In the guest, ``python -m tests.conformance.sctp.record PATHS OUTPUT`` plays them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from tests.conformance.sctp.paths import METHODS, paths
from tests.conformance.sctp.program import Programs
from tests.conformance.traffic.world import World, server_address
from tests.guest import GuestError, run_in_guest
from tests.packet.sctp import Association, chunk

RECORDING = Path(__file__).with_name("recording.json")
VIPS = {"nat": "10.80.0.1", "dr": "10.80.0.2"}
OPTION = {"nat": "-m", "dr": "-g"}
FIRST_PORT = 10000
CLIENT, RIP = "198.18.0.1", str(server_address(4, 1))


def play(chosen: dict[str, list[list[str]]]) -> list[list[object]]:
    """Method, path, state, timeout in seconds, active and inactive connections after each path."""
    subprocess.run(["modprobe", "ip_vs"], check=True)
    world = World(map(ip_address, VIPS.values()))
    Path("/proc/sys/net/ipv4/vs/sloppy_sctp").write_text("1")
    rules = [line for method, each in chosen.items() for line in _rules(method, len(each))]
    subprocess.run(["ipvsadm", "-R"], input="".join(rules), text=True, check=True)
    record: list[list[object]] = []
    for method, each in chosen.items():
        for port, path in enumerate(each, FIRST_PORT):
            for step in path:
                side, name = step.split()
                _send(world, VIPS[method], port, side, name)
            # A connection that a new one took the place of goes with the next tick of the kernel's timer.
            time.sleep(0.05)
            record.append([method, path, *_found(port, VIPS[method]), *_loads(port, VIPS[method])])
    subprocess.run(["ipvsadm", "-C"], check=True)
    return record


def _rules(method: str, count: int) -> Iterator[str]:
    """A service for each path, at a port that is the client's, too: its counters are that path's alone."""
    for port in range(FIRST_PORT, FIRST_PORT + count):
        service = f"--sctp-service {VIPS[method]}:{port}"
        yield f"-A {service} -s rr\n"
        yield f"-a {service} -r {RIP}:{80 if method == 'nat' else port} {OPTION[method]}\n"


def _send(world: World, vip: str, port: int, side: str, name: str) -> None:
    if side == "in":
        packet = Association(CLIENT, vip, port, port, chunks=chunk(name)).packet()
        world.exchange("outside", "router", packet)
    else:
        packet = Association(RIP, CLIENT, 80, port, chunk(name)).packet()
        world.exchange("inside", "RS1", packet)


def _found(port: int, vip: str) -> tuple[str, int]:
    source, target = (ip_address(each).packed.hex().upper() for each in (CLIENT, vip))
    client = f"SCTP {source} {port:04X} {target}"
    for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines():
        if line.startswith(client):
            words = line.split()
            return words[7], int(words[8])
    return "none", 0


def _loads(port: int, vip: str) -> list[int]:
    service = ["SCTP", f"{ip_address(vip).packed.hex().upper()}:{port:04X}"]
    lines = iter(Path("/proc/thread-self/net/ip_vs").read_text().splitlines())
    for line in lines:
        if line.split()[:2] == service:
            return [int(word) for word in next(lines).split()[-2:]]
    raise LookupError(vip)


def main() -> None:
    if sys.argv[1:]:
        record = play(json.loads(Path(sys.argv[1]).read_text()))
        Path(sys.argv[2]).write_text(json.dumps(record))
        return
    with tempfile.TemporaryDirectory() as scratch, Programs() as programs:
        share = Path(scratch)
        chosen = {method: list(paths(method, partial(programs.state_after, method))) for method in METHODS}
        (share / "paths").write_text(json.dumps(chosen))
        run = run_in_guest(
            "python -m tests.conformance.sctp.record /mnt/share/paths /mnt/share/record", share, 600
        )
        if run.status:
            raise GuestError(f"playing failed:\n{run.stdout}{run.stderr}")
        record = json.loads((share / "record").read_text())
    lines = ",\n".join(json.dumps(each) for each in record)
    RECORDING.write_text(f"[\n{lines}\n]\n")
    print(f"{len(record)} paths", file=sys.stderr)


if __name__ == "__main__":
    main()
