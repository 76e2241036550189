"""``xlvs lab loss``: wires that lose frames or bring them late, and are good again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.errors import XlvsError
from xlvs.lab import build, wire
from xlvs.lab.topology import SWITCH, Method
from xlvs.lab.wire import Quality

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


def loss(made: build.Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = build.xlvs("lab", "loss", "--name", made.name, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def counter(made: build.Lab, node: str, name: str) -> int:
    """One of the kernel's counters of TCP on a node."""
    for line in made.run(node, ["nstat", "-asz", name]).splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError(f"no counter {name}")


def offload(made: build.Lab, node: str) -> bool:
    return "tx-checksumming: on" in made.run(node, ["ethtool", "-k", "eth0"])


def test_a_bad_wire_loses_and_reorders_and_tcp_gets_by() -> None:
    with labs.lab(Method.NAT, 1) as made:
        content = os.urandom(8 * MEBIBYTE)
        Path(made.site(1), "html/big").write_bytes(content)
        shown = json.loads(loss(made, "--json").stdout)
        assert shown == {name: {"lost": 0.0, "late": 0.0} for name in ("back", "clients", "front")}
        assert loss(made, "1", "--reorder", "10").returncode == 0
        assert not offload(made, "client")
        assert loss(made).stdout.splitlines() == [
            "back       good",
            "clients    1 % lost, 10 % late",
            "front      good",
        ]
        command = ["curl", "-sS", "--fail", "--max-time", "60", f"{made.topology.url()}/big"]
        fetched = subprocess.run(made.typed("client", command), capture_output=True, check=True).stdout
        assert hashlib.sha256(fetched).digest() == hashlib.sha256(content).digest()
        # Some six thousand segments: far more than one was lost, and far more than one came late.
        assert counter(made, "rs1", "TcpRetransSegs") > 5
        assert counter(made, "client", "TcpExtTCPOFOQueue") > 50

        assert loss(made, "0").returncode == 0
        assert loss(made, "--json").stdout == json.dumps(shown, indent=2) + "\n"
        assert offload(made, "client")
        assert "xdp" not in made.run(SWITCH, ["ip", "link", "show", "dev", "client-eth0"])
        before = counter(made, "rs1", "TcpRetransSegs")
        assert labs.answers(made, 5) == ["<h1>RS1</h1>"] * 5
        assert counter(made, "rs1", "TcpRetransSegs") == before


def test_what_is_lost_is_lost() -> None:
    with labs.machines(Method.NAT, 1) as made:
        ping = ["ping", "-q", "-c", "5", "-i", "0.02", "-W", "1", made.topology.rip(1)]
        assert "5 received" in made.run("director", ping)
        wire.spoil(made, "back", Quality(lost=100))
        assert "100% packet loss" in labs.typed(made, "director", ping).stdout
        wire.spoil(made, "back", Quality(late=100))
        assert "5 received" in made.run("director", ping)


def test_what_makes_no_sense_is_refused() -> None:
    with labs.machines(Method.DR, 1) as made:
        refused = loss(made, "3", "--segment", "back")
        assert (refused.returncode, refused.stderr) == (
            1,
            f"xlvs: lab '{made.name}' has no segment 'back': it has clients, front\n",
        )
        assert loss(made, "3", "--json").returncode == 1
        for quality in (Quality(lost=-1), Quality(lost=60, late=41), Quality(late=101)):
            with pytest.raises(XlvsError, match="together at most 100"):
                wire.spoil(made, "front", quality)
