"""The entry point: which program or subcommand runs, and how failures look."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from xlvs import __version__
from xlvs.cli import engine, main
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.errors import XlvsError


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> MemoryDataPlane:
    plane = MemoryDataPlane()
    monkeypatch.setattr("xlvs.cli.ipvsadm.open_data_plane", lambda _engine: plane)
    return plane


def type_in(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.mark.parametrize("start", [["/usr/local/sbin/ipvsadm"], ["ipvsadm"], ["/usr/bin/xlvs", "ipvsadm"]])
def test_ipvsadm_by_every_name(
    start: list[str], plane: MemoryDataPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*start, "-A", "-t", "10.0.0.1:80", "-s", "rr"]) == 0
    assert main.main([*start, "-Sn"]) == 0
    assert capsys.readouterr().out == "-A -t 10.0.0.1:80 -s rr\n"
    assert main.main([*start, "nonsense"]) == 255
    assert capsys.readouterr().err == "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"


def test_save_and_restore_by_name(
    plane: MemoryDataPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.main(["ipvsadm", "-A", "-u", "10.0.0.9:53"]) == 0
    type_in(monkeypatch, b"# rules\n-A -t 10.0.0.1:80 -s rr\n")
    assert main.main(["/sbin/ipvsadm-restore"]) == 0
    assert main.main(["/sbin/ipvsadm-save", "-n"]) == 0
    assert capsys.readouterr().out == "-A -t 10.0.0.1:80 -s rr\n"
    assert main.main(["ipvsadm-save", "-x"]) == 1
    assert capsys.readouterr().err.startswith("ipvsadm-save: Script to save")


def test_bytes_that_are_no_text_come_back_as_they_were(
    plane: MemoryDataPlane, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, b"-C \xff\xfe\n")
    assert main.main(["ipvsadm", "-R"]) == 2
    assert capfdbinary.readouterr().err == b"unexpected argument \xff\xfe\n"


def test_help_lists_commands_and_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["xlvs", "--help"]) == 0
    assert "  ipvsadm      administer services" in capsys.readouterr().out
    assert main.main(["xlvs"]) == 1
    assert "usage: xlvs COMMAND" in capsys.readouterr().out
    assert main.main(["xlvs", "--version"]) == 0
    assert capsys.readouterr().out == f"xlvs {__version__}\n"


def test_help_of_ipvsadm_needs_no_data_plane(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_plane(_engine: str) -> None:
        raise XlvsError("xlvs needs root")

    monkeypatch.setattr("xlvs.cli.ipvsadm.open_data_plane", no_plane)
    assert main.main(["ipvsadm", "-h"]) == 0
    assert capsys.readouterr().out.startswith("ipvsadm v1.31")
    assert main.main(["ipvsadm", "-Ln"]) == 1
    assert capsys.readouterr() == ("", "xlvs: xlvs needs root\n")


@pytest.mark.parametrize("name", ["nosuch", "main", "engine", "../x", "__init__", ""])
def test_unknown_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["xlvs", name]) == 1
    assert capsys.readouterr().err == f"xlvs: no command '{name}'; 'xlvs --help' lists them\n"


def test_the_engine_is_imported_only_when_opened() -> None:
    assert not hasattr(engine, "XdpDataPlane")


@pytest.mark.parametrize("name", ["ipvsadm", "xlvs"])
def test_a_symlink_is_the_program_of_its_name(name: str, tmp_path: Path) -> None:
    link = tmp_path / name
    link.symlink_to(Path(sys.executable).with_name("xlvs"))
    done = subprocess.run([link, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == {"ipvsadm": ["ipvsadm", "v1.31"], "xlvs": ["xlvs", __version__]}[name]


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = "import sys; from xlvs.cli.main import main; sys.exit(main(['ipvsadm', '-h']))"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 141
