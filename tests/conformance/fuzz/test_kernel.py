"""Some hundred of the recorded commands by ``--engine kernel``, on the kernel's own IPVS in the guest."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conformance.fuzz.commands import SEQUENCE
from tests.conformance.fuzz.guest import prologue
from tests.conformance.fuzz.recording import load
from tests.conformance.fuzz.vocabulary import HOSTS
from tests.guest import run_in_guest

COMMANDS = 100
REPOSITORY = Path(__file__).resolve().parents[3]
# In the guest, in one process: Python starts slowly there.
SCRIPT = """
import sys
sys.path.insert(0, {repository!r})
from tests.conformance.fuzz.recording import load
from tests.conformance.fuzz.replay import HostsFile, differences
from xlvs.cli.engine import open_data_plane

plane = open_data_plane("kernel")
compared = 0
for steps in load().sequences[{start}:{end}]:
    for difference in differences(steps, plane, HostsFile()):
        print(difference)
    compared += len(steps)
print("compared", compared)
"""


@pytest.mark.guest
@pytest.mark.root
@pytest.mark.slow
def test_a_random_part_on_the_kernels_own_ipvs(tmp_path: Path) -> None:
    seed = int(os.environ.get("XLVS_SEED", random.randrange(2**32)))
    print(f"XLVS_SEED={seed}")  # pytest shows it with a failure
    count = COMMANDS // SEQUENCE
    start = random.Random(seed).randrange(len(load().sequences) - count + 1)
    script = SCRIPT.format(repository=str(REPOSITORY), start=start, end=start + count)
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "hosts").write_text(HOSTS)
    commands = "\n".join([*prologue(), f"{REPOSITORY}/.venv/bin/python /mnt/share/script.py"])
    done = run_in_guest(commands, share=tmp_path, timeout=800)
    assert (done.stdout, done.status) == (f"compared {count * SEQUENCE}\n", 0), done.stderr
