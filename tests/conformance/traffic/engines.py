"""The two directors under comparison, driven alike: real IPVS, and xlvs.

Both act in the present network namespace. A table is a list of lines in one form:
destinations in the director's own order, then connections in sorted order.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from tests.conformance.traffic.listings import (
    NUMBERS,
    Prefix,
    Subject,
    connection_line,
    destination_line,
    endpoint,
)
from tests.conformance.traffic.packets import AH, ESP, SCTP, TCP, UDP, Address
from tests.conformance.traffic.world import INSIDE, OUTSIDE

# What Debian loads by itself, had IPVS asked for it, and the helper of FTP, which nobody asks for.
MODULES = ("ip_vs", "ip_vs_ftp")
DIVERTED = "100"  # a routing table by which every address is the director's own
# IPVS's settings that scenarios change, and what they are in a new namespace.
SYSCTLS = {
    "cache_bypass": 0,
    "conn_reuse_mode": 1,
    "drop_packet": 0,
    "am_droprate": 10,
    "expire_nodest_conn": 0,
    "expire_quiescent_template": 0,
    "nat_icmp_send": 0,
    "pmtu_disc": 1,
    "schedule_icmp": 0,
    "secure_tcp": 0,
    "sloppy_tcp": 0,
    "sloppy_sctp": 0,
}
PROTOCOLS = {0: "IP", TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ESP: "ESP", AH: "AH"}


class Director(Protocol):
    """What the stage needs of a director."""

    patience: float
    """Seconds that a helper of it may take over packets."""
    at_once: int
    """How many of them may run side by side on one CPU, in namespaces of their own; 0: one in all."""

    def start(self) -> None:
        """Begin, without services."""

    def stop(self) -> None:
        """End, and leave nothing behind."""

    def forgive(self, seconds: float) -> None:
        """Make connections younger by the time that the player took, which no scenario asked for."""

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        """Run ipvsadm with ``typed`` as its standard input; all that it printed."""

    def sysctl(self, name: str, value: int) -> None:
        """Set one of :data:`SYSCTLS`."""

    def mark(self, target: Prefix, protocol: str, ports: str, mark: int) -> None:
        """Mark packets of a protocol (tcp, udp, sctp, all) to ports (80, 80:90, or "") of a network."""

    def destinations(self, subject: Subject) -> list[str]:
        """Destinations of the services, with their counters of connections."""

    def connections(self, subject: Subject) -> list[str]:
        """Connections of the services, with their states."""


class Ipvs:
    """The kernel's IPVS and the real ipvsadm (in the guest: other kernels here may have none)."""

    patience = 0.0
    # Where two namespaces have services, /proc/net/ip_vs skips some of them at the end of a page.
    at_once = 0

    def start(self) -> None:
        subprocess.run(["modprobe", "-a", *MODULES], check=True)

    def stop(self) -> None:
        self.ipvsadm(["-C"])

    def forgive(self, seconds: float) -> None:
        """Nobody can, with the kernel's; the real programs are quick enough."""

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        run = subprocess.run(
            ["ipvsadm", *arguments],
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",  # the real one may print what was never written
            check=False,
        )
        return run.stdout

    def sysctl(self, name: str, value: int) -> None:
        Path("/proc/sys/net/ipv4/vs", name).write_text(f"{value}\n")

    def mark(self, target: Prefix, protocol: str, ports: str, mark: int) -> None:
        program = "iptables" if target.version == 4 else "ip6tables"
        command = [program, "-w", "-t", "mangle", "-A", "PREROUTING"]
        command += ["-d", str(target), "-p", protocol, *(["--dport", ports] if ports else [])]
        subprocess.run([*command, "-j", "MARK", "--set-mark", str(mark)], check=True)
        if target.num_addresses > 1:
            # IPVS looks only at what is the director's own: marked packets are made so.
            family = f"-{target.version}"
            rule = ["ip", family, "rule", "add", "fwmark", str(mark), "table", DIVERTED]
            route = ["ip", family, "route", "replace", "local", "default", "dev", "lo", "table", DIVERTED]
            subprocess.run(rule, check=True)
            subprocess.run(route, check=True)

    def destinations(self, subject: Subject) -> list[str]:
        lines: dict[str, list[str]] = {name: [] for name in subject.services}
        ours: list[str] | None = None
        for words in _proc("ip_vs"):
            if words[0] == "->" and ours is not None:
                server, method, weight, active, inactive = words[1:6]
                line = destination_line(*_endpoint(server), method, int(weight), int(active), int(inactive))
                ours.append(line)
            elif words[0] == "FWM":
                ours = lines.get(subject.fwmark_name(int(words[1], 16)))
            elif words[0] in NUMBERS:
                ours = lines.get(f"{words[0]} {endpoint(*_endpoint(words[1]))}")
        return [line for service in lines.values() for line in service]

    def connections(self, subject: Subject) -> list[str]:
        lines = []
        for words in _proc("ip_vs_conn"):
            if words[0] == "Pro" or not subject.covers(_address(words[3])):
                continue
            ends = [(_address(words[i]), int(words[i + 1], 16)) for i in (1, 3, 5)]
            lines.append(connection_line(words[0], ends, words[7], int(words[8]), " ".join(words[9:])))
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

    # What the slow-path helper does may take its time, in the guest most of all.
    patience = 5.0
    at_once = 2  # scenarios that wait for something leave the CPU to others

    def start(self) -> None:
        from xlvs.cli.engine import open_data_plane
        from xlvs.dataplane.tables import Tables

        self._call(["up", OUTSIDE, INSIDE, "--connections", "4096"])
        self._plane = open_data_plane()
        self._tables = Tables()

    def stop(self) -> None:
        self._call(["down"])

    def forgive(self, seconds: float) -> None:
        import numpy

        from xlvs.dataplane import layout

        settings = self._tables.settings
        rows = numpy.frombuffer(self._tables.memory("conns"), dtype=numpy.dtype(layout.ConnRow))
        live = rows["phase"] & layout.PHASE == layout.LIVE
        # Jiffies come round, and do so five minutes after a kernel has begun.
        now = numpy.uint32(settings.now)
        ages = (now - rows["seen"][live]).astype(numpy.int32)
        younger = numpy.clip(ages - int(seconds * settings.hz), numpy.minimum(ages, 0), None)
        rows["seen"][live] = now - younger.astype(numpy.uint32)

    def ipvsadm(self, arguments: Sequence[str], typed: str = "") -> str:
        return _in_child(["xlvs", "ipvsadm", *arguments], typed)[0]

    def sysctl(self, name: str, value: int) -> None:
        self._call(["sysctl", f"{name}={value}"])

    def mark(self, target: Prefix, protocol: str, ports: str, mark: int) -> None:
        arguments = ["fwmark", "add", str(mark), "--to", str(target)]
        arguments += ["--protocol", protocol.replace("all", "any")]
        self._call([*arguments, *(["--port", ports] if ports else [])])

    def _call(self, arguments: Sequence[str]) -> None:
        output, status = _in_child(["xlvs", *arguments])
        if status:
            raise RuntimeError(f"xlvs {' '.join(arguments)}: {output}")

    def destinations(self, subject: Subject) -> list[str]:
        from xlvs.model import Forward

        names = {
            Forward.MASQ: "Masq",
            Forward.ROUTE: "Route",
            Forward.TUNNEL: "Tunnel",
            Forward.LOCAL: "Local",
        }
        lines = []
        for key in subject.service_keys():
            service = self._plane.service(key)
            for entry in service.destinations if service else ():
                server = entry.destination
                where = ip_address(server.key.address), server.key.port
                counts = server.weight, entry.active, entry.inactive
                lines.append(destination_line(*where, names[server.forward], *counts))
        return lines

    def connections(self, subject: Subject) -> list[str]:
        lines = []
        for entry in self._plane.connections():
            if subject.covers(ip_address(entry.virtual)):
                ends = [
                    (ip_address(entry.client), entry.client_port),
                    (ip_address(entry.virtual), entry.virtual_port),
                    (ip_address(entry.destination), entry.destination_port),
                ]
                engine = f"{entry.pe_name} {entry.pe_data}".strip()
                protocol = PROTOCOLS[entry.protocol]
                lines.append(connection_line(protocol, ends, entry.state, entry.expires, engine))
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
