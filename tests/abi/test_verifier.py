"""What the kernel's verifier has to walk for each program, here and on the oldest kernel we run on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.guest import run_in_guest
from xlvs.dataplane import libbpf, tables
from xlvs.realserver import decap, toa

# Half of the verifier's own limit (BPF_COMPLEXITY_LIMIT_INSNS, a million).
BUDGET = 500_000
REPOSITORY = Path(__file__).resolve().parents[2]


def verified() -> dict[str, int]:
    """Instructions walked by program, for the objects as `make bpf` left them."""
    counts: dict[str, int] = {}
    plane = tables.open_object()
    for name in ("conns", "conn_index4", "conn_index6"):
        plane.set_max_entries(name, 1024)
    for loaded in (plane, libbpf.BpfObject(decap.OBJECT), libbpf.BpfObject(toa.OBJECT)):
        with loaded:
            loaded.load()
            counts |= {name: libbpf.program_info(loaded.program_fd(name))[1] for name in loaded.programs()}
    return counts


def check(counts: dict[str, int], kernel: str, terminal: pytest.CaptureFixture[str]) -> None:
    """Show the counts, in CI's log too, and hold them against the budget."""
    with terminal.disabled():
        print(f"\nverified instructions on {kernel}:")
        for name, count in counts.items():
            print(f"  {name:<16}{count:>9,}")
    assert {"xlvs_known", "xlvs_new", "xlvs_error", "decapsulate", *toa.HOOKS} <= set(counts)
    assert all(0 < count <= BUDGET for count in counts.values()), counts


@pytest.mark.root
def test_programs_are_cheap_to_verify_here(capsys: pytest.CaptureFixture[str]) -> None:
    check(verified(), "this kernel", capsys)


@pytest.mark.root
@pytest.mark.guest
@pytest.mark.slow
def test_programs_are_cheap_to_verify_on_6_1(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_in_guest(f"{sys.executable} -m tests.abi.test_verifier")
    assert run.status == 0, run.stderr
    check(json.loads(run.stdout), "Linux 6.1", capsys)


if __name__ == "__main__":
    print(json.dumps(verified()))
