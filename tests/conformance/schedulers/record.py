"""Record what the real IPVS chooses on Debian's 6.1 kernel: python -m tests.conformance.schedulers.record"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.guest import GuestError, run_in_guest

RECORDING = Path(__file__).with_name("recording.json")


def play_in_guest(names: Iterable[str] = (), timeout: float = 1700) -> dict[str, str]:
    """The real IPVS's answers in these scenarios (all, where none is named)."""
    with tempfile.TemporaryDirectory() as scratch:
        words = ["-m", "tests.conformance.schedulers.kernel", "/mnt/share/answers.json", *names]
        command = f"/usr/bin/python3 {shlex.join(words)}"
        result = run_in_guest(command, share=Path(scratch), timeout=timeout)
        if result.status:
            raise GuestError(f"playing failed:\n{result.stdout}{result.stderr}")
        answers: dict[str, str] = json.loads(Path(scratch, "answers.json").read_text())
        return answers


def main() -> None:
    names = sys.argv[1:]
    recorded = json.loads(RECORDING.read_text()) if names and RECORDING.exists() else {}
    recorded |= play_in_guest(names)
    RECORDING.write_text(json.dumps(recorded, indent=0) + "\n")
    print(f"{len(recorded)} scenarios, {sum(map(len, recorded.values()))} choices", file=sys.stderr)


if __name__ == "__main__":
    main()
