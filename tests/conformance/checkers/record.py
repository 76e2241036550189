"""Record what Debian's keepalived makes of the events: ``python -m tests.conformance.checkers.record``."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.guest import run_in_guest

HERE = Path(__file__).parent
RECORDING = HERE / "recorded.json"


def play(program: str, folder: Path, expected: dict[str, str] | None = None) -> dict[str, str]:
    """Play the events with a program in the guest; the listings and scripts by the file's name.

    Where something is expected, the program then takes over from the real one and gives back.
    """
    for path in HERE.iterdir():
        if path.suffix in (".sh", ".conf") or path.name in ("servers.py", "traffic.py"):
            shutil.copy(path, folder)
    command = f"bash /mnt/share/events.sh {program}"
    if expected:
        (folder / "expected").mkdir()
        for name, text in expected.items():
            (folder / "expected" / name).write_text(text)
        command += f"; bash /mnt/share/takeover.sh {program}"
    run_in_guest(command, share=folder, timeout=1500)
    return {path.name: path.read_text() for path in sorted((folder / "got").iterdir())}


def corrected(got: dict[str, str]) -> dict[str, str]:
    """Without what keepalived 2.2.7 forgets: the service of a group's address that a reload took away."""
    for step in (44, 45, 46, 48):
        name = f"{step}.listing"
        lines = got[name].splitlines(keepends=True)
        got[name] = "".join(line for line in lines if "10.9.0.41:80" not in line)
    return got


def main() -> None:
    """Play them with the real one."""
    with tempfile.TemporaryDirectory() as name:
        got = play("keepalived", Path(name))
    del got["log"]
    RECORDING.write_text(json.dumps(corrected(got), indent=1) + "\n")


if __name__ == "__main__":
    main()
