"""Record what the real IPVS does on Debian's 6.1 kernel:

    python -m tests.conformance.traffic.record [TOPIC or part of a scenario's name ...]

A topic's recording is recordings/TOPIC.json.xz; show.py prints of one what there is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.conformance.traffic.recorded import Record, read, write
from tests.conformance.traffic.scenarios import topics
from tests.guest import GuestError, run_in_guest

BATCH = 150  # scenarios of one guest


def play_in_guest(engine: str, names: Iterable[str], timeout: float = 1700) -> Record:
    """Play scenarios on one director in the guest; prints the name of each that has ended."""
    with tempfile.TemporaryDirectory() as scratch:
        share = Path(scratch)
        (share / "names").write_text("".join(f"{name}\n" for name in names))
        command = (
            "mapfile -t names < /mnt/share/names; "
            f'python -m tests.conformance.traffic.play {engine} /mnt/share/record.json "${{names[@]}}"'
        )
        result = run_in_guest(command, share=share, timeout=timeout, on_output=_show)
        if result.status:
            raise GuestError(f"playing on {engine} failed:\n{result.stdout}{result.stderr}")
        record: Record = json.loads((share / "record.json").read_text())
        return record


def _show(_: str, text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def record(topic: str, names: list[str]) -> None:
    """Record scenarios of a topic, and keep what is recorded of its others."""
    found: Record = {}
    for start in range(0, len(names), BATCH):
        found |= play_in_guest("ipvs", names[start : start + BATCH])
    kept = read(topic) if len(names) < len(topics()[topic]) else {}
    write(topic, {name: found.get(name) or kept[name] for name in topics()[topic]})
    print(f"{topic}: {len(found)} scenarios, {sum(map(len, found.values()))} lines", file=sys.stderr)


def main() -> None:
    wanted = sys.argv[1:]
    for topic, members in topics().items():
        names = [name for name in members if topic in wanted or any(part in name for part in wanted)]
        if names or not wanted:
            record(topic, names or list(members))


if __name__ == "__main__":
    main()
