"""Scripts of operators: status, arguments, time limits, users, and what is not run at all."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from xlvs.daemon.keepalived import scripts
from xlvs.health.checks import Script

NOBODY = 65534


def write(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "script"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return str(path)


def run(script: Script, *extra: str, timeout: float | None = 30, secure: bool = False) -> int:
    return asyncio.run(scripts.run(script, *extra, timeout=timeout, secure=secure))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(what: object, seconds: float = 30) -> None:
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_exit_status_is_the_scripts(tmp_path: Path) -> None:
    path = write(tmp_path, "exit $1\n")
    assert [run(Script((path,)), str(code)) for code in (0, 1, 255)] == [0, 1, 255]


def test_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    assert run(Script((write(tmp_path, "kill -9 $$\n"),))) == -signal.SIGKILL


def test_arguments_are_words_that_no_shell_reads(tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = write(tmp_path, f'printf "%s\\n" "$@" > {out}\n')
    assert run(Script((path, "$(reboot)", "a  b")), ";", "*") == 0
    assert out.read_text() == "$(reboot)\na  b\n;\n*\n"


def test_a_script_that_takes_too_long_ends_with_all_it_started(tmp_path: Path) -> None:
    out = tmp_path / "pid"
    path = write(tmp_path, f"sleep 1000 & echo $! > {out}; wait\n")
    begun = time.monotonic()
    assert run(Script((path,)), timeout=1.5) == -signal.SIGTERM
    assert time.monotonic() - begun >= 1.5
    wait_until(lambda: gone(int(out.read_text())))


def test_what_a_script_started_ends_with_it_even_deaf_to_term(tmp_path: Path) -> None:
    out = tmp_path / "pid"
    path = write(tmp_path, f"(trap '' TERM; while :; do sleep 0.1; done) & echo $! > {out}; wait\n")
    assert run(Script((path,)), timeout=1.5) == -signal.SIGTERM
    wait_until(lambda: gone(int(out.read_text())))


def test_a_script_deaf_to_term_is_killed(tmp_path: Path) -> None:
    path = write(tmp_path, "trap '' TERM\nwhile :; do sleep 0.05; done\n")
    assert run(Script((path,)), timeout=0.5) == -signal.SIGKILL


def test_a_script_that_ends_well_when_told_to_has_failed_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n")
    assert run(Script((path,)), timeout=0.5) < 0


def test_cancelling_ends_the_script(tmp_path: Path) -> None:
    out = tmp_path / "pid"
    path = write(tmp_path, f"echo $$ > {out}; exec sleep 1000\n")

    async def scene() -> None:
        task = asyncio.create_task(scripts.run(Script((path,))))
        while not (out.exists() and out.read_text().strip()):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    wait_until(lambda: gone(int(out.read_text())))


def test_many_at_once_leave_no_descriptor_and_no_zombie(tmp_path: Path) -> None:
    path = write(tmp_path, "exit 3\n")

    async def scene() -> list[int]:
        return await asyncio.gather(*(scripts.run(Script((path,))) for _ in range(50)))

    before = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(scene()) == [3] * 50
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_a_script_runs_as_its_user() -> None:
    with tempfile.TemporaryDirectory(prefix="xlvs-") as name:  # pytest's own folders are root's alone
        folder = Path(name)
        folder.chmod(0o777)
        out = folder / "out"
        path = write(folder, f"id -u > {out}; id -G >> {out}\n")
        assert run(Script((path,), user="nobody", group="daemon")) == 0
        assert out.read_text().split() == ["65534", "1"]


def test_what_cannot_be_run_is_said_and_not_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(Script((str(tmp_path / "nothing"),))) == scripts.NOT_FOUND
    assert run(Script((write(tmp_path, "exit 0\n", 0o644),))) == scripts.NOT_PERMITTED
    assert run(Script(("/bin/true",), user="no-such-user")) == scripts.NOT_PERMITTED
    assert run(Script(("/bin/true",), group="no-such-group")) == scripts.NOT_PERMITTED
    assert run(Script(("no-such-command-anywhere",))) == scripts.NOT_FOUND
    assert run(Script(("/bin/true", "a\0b"))) == scripts.NOT_PERMITTED
    assert len(caplog.records) == 6


def test_a_name_without_a_slash_is_found_on_the_path() -> None:
    assert run(Script(("true",))) == 0
    assert scripts.resolve(Script(("true",)))[0] in ("/usr/bin/true", "/bin/true")


@pytest.mark.root
def test_security_refuses_what_others_may_change(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = write(tmp_path, "exit 0\n")
    root = Script((path,), user="root")
    assert run(root, secure=True) == 0
    Path(path).chmod(0o777)
    assert run(root, secure=True) == scripts.NOT_PERMITTED
    assert run(root) == 0
    Path(path).chmod(0o755)
    os.chown(path, NOBODY, 0)
    assert run(root, secure=True) == scripts.NOT_PERMITTED
    os.chown(path, 0, 0)
    tmp_path.chmod(0o777)
    assert run(root, secure=True) == scripts.NOT_PERMITTED


def test_commands_that_follow_run_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = write(tmp_path, f'echo "$@" >>{log}; exit ${{1#exit}}')
    whole = Script((path, "1"), then=Script((path, "2", "b"), then=Script((path, "3"))))
    assert run(whole, "extra") == 3
    assert log.read_text() == "1\n2 b\n3 extra\n"
