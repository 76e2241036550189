"""The XDP engine answers as the real one did, in a network namespace like the recording guest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.fuzz.record import COMMANDS
from tests.conformance.fuzz.vocabulary import HOSTS, INTERFACES

NAMESPACE = f"xlvs-fuzz-{os.getpid()}"
REPOSITORY = Path(__file__).resolve().parents[3]
# Runs inside the namespace: an engine belongs to the namespace that its process is in.
SCRIPT = """
from tests.conformance.fuzz.recording import load
from tests.conformance.fuzz.replay import differences
from xlvs.cli.engine import open_data_plane
from xlvs.ipvsadm.names import Names

plane = open_data_plane()
compared = 0
for steps in load().sequences:
    for difference in differences(steps, plane, Names()):
        raise SystemExit(difference)
    compared += len(steps)
print(compared)
"""


@pytest.fixture
def namespace() -> Iterator[list[str]]:
    """The command that runs the rest of its line in a namespace with the guest's interfaces and hosts."""
    files = Path("/etc/netns") / NAMESPACE  # ip netns exec binds what is in there over /etc
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    inside = ["ip", "netns", "exec", NAMESPACE]
    try:
        files.mkdir(parents=True)
        (files / "hosts").write_text(HOSTS)
        (files / "resolv.conf").write_text("")
        (files / "nsswitch.conf").write_text("hosts: files\nservices: files\n")
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        for name, (mtu, state, addresses) in INTERFACES.items():
            link = ["ip", "link", "add", name, "mtu", str(mtu), "type", "veth", "peer", f"{name}-far"]
            subprocess.run([*inside, *link], check=True)
            if state == "up":
                for end in (name, f"{name}-far"):
                    subprocess.run([*inside, "ip", "link", "set", end, "up"], check=True)
            for address in addresses:
                command = [*inside, "ip", "address", "add", address, "dev", name]
                command += ["nodad"] if ":" in address else []
                subprocess.run(command, check=True)
        yield inside
    finally:
        subprocess.run([*inside, sys.executable, "-m", "xlvs.cli.main", "down"], check=False)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)
        for file in files.iterdir():
            file.unlink()
        files.rmdir()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of work, on a machine that has nothing else to do
def test_every_answer_is_the_real_programs(namespace: list[str]) -> None:
    command = [*namespace, sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == COMMANDS
