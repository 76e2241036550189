"""The two directors under comparison, driven alike: real IPVS, and xlvs.

Both act in the present network namespace. A table is a list of lines in one form:
destinations in the director's own order, then connections in sorted order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from tests.conformance.traffic.packets import Address
from tests.conformance.traffic.world import INSIDE, OUTSIDE

# What is left of a timeout is told as the timeout it is a rest of: scenarios are short.
TIMEOUTS = (10, 30, 60, 120, 300, 900)
PROTOCOLS = {6: "TCP", 17: "UDP"}


def timeout_of(rest: float) -> str:
    return next((f"{timeout}s" for timeout in TIMEOUTS if rest <= timeout), f"{rest} seconds?")


def endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


class Director(Protocol):
    """What the stage needs of a director."""

    def start(self) -> None:
        """Begin, without services."""

    def stop(self) -> None:
        """End, and leave nothing behind."""

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        """Run ipvsadm with ``typed`` as its standard input; all that it printed."""

    def destinations(self, vip: Address) -> list[str]:
        """Destinations of a VIP's services (TCP 80, UDP 53), with their counters of connections."""

    def connections(self, vip: Address) -> list[str]:
        """Connections of a VIP, with their states."""


class Ipvs:
    """The kernel's IPVS and the real ipvsadm (in the guest: other kernels here may have none)."""

    def start(self) -> None:
        subprocess.run(["modprobe", "ip_vs"], check=True)

    def stop(self) -> None:
        self.ipvsadm(["-C"])

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        run = subprocess.run(
            ["ipvsadm", *arguments],
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return run.stdout

    def destinations(self, vip: Address) -> list[str]:
        lines: dict[str, list[str]] = {protocol: [] for protocol in PROTOCOLS.values()}
        ours = ""
        for words in _proc("ip_vs"):
            if words[0] in lines:
                ours = words[0] if _endpoint(words[1])[0] == vip else ""
            elif words[0] == "->" and ours:
                server, method, weight, active, inactive = words[1:6]
                counts = f"active {active} inactive {inactive}"
                lines[ours].append(f"{endpoint(*_endpoint(server))} {method} {weight} {counts}")
        return [line for protocol in lines.values() for line in protocol]

    def connections(self, vip: Address) -> list[str]:
        lines = []
        for words in _proc("ip_vs_conn"):
            if words[0] in PROTOCOLS.values():
                ends = [endpoint(_address(words[i]), int(words[i + 1], 16)) for i in (1, 3, 5)]
                if _address(words[3]) == vip:
                    lines.append(f"{words[0]} {' '.join(ends)} {words[7]} {timeout_of(int(words[8]))}")
        return sorted(lines)


def _proc(name: str) -> Iterator[list[str]]:
    # Not /proc/net: the namespace of this thread, not the one that the process began in.
    for line in Path("/proc/thread-self/net", name).read_text().splitlines():
        yield line.split()


def _address(text: str) -> Address:
    return ip_address(text if ":" in text else bytes.fromhex(text))


def _endpoint(text: str) -> tuple[Address, int]:
    address, _, port = text.rpartition(":")
    return _address(address.strip("[]")), int(port, 16)


class Xlvs:
    """xlvs, called in children of this process: a Python of its own starts slowly in the guest."""

    def start(self) -> None:
        from xlvs.cli.engine import open_data_plane

        self._call(["up", OUTSIDE, INSIDE, "--connections", "4096"])
        self._plane = open_data_plane()

    def stop(self) -> None:
        self._call(["down"])

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        return _in_child(["xlvs", "ipvsadm", *arguments], typed)[0]

    def _call(self, arguments: Sequence[str]) -> None:
        output, status = _in_child(["xlvs", *arguments])
        if status:
            raise RuntimeError(f"xlvs {' '.join(arguments)}: {output}")

    def destinations(self, vip: Address) -> list[str]:
        from xlvs.model import AF_INET, AF_INET6, L4, Forward, ServiceKey

        family = AF_INET if vip.version == 4 else AF_INET6
        names = {
            Forward.MASQ: "Masq",
            Forward.ROUTE: "Route",
            Forward.TUNNEL: "Tunnel",
            Forward.LOCAL: "Local",
        }
        lines = []
        for protocol, port in ((L4.TCP, 80), (L4.UDP, 53)):
            service = self._plane.service(ServiceKey(family, protocol, vip.packed, port))
            for entry in service.destinations if service else ():
                server = entry.destination
                name = endpoint(ip_address(server.key.address), server.key.port)
                counts = f"active {entry.active} inactive {entry.inactive}"
                lines.append(f"{name} {names[server.forward]} {server.weight} {counts}")
        return lines

    def connections(self, vip: Address) -> list[str]:
        lines = []
        for entry in self._plane.connections():
            if entry.virtual == vip.packed:
                ends = [
                    endpoint(ip_address(entry.client), entry.client_port),
                    endpoint(ip_address(entry.virtual), entry.virtual_port),
                    endpoint(ip_address(entry.destination), entry.destination_port),
                ]
                words = [PROTOCOLS[entry.protocol], *ends, entry.state, timeout_of(entry.expires)]
                lines.append(" ".join(words))
        return sorted(lines)


def _in_child(argv: list[str], typed: str = "") -> tuple[str, int]:
    """Run the command line of xlvs in a fork of this process; its output and exit status."""
    from xlvs.cli.main import main

    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
        source.write(typed.encode())
        source.seek(0)
        child = os.fork()
        if child == 0:
            status = 70
            try:
                for number, stream in enumerate((source, output, output)):
                    os.dup2(stream.fileno(), number)
                sys.stdin = os.fdopen(0)
                sys.stdout, sys.stderr, sys.argv = os.fdopen(1, "w"), os.fdopen(2, "w"), argv
                status = main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return output.read().decode(), os.waitstatus_to_exitcode(status)


ENGINES: dict[str, type[Ipvs] | type[Xlvs]] = {"ipvs": Ipvs, "xlvs": Xlvs}


def listing(text: str, vip: Address) -> list[str]:
    """The lines of an ``ipvsadm -L`` that are about a VIP.

    Connections (``-Lc``) are sorted, since the kernel's order is that of a hash with a random
    seed, and the rest of a timeout is told as the timeout.
    """
    prefix = endpoint(vip, 0)[:-1]
    lines = []
    connections = []
    ours = False
    for line in text.splitlines():
        if connection := re.match(r"(\w+ +)(\d+):(\d\d)( .*)", line):
            head, minutes, seconds, tail = connection.groups()
            if f" {prefix}" in tail:
                connections.append(f"  {head}{timeout_of(int(minutes) * 60 + int(seconds))}{tail}")
            continue
        if not line.startswith("  ->"):
            ours = re.match(rf"\w+ +{re.escape(prefix)}", line) is not None
        if ours:
            lines.append(f"  {line}")
    return lines + sorted(connections)
