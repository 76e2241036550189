"""Build a lab, find it again, take it down.

A lab's state is /run/xlvs/labs/NAME: ``lab.json`` (what was asked for, and whether it
was finished), and a folder for each real server's nginx. The namespaces are named
``xlvs-NAME-NODE``. Nothing of a lab touches the namespace it is built from.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from xlvs.errors import XlvsError
from xlvs.lab import cgroups, namespaces, webserver
from xlvs.lab.topology import (
    GUE_PORT,
    LOCAL_ADDRESSES,
    SWITCH,
    Encapsulation,
    Method,
    Node,
    Topology,
    host_port,
    make,
)

LABS = "/run/xlvs/labs"
# Part of namespace names; no dash, so that no lab's names begin with another lab's.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

Say = Callable[[str], None]


def xlvs(*arguments: str) -> list[str]:
    """The command line of xlvs itself, by this interpreter, wherever it is installed."""
    return [sys.executable, "-P", "-m", "xlvs.cli.main", *arguments]


@dataclass(frozen=True)
class Lab:
    """A lab that is there, or is about to be."""

    name: str
    method: Method
    real_servers: int
    ipv6: bool
    finished: bool = False
    tunnel: Encapsulation = Encapsulation.IPIP
    local_addresses: int = LOCAL_ADDRESSES
    toa: bool = True  # FULLNAT's real servers show the client
    pair: str = ""  # two directors, and the program that speaks VRRP on them: one of pair.PROGRAMS

    @cached_property
    def topology(self) -> Topology:
        return make(self.method, self.real_servers, self.ipv6, self.local_addresses, bool(self.pair))

    @property
    def folder(self) -> str:
        return f"{LABS}/{self.name}"

    def namespace(self, node: str) -> str:
        """The network namespace of a node; XlvsError where the lab has no such node."""
        names = [SWITCH, *(entry.name for entry in self.topology.nodes)]
        if node not in names:
            raise XlvsError(f"lab '{self.name}' has no node '{node}': it has {', '.join(names[1:])}")
        return f"xlvs-{self.name}-{node}"

    @property
    def namespaces(self) -> list[str]:
        return [self.namespace(node) for node in (SWITCH, *(entry.name for entry in self.topology.nodes))]

    def site(self, number: int) -> str:
        """The folder of real server ``number``'s nginx (from 1)."""
        return f"{self.folder}/rs{number}"

    def cgroup(self, number: int) -> str:
        """The cgroup of real server ``number``'s nginx (from 1); in labs of FULLNAT only."""
        return cgroups.path(self.namespace(f"rs{number}"))

    def toa_command(self, number: int) -> list[str]:
        """What is typed after ``xlvs`` on real server ``number`` to have its nginx see clients."""
        return ["toa", "attach", "--from", *self.topology.pools, "--cgroup", self.cgroup(number)]

    def typed(self, node: str, command: Sequence[str]) -> list[str]:
        """The command line that types ``command`` on a node, as an operator would."""
        return namespaces.typed_inside(self.namespace(node), command)

    def run(self, node: str, command: Sequence[str], text: str | None = None) -> str:
        """Run a command on a node that must succeed, and return its output."""
        return namespaces.run(self.typed(node, command), text)

    def start(self, node: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command on a node, its output in pipes."""
        return subprocess.Popen(
            namespaces.inside(self.namespace(node), command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def save(self, finished: bool, folder: str | None = None) -> None:
        """Write the state file, into the lab's own folder if no other is named."""
        path = f"{folder or self.folder}/lab.json"
        state = {
            "method": self.method.value,
            "real_servers": self.real_servers,
            "ipv6": self.ipv6,
            "tunnel": self.tunnel.value,
            "local_addresses": self.local_addresses,
            "toa": self.toa,
            "pair": self.pair,
            "finished": finished,
        }
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump(state, file)
        os.replace(f"{path}.new", path)


def names() -> list[str]:
    """The labs that are there, finished or not."""
    try:
        return sorted(entry for entry in os.listdir(LABS) if _NAME.fullmatch(entry))
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise XlvsError("labs are root's: run this as root") from error


def present() -> list[Lab]:
    """The labs that are there; one that goes away meanwhile is not."""
    labs = []
    for name in names():
        with suppress(XlvsError):
            labs.append(load(name))
    return labs


def load(name: str) -> Lab:
    """Find a lab by name; XlvsError where there is none."""
    try:
        with open(f"{LABS}/{_checked(name)}/lab.json", encoding="ascii") as file:
            state = json.load(file)
        return Lab(
            name,
            Method(state["method"]),
            state["real_servers"],
            state["ipv6"],
            finished=state["finished"],
            # Older labs had no other.
            tunnel=Encapsulation(state.get("tunnel", "ipip")),
            local_addresses=state.get("local_addresses", LOCAL_ADDRESSES),
            toa=state.get("toa", True),
            pair=state.get("pair", ""),
        )
    except PermissionError as error:
        raise XlvsError("labs are root's: run this as root") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        there = ", ".join(names()) or "none"
        raise XlvsError(f"there is no lab '{name}' (labs here: {there}); 'xlvs lab up' builds one") from error


def up(lab: Lab, rules: bool = True, say: Say = lambda _: None) -> Lab:
    """Build a lab; what is half built when something fails or interrupts is taken down again.

    ``rules`` adds the service with all real servers. ``say`` hears each step.
    """
    if os.geteuid() != 0:
        raise XlvsError("a lab needs root: it makes network namespaces")
    _checked(lab.name)
    _ = lab.topology  # refuses bad numbers before anything is made
    with sigterm_interrupts():
        reserve(lab)
        try:
            machines(lab, say)
            _direct(lab, rules, say)
            if lab.pair:
                from xlvs.lab import pair  # which imports this module

                pair.start(lab, say)
            lab.save(finished=True)
        except BaseException:
            with undisturbed():
                _tear_down(lab, say=lambda _: None)
            raise
    return lab


def down(lab: Lab, say: Say = lambda _: None) -> None:
    """Take a lab down, whole or half built; nothing of it is left."""
    if os.geteuid() != 0:
        raise XlvsError("taking a lab down needs root")
    with undisturbed():
        _tear_down(lab, say)


def reserve(lab: Lab) -> None:
    """Take a lab's name, which nobody else can then take; from then on it is listed as half built."""
    os.makedirs(LABS, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LABS, prefix=".") as scratch:
        lab.save(finished=False, folder=scratch)
        try:
            # A folder cannot be renamed over one that has something in it.
            os.rename(scratch, lab.folder)
        except OSError as error:
            remedy = f"xlvs lab down --name {lab.name}"
            raise XlvsError(f"there is a lab '{lab.name}' already; '{remedy}' removes it") from error
        os.mkdir(scratch)  # what the block takes away


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise XlvsError(
            f"'{name}' is no name for a lab: use lower-case letters, digits and _, a letter first"
        )
    return name


def machines(lab: Lab, say: Say = lambda _: None) -> None:
    """The first half of a lab: every machine wired and configured, nginx running, no director yet."""
    topology = lab.topology
    say(f"lab '{lab.name}': {len(topology.nodes)} machines, wired")
    _wire(lab)
    for number, node in enumerate(topology.real_servers, 1):
        webserver.write_site(lab.site(number), f"<h1>{node.name.upper()}</h1>")
    say(f"real servers: nginx on {', '.join(node.addresses[0] for node in topology.real_servers)}")
    namespaces.run_all(
        namespaces.inside(lab.namespace(node.name), _nginx(lab, number))
        for number, node in enumerate(topology.real_servers, 1)
    )
    if lab.method is Method.FULLNAT and lab.toa:
        say(f"each real server# xlvs {' '.join(lab.toa_command(1))}")
        namespaces.run_all(
            lab.typed(node.name, xlvs(*lab.toa_command(number)))
            for number, node in enumerate(topology.real_servers, 1)
        )
    if not lab.method.translates:
        prepare = ["realserver", "prepare", "--method", lab.method.value, "--vip", *topology.vips]
        if lab.tunnel is Encapsulation.GUE:
            prepare += ["--gue-port", str(GUE_PORT)]
        say(f"each real server# xlvs {' '.join(prepare)}")
        namespaces.run_all(lab.typed(node.name, xlvs(*prepare)) for node in topology.real_servers)


def _nginx(lab: Lab, number: int) -> list[str]:
    command = webserver.start_command(lab.site(number))
    return cgroups.inside(lab.cgroup(number), command) if lab.method is Method.FULLNAT else command


def _direct(lab: Lab, rules: bool, say: Say) -> None:
    for number, node in enumerate(lab.topology.directors):
        interfaces = [port.name for port in node.interfaces]
        say(f"{node.name}# xlvs up {' '.join(interfaces)}")
        lab.run(node.name, xlvs("up", *interfaces))
        # Of a pair xlvs's own daemon makes the services.
        if rules and lab.pair != "xlvs":
            lines = rule_lines(lab.topology, tunnel=lab.tunnel, director=number)
            for line in lines:
                say(f"{node.name}# xlvs ipvsadm {line}")
            lab.run(node.name, xlvs("ipvsadm", "-R"), "".join(f"{line}\n" for line in lines))


def rule_lines(
    topology: Topology,
    scheduler: str = "rr",
    tunnel: Encapsulation = Encapsulation.IPIP,
    director: int = 0,
) -> list[str]:
    """The service with all real servers, as lines of ``ipvsadm -R``; both families where there are two."""
    lines = []
    for ipv6 in (False, True) if topology.ipv6 else (False,):
        service = f"-t {topology.service(ipv6)}"
        lines.append(f"-A {service} -s {scheduler}")
        if topology.local_addresses:
            lines.append(f"-P {service} -z {topology.pool(ipv6, director)}")
        for number in range(1, len(topology.real_servers) + 1):
            server = host_port(topology.rip(number, ipv6))
            lines.append(f"-a {service} -r {server} {topology.method.option}{tunnel.options}")
    return lines


def _wire(lab: Lab) -> None:
    topology = lab.topology
    namespaces.batch(f"netns add {name}" for name in lab.namespaces)
    namespaces.set_sysctls(lab.namespace(SWITCH), _SWITCH_SYSCTLS)
    for node in topology.nodes:
        namespaces.set_sysctls(lab.namespace(node.name), _sysctls(node))
    wires = [f"link add {segment} up type bridge mcast_snooping 0" for segment in topology.segments]
    for node in topology.nodes:
        for port in node.interfaces:
            end = f"{node.name}-{port.name}"
            wires.append(f"link add {end} type veth peer name {port.name} netns {lab.namespace(node.name)}")
            wires.append(f"link set {end} master {port.segment} up")
    switch = lab.namespace(SWITCH)
    namespaces.batch(wires, switch)
    for node in topology.nodes:
        namespaces.batch(_node_lines(node), lab.namespace(node.name))
    for end in [f"{node.name}-{port.name}" for node in topology.directors for port in node.interfaces]:
        # XDP frames redirected into a veth arrive only where the far end polls: GRO switches that on.
        namespaces.run(namespaces.inside(switch, ["ethtool", "-K", end, "gro", "on"]))
        if lab.pair:
            # No network card takes what a switch floods for another's address; XDP on a veth would.
            namespaces.run(namespaces.inside(switch, ["bridge", "link", "set", "dev", end, "flood", "off"]))
        if lab.tunnel is Encapsulation.GRE:
            # A real wire merges nothing; Linux would, and forget GRE's checksum as it cuts again.
            namespaces.batch([f"link set dev {end} gro_max_size 1"], switch)


# Wires have no addresses.
_SWITCH_SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}


