"""What `xlvs realserver agent` answers."""

from __future__ import annotations

import time
from pathlib import Path

from xlvs.health.agent import read
from xlvs.realserver.agent import Sources, line, load_share, memory_share


def commanded(*words: str, timeout: float = 30.0) -> str:
    return line(Sources(command=words, timeout=timeout))


def test_a_command_s_first_line_is_the_answer() -> None:
    assert commanded("printf", "40%% drain\nmore\n") == "40% drain"
    assert commanded("false") == "fail #false ended with status 1"
    assert commanded("true") == "fail #true said nothing"
    assert commanded("/nowhere/x") == "fail #/nowhere/x: No such file or directory"


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\n(sleep 5; touch {alive}) &\nsleep 600\n")
    script.chmod(0o755)
    begun = time.monotonic()
    assert "took longer than 0.5 seconds" in commanded(str(script), timeout=0.5)
    time.sleep(max(0.0, begun + 6.0 - time.monotonic()))
    assert not alive.exists()


def test_failures_and_shares_are_words_that_the_director_knows(tmp_path: Path) -> None:
    assert read(commanded("false")).up is False
    said = read(line(Sources(load=True, memory=True)))
    assert said.share is not None
    assert (said.up, said.admin, 0 < said.share <= 1) == (True, "ready", True)
    assert 1 <= load_share() <= 100
    assert memory_share("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n") == 25
    assert memory_share("MemTotal: 1000 kB\nMemAvailable: 0 kB\n") == 1
    drain = tmp_path / "drain"
    sources = Sources(load=True, drain_file=str(drain))
    assert line(sources) != "drain"
    drain.touch()
    assert line(sources) == "drain"
