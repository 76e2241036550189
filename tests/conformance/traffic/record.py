"""Record what the real IPVS does on Debian's 6.1 kernel: python -m tests.conformance.traffic.record"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.guest import GuestError, run_in_guest

RECORDING = Path(__file__).with_name("recording.json")


def play_in_guest(engine: str, names: Iterable[str] = (), timeout: float = 600) -> dict[str, list[str]]:
    """Play scenarios (all, where none is named) on one director in the guest."""
    with tempfile.TemporaryDirectory() as scratch:
        share = Path(scratch)
        (share / "names").write_text("".join(f"{name}\n" for name in names))
        command = (
            "mapfile -t names < /mnt/share/names; "
            f'python -m tests.conformance.traffic.play {engine} /mnt/share/record.json "${{names[@]}}"'
        )
        result = run_in_guest(command, share=share, timeout=timeout)
        if result.status:
            raise GuestError(f"playing on {engine} failed:\n{result.stdout}{result.stderr}")
        record: dict[str, list[str]] = json.loads((share / "record.json").read_text())
        return record


def main() -> None:
    record = play_in_guest("ipvs")
    RECORDING.write_text(json.dumps(record, indent=0) + "\n")
    print(f"{len(record)} scenarios, {sum(map(len, record.values()))} lines", file=sys.stderr)


if __name__ == "__main__":
    main()
