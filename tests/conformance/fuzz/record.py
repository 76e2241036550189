"""Ask the real ipvsadm, and write its answers down or compare ours with them.

python -m tests.conformance.fuzz.record                  record 10,000 commands
python -m tests.conformance.fuzz.record --explore SEED N compare N new commands with ours
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.fuzz import recording
from tests.conformance.fuzz.commands import SEQUENCE, sequence
from tests.conformance.fuzz.guest import Asked, ask
from tests.conformance.fuzz.replay import HostsFile, differences, memory_plane

SEED = 1998  # the year in which LVS was begun
COMMANDS = 10_000
GUESTS = 2


def _ask(seed: int, commands: int) -> Asked:
    """Ask for a seed's first sequences, in two guests side by side."""
    sequences = [sequence(seed, number) for number in range(-(-commands // SEQUENCE))]
    share = -(-len(sequences) // GUESTS)
    parts = [sequences[start : start + share] for start in range(0, len(sequences), share)]
    with ThreadPoolExecutor(GUESTS) as pool:
        asked = list(pool.map(lambda part: ask(part, timeout=3600), parts))
    return Asked(asked[0].program, asked[0].kernel, [one for part in asked for one in part.sequences])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--explore", nargs=2, type=int, metavar=("SEED", "N"))
    arguments = parser.parse_args()
    if arguments.explore:
        seed, count = arguments.explore
        found = 0
        for steps in _ask(seed, count).sequences:
            for text in differences(steps, memory_plane(), HostsFile()):
                found += 1
                print(text, end="\n\n")
                break
        print(f"{found} sequences with differences")
        return 1 if found else 0
    asked = _ask(SEED, COMMANDS)
    recording.save(recording.Recording(SEED, asked.program, asked.kernel, asked.sequences))
    print(f"{COMMANDS} commands, {asked.program} on {asked.kernel}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
