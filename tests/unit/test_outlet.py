"""Scripts of one server take turns; those of others, and those that hang, hold nobody up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from xlvs.daemon.keepalived import outlet
from xlvs.daemon.keepalived.pool import Call
from xlvs.health.checks import Script
from xlvs.keepalived.config import Global


def script(text: str) -> Script:
    return Script(("/bin/sh", "-c", text), user="root")


async def until_there(file: Path, lines: int) -> list[str]:
    for _ in range(3000):
        if file.exists() and len(file.read_text().split()) >= lines:
            break
        await asyncio.sleep(0.01)
    return file.read_text().split()


def test_the_last_script_of_a_server_has_the_last_word(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    async def story() -> None:
        one = outlet.Outlet(Global())
        up = script(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo up >> {notes}")
        down, other = script(f"echo down >> {notes}"), script(f"echo other >> {notes}; touch {tmp_path}/go")
        one.act([Call(up, "VS 1"), Call(down, "VS 1"), Call(other, "VS 2")])
        assert await until_there(notes, 3) == ["other", "up", "down"]
        await one.close()
        assert not one._last

    asyncio.run(story())


def test_a_script_that_hangs_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "_TURN", 0.1)
    notes = tmp_path / "notes"

    async def story() -> None:
        one = outlet.Outlet(Global())
        one.act([Call(script("exec sleep 600"), "VS 1"), Call(script(f"echo down >> {notes}"), "VS 1")])
        assert await until_there(notes, 1) == ["down"]
        await one.close(patience=0.1)

    asyncio.run(story())
