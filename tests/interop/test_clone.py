"""What a stranger gets: the committed tree, somewhere else, set up by make alone."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[2]


def run(*words: str, folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the last commit, in a folder of its own, after ``make setup``."""
    folder = tmp_path_factory.mktemp("clone")
    # The tree may belong to another user than the one who tests it.
    command = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "archive", "HEAD"]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    run("make", "setup", folder=folder)
    return folder


def test_setup_makes_what_it_says(clone: Path) -> None:
    assert (clone / "src/xlvs/dataplane/objects/xlvs.bpf.o").stat().st_size > 10000
    version = run(str(clone / ".venv/bin/xlvs"), "--version", folder=Path("/"))
    assert version == run(str(REPOSITORY / ".venv/bin/xlvs"), "--version", folder=Path("/"))


def test_setup_again_finds_nothing_to_do(clone: Path) -> None:
    assert (
        run("make", "setup", folder=clone) == "setup: Debian packages: all there\nsetup: .venv: up to date\n"
    )


def test_unit_tests_pass_there(clone: Path) -> None:
    assert " passed" in run(".venv/bin/pytest", "-q", "tests/unit", folder=clone)


@pytest.mark.guest
def test_conformance_tests_run_there(clone: Path) -> None:
    test = "tests/conformance/traffic/test_traffic.py::test_real_ipvs_still_does_it"
    assert "1 passed" in run(".venv/bin/pytest", "-q", test, folder=clone)


def test_wheel_carries_the_objects(clone: Path) -> None:
    run("make", "wheel", folder=clone)
    (wheel,) = (clone / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for built in (clone / "src/xlvs/dataplane/objects").glob("*.o"):
            assert archive.read(f"xlvs/dataplane/objects/{built.name}") == built.read_bytes()