def _sysctls(node: Node) -> dict[str, str]:
    forwarding = "1" if node.forwarding else "0"
    return {
        "net.ipv4.ip_forward": forwarding,
        "net.ipv6.conf.all.forwarding": forwarding,
        # Addresses are given by hand and known to be free: no second of waiting for each.
        "net.ipv6.conf.all.accept_dad": "0",
        "net.ipv6.conf.default.accept_dad": "0",
    }


def _node_lines(node: Node) -> Iterator[str]:
    yield "link set lo up"
    for port in node.interfaces:
        for address in port.addresses:
            # A VIP (/128) is never the source of what the machine itself sends, tunnels above all.
            options = " nodad" if ":" in address else ""
            options += " preferred_lft 0" if address.endswith("/128") else ""
            yield f"address add {address} dev {port.name}{options}"
        yield f"link set {port.name} up"
    for gateway in node.gateways:
        yield f"route add default via {gateway}"
    for network, gateway in node.routes:
        yield f"route add {network} via {gateway}"


def _tear_down(lab: Lab, say: Say) -> None:
    spaces = [name for name in lab.namespaces if namespaces.exists(name)]
    # What stands in maps and pins does not go with a namespace: take it back by the users' own commands.
    undo = [(node.name, xlvs("realserver", "undo")) for node in lab.topology.real_servers]
    undo += [(f"rs{number}", xlvs("toa", "detach", "--cgroup", folder)) for number, folder in _cgroups(lab)]
    undo += [(node.name, xlvs("down")) for node in lab.topology.directors]
    if lab.pair:  # whose daemons would go on changing things
        namespaces.kill_processes({lab.namespace(node.name) for node in lab.topology.directors} & set(spaces))
    troubles = namespaces.try_all(
        lab.typed(node, command) for node, command in undo if lab.namespace(node) in spaces
    )
    namespaces.kill_processes(spaces)
    for name in spaces:
        namespaces.delete(name)
    for _, folder in _cgroups(lab):
        cgroups.remove(folder)
    if os.path.exists(lab.folder):
        # Out of sight at once, so that nobody lists half of it.
        with tempfile.TemporaryDirectory(dir=LABS, prefix=".") as scratch:
            os.rename(lab.folder, f"{scratch}/gone")
    for trouble in troubles:
        say(f"while taking down: {trouble}")


def _cgroups(lab: Lab) -> list[tuple[int, str]]:
    """Number and cgroup of the real servers that have one."""
    if lab.method is not Method.FULLNAT:
        return []
    found = [(number, lab.cgroup(number)) for number in range(1, lab.real_servers + 1)]
    return [(number, folder) for number, folder in found if os.path.isdir(folder)]


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM unwind as Ctrl-C does, so that what is half built is taken down."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM off while things are taken down."""
    chosen = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in chosen]
    try:
        yield
    finally:
        for number, handler in zip(chosen, before, strict=True):
            signal.signal(number, handler)
