"""What `xlvs fwmark import` makes of a mangle table marks packets as netfilter itself does."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import product

import pytest

from xlvs.dataplane import marks
from xlvs.model import AF_INET
from xlvs.network.iptables import import_marks

pytestmark = pytest.mark.root
SENDER, RECEIVER = "xlvs-marks-a", "xlvs-marks-b"
TABLES = 8
CHAINS = ("PREROUTING", "one", "two")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.9")
PROTOCOLS = {"tcp": 6, "udp": 17}
PORTS = (1000, 1001, 1003, 1004)
PACKETS = tuple(product(ADDRESSES, PROTOCOLS, PORTS))
MARKS = range(6)
SEND = """if True:
    import socket, sys
    for word in sys.argv[1:]:
        address, protocol, port = word.split(",")
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as one:
            one.settimeout(2)
            try:
                one.connect((address, int(port)))
                one.send(b"x")
            except OSError:
                pass  # nobody listens: the packet was sent all the same"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def receiver() -> Iterator[list[str]]:
    """Two namespaces and a wire; the command that runs the rest of its line at the receiver."""
    for name in (SENDER, RECEIVER):
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    try:
        for name in (SENDER, RECEIVER):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", SENDER, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", RECEIVER)
        for name, address in ((SENDER, "10.9.0.1/24"), (RECEIVER, "10.9.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", SENDER, "route", "add", "10.0.0.0/24", "via", "10.9.0.2")
        ip("-n", RECEIVER, "route", "add", "local", "10.0.0.0/24", "dev", "lo")
        yield ["ip", "netns", "exec", RECEIVER]
    finally:
        for name in (SENDER, RECEIVER):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def table(chooser: random.Random) -> str:
    """A mangle table at random; chains jump to later ones only."""
    lines = []
    for depth, chain in enumerate(CHAINS):
        for _ in range(chooser.randrange(1, 7)):
            words = ["-A", chain]
            address = chooser.choice(("", "10.0.0.1/32", "10.0.0.0/30", "10.0.0.9/32"))
            words += ["-d", address] if address else []
            protocol = chooser.choice(("", "tcp", "udp"))
            words += ["-p", protocol] if protocol else []
            if protocol and chooser.random() < 0.6:
                ports = chooser.choice(
                    (("--dport", "1000"), ("--dport", "1001:1003"), ("--dports", "1000,1004"))
                )
                words += ["-m", "multiport" if ports[0] == "--dports" else protocol, *ports]
            verbs = [("-j", "MARK"), ("-j", "MARK"), ("-j", "MARK"), ("-j", "RETURN"), ("-j", "ACCEPT")]
            verbs += [(jump, later) for later in CHAINS[depth + 1 :] for jump in ("-j", "-g")]
            words += chooser.choice(verbs)
            words += ["--set-mark", str(chooser.choice(MARKS[1:]))] if words[-1] == "MARK" else []
            lines.append(" ".join(words))
    for (address, protocol, port), mark in product(PACKETS, MARKS):
        lines.append(f"-A INPUT -d {address} -p {protocol} --dport {port} -m mark --mark {mark}")
    names = "".join(f":{name} - [0:0]\n" for name in CHAINS[1:])
    return f"*mangle\n{names}" + "".join(f"{line}\n" for line in lines) + "COMMIT\n"


def test_random_tables(receiver: list[str]) -> None:
    seed = int(os.environ.get("XLVS_SEED", random.randrange(2**32)))
    print(f"XLVS_SEED={seed}")  # pytest shows it with a failure
    chooser = random.Random(seed)
    kinds = set()
    for _ in range(TABLES):
        subprocess.run([*receiver, "iptables-restore"], input=table(chooser), text=True, check=True)
        packets = [",".join(map(str, packet)) for packet in PACKETS]
        subprocess.run(["ip", "netns", "exec", SENDER, sys.executable, "-c", SEND, *packets], check=True)
        save = [*receiver, "iptables-save", "-c", "-t", "mangle"]
        saved = subprocess.run(save, capture_output=True, text=True, check=True).stdout
        found = import_marks(saved, AF_INET)
        assert not found.refusals
        stretches = marks.layout_of(found.rules)
        for address, protocol, port in PACKETS:
            ours = marks.mark_of(stretches, AF_INET, socket.inet_aton(address), PROTOCOLS[protocol], port)
            assert netfilter(saved, address, protocol, port) == {ours}, (
                f"seed {seed}: {address} {protocol} {port}\n{saved}"
            )
            kinds.add(ours)
    assert len(kinds) > 3


def netfilter(saved: str, address: str, protocol: str, port: int) -> set[int]:
    """The marks that packets of this kind had when they came in."""
    match = f"-d {address}/32 -p {protocol} -m {protocol} --dport {port} -m mark"
    line = rf"^\[[1-9]\d*:\d+\] -A INPUT {re.escape(match)} --mark (\S+)$"
    return {int(mark, 0) for mark in re.findall(line, saved, re.MULTILINE)}
