"""The guest runner itself: what the conformance tests stand on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest import GuestError, run_in_guest

pytestmark = [pytest.mark.root, pytest.mark.guest]
REPOSITORY = Path(__file__).resolve().parents[2]


def test_streams_status_and_share_come_back(tmp_path: Path) -> None:
    (tmp_path / "question").write_text("what kernel?\n")
    result = run_in_guest(
        "cat /mnt/share/question; echo aside >&2; uname -r > /mnt/share/answer; exit 7", share=tmp_path
    )
    assert (result.stdout, result.stderr, result.status) == ("what kernel?\n", "aside\n", 7)
    assert (tmp_path / "answer").read_text().startswith("6.1.")


def test_runs_from_a_clone_under_tmp(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tests/guest", tmp_path / "clone/tests/guest")
    (tmp_path / "clone/tests/__init__.py").touch()
    run = subprocess.run(
        [tmp_path / "clone/tests/guest/ipvs-guest", "pwd; ls tests; modprobe ip_vs && ipvsadm -Ln"],
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(
        f"{tmp_path}/clone\n__init__.py\nguest\nIP Virtual Server version 1.2.1 (size=4096)\n"
    )


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(GuestError, match="timeout"):
        run_in_guest("sleep 1000", timeout=6)


def test_what_happens_in_the_guest_stays_there(tmp_path: Path) -> None:
    mark = REPOSITORY / "made-in-the-guest"
    # /tmp is fresh there, but for the way to a clone that lies in it.
    result = run_in_guest(f"touch {mark} && ls {mark} && test ! -e {tmp_path}")
    assert (result.stdout, result.status) == (f"{mark}\n", 0)
    assert not mark.exists()
