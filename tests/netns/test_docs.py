"""The commands of our documents, typed as printed, on a machine with an eth0 and an eth1."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.documents import REPOSITORY, Block, console_blocks, is_make

pytestmark = pytest.mark.root
PEERS = f"xlvs-docs-peer-{os.getpid()}"
HOST = f"xlvs-docs-{os.getpid()}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def host() -> Iterator[str]:
    """A network namespace with eth0 and eth1, each linked to a neighbour, as on a director."""
    for name in (HOST, PEERS):
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    try:
        ip("netns", "add", HOST)
        ip("netns", "add", PEERS)
        for number, address in enumerate(("10.1.252.160/24", "192.168.22.1/24")):
            name = f"eth{number}"
            ip("-n", HOST, "link", "add", name, "type", "veth", "peer", "name", name, "netns", PEERS)
            ip("-n", HOST, "address", "add", address, "dev", name)
            ip("-n", HOST, "link", "set", name, "up")
            ip("-n", PEERS, "link", "set", name, "up")
        ip("-n", HOST, "link", "set", "lo", "up")
        yield HOST
    finally:
        for name in (HOST, PEERS):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.parametrize(
    "block", [block for block in console_blocks() if not any(map(is_make, block.commands))], ids=str
)
def test_commands_of_a_block_work_in_a_row(block: Block, host: str) -> None:
    environment = {**os.environ, "PATH": f"{REPOSITORY}/.venv/bin:{os.environ['PATH']}"}
    for command in block.commands:
        # A lab is built from the machine itself, everything else typed on a director.
        place = [] if block.commands[0].startswith("xlvs lab") else ["ip", "netns", "exec", host]
        run = subprocess.run(
            [*place, "bash", "-c", command],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{block}: {command}\n{run.stdout}{run.stderr}"
        assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_make_demo() -> None:
    run = subprocess.run(["make", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
