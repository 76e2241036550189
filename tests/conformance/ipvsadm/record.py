"""Ask the real ipvsadm, on the real IPVS of the guest, and write its answers down.

    python -m tests.conformance.ipvsadm.record

The answers to table.txt go to answers.json, the listings of samples.sh to samples.json.

One boot answers the whole table. The commands run from a bash script there, because
starting Python under software emulation is slow.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.ipvsadm.table import ANSWERS, HERE, SAMPLES, Answer, Section, load
from tests.guest.machine import run_in_guest

# The real programs by name, because their names appear in what they print.
PROLOGUE = """
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /tmp/out && cd /tmp/out
# The guest's own copy: what names mean must not depend on the machine that records.
echo '127.0.0.1 localhost' > /etc/hosts
: > /etc/resolv.conf
modprobe ip_vs
step() {
  local n=$1; shift
  "$@" < /mnt/share/in/$n > $n.stdout 2> $n.stderr; echo $? > $n.status
}
section() { ipvsadm -C; ipvsadm --set 900 120 300; }
uname -r > kernel
"""
# What the shim of samples.sh answers. The real program asks ten times for a service
# (connections, packets in and out, bytes in and out, the same per second), but twice for
# a server (bytes in and out): the rest of a server's numbers it reads as 32 bits.
COUNTERS = (
    *(0, 99_999_999, 100_000_000, 999_999_999, 1_000_000_000),
    *(7, 12_345_678, 123_456_789, 1_999_999_999, 100_000_000_000),
    *(99_999_999_999, 2**64 - 1),
)
EPILOGUE = """
tar -cf /mnt/share/out.tar .
"""


@dataclass(frozen=True)
class Recording:
    """The guest's kernel, answers by the table's line numbers, and samples by name."""

    kernel: str
    answers: dict[int, Answer]
    samples: dict[str, str]


def ask(sections: Iterable[Section], timeout: float = 900, *, samples: bool = False) -> Recording:
    """Run the sections, and the samples where wanted, in one guest."""
    chosen = list(sections)
    with tempfile.TemporaryDirectory(prefix="ipvsadm-record.") as scratch:
        share = Path(scratch)
        (share / "in").mkdir()
        script = [PROLOGUE]
        for section in chosen:
            script.append("section")
            for step in section.steps:
                (share / "in" / str(step.line)).write_bytes(step.stdin.encode())
                script.append(f"step {step.line} {shlex.join(step.argv)}")
        if samples:
            library = str(share / "counters.so")
            subprocess.run(
                ["clang-16", "-shared", "-fPIC", "-o", library, str(HERE / "counters.c")], check=True
            )
            script.append(f"export COUNTERS='{' '.join(map(str, COUNTERS))}'")
            script.append((HERE / "samples.sh").read_text())
        (share / "run.sh").write_text("\n".join([*script, EPILOGUE]))
        done = run_in_guest("bash /mnt/share/run.sh && cd /", share=share, timeout=timeout)
        if done.status:
            raise RuntimeError(f"the guest's script ended with {done.status}: {done.stdout}{done.stderr}")
        return _unpack(share / "out.tar", chosen)


def _unpack(archive: Path, sections: list[Section]) -> Recording:
    with tarfile.open(archive) as tar:
        files = {
            member.name.removeprefix("./"): file.read().decode("utf-8", "backslashreplace")
            for member in tar.getmembers()
            if (file := tar.extractfile(member)) is not None
        }
    answers = {
        step.line: Answer(
            files[f"{step.line}.stdout"], files[f"{step.line}.stderr"], int(files[f"{step.line}.status"])
        )
        for section in sections
        for step in section.steps
    }
    samples = {
        name.removeprefix("sample.").removesuffix(".stdout"): text
        for name, text in sorted(files.items())
        if name.startswith("sample.") and name.endswith(".stdout")
    }
    complaints = [text for name, text in files.items() if name.startswith("sample.") and "stderr" in name]
    if samples.pop("settled", "") or any(complaints):
        raise RuntimeError(f"the samples cannot be used: {complaints}")
    return Recording(files["kernel"].strip(), answers, samples)


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    sections = load()
    recording = ask(sections, samples=True)
    answers = recording.answers
    version = next(
        answers[step.line].stdout.strip()
        for section in sections
        for step in section.steps
        if step.argv == ["ipvsadm", "--version"]
    )
    recorded = [
        {
            "command": step.text,
            "stdin": step.stdin,
            "stdout": answers[step.line].stdout,
            "stderr": answers[step.line].stderr,
            "status": answers[step.line].status,
        }
        for section in sections
        for step in section.steps
    ]
    origin = {"program": version, "kernel": recording.kernel}
    _write(ANSWERS, {**origin, "answers": recorded})
    _write(SAMPLES, {**origin, "counters": COUNTERS, "samples": recording.samples})
    print(f"{len(recorded)} answers of {version} on {recording.kernel}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
