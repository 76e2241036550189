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
    """Play the events with a program in the guest; the listings and scripts by the file's name."""
    for name in ("events.sh", "keepalived.conf"):
        shutil.copy(HERE / name, folder)
    (folder / "expected").mkdir()
    for name, text in (expected or {}).items():
        (folder / "expected" / name).write_text(text)
    patience = "" if expected else "patience=10 "
    run_in_guest(f"{patience}bash /mnt/share/events.sh {program}", share=folder, timeout=600)
    return {path.name: path.read_text() for path in sorted((folder / "got").iterdir())}


def main() -> None:
    """Play them with the real one."""
    with tempfile.TemporaryDirectory() as name:
        got = play("keepalived", Path(name))
    del got["log"]
    RECORDING.write_text(json.dumps(got, indent=1) + "\n")


if __name__ == "__main__":
    main()
