"""Some hundred of the recorded commands, asked again of the real program, live."""

from __future__ import annotations

import os
import random

import pytest

from tests.conformance.fuzz.commands import SEQUENCE
from tests.conformance.fuzz.guest import ask
from tests.conformance.fuzz.recording import load
from tests.conformance.fuzz.replay import HostsFile, comparable, differences, memory_plane, shown

COMMANDS = 300


@pytest.mark.guest
@pytest.mark.root
def test_a_random_part_is_still_what_the_real_program_says() -> None:
    seed = int(os.environ.get("XLVS_SEED", random.randrange(2**32)))
    print(f"XLVS_SEED={seed}")  # pytest shows it with a failure
    sequences = load().sequences
    count = COMMANDS // SEQUENCE
    start = random.Random(seed).randrange(len(sequences) - count + 1)
    chosen = sequences[start : start + count]
    asked = ask([[step.command for step in steps] for steps in chosen])
    assert sum(map(len, asked.sequences)) == COMMANDS
    for recorded, live in zip(chosen, asked.sequences, strict=True):
        for before, now in zip(recorded, live, strict=True):
            where = f"seed {seed}: {shown(now.command)}: not what was recorded"
            assert comparable(now.answer, now.command) == comparable(before.answer, now.command), where
            assert now.listings == before.listings, where
        for difference in differences(live, memory_plane(), HostsFile()):
            raise AssertionError(f"seed {seed}\n{difference}")
