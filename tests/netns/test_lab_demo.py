"""``xlvs demo``: tells what it sees, fails when that is not as it must be, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.netns import labs
from xlvs.lab import build, namespaces, webserver
from xlvs.lab.demo import Demo, Screen
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root


def left_of(pid: int) -> list[str]:
    """What a demo of this process id has left."""
    spaces = [entry for entry in os.listdir(namespaces.FOLDER) if entry.startswith(f"xlvs-demo{pid}-")]
    return spaces + [name for name in build.names() if name == f"demo{pid}"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        build.xlvs("demo", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


@pytest.mark.slow
def test_all_methods_in_a_minute_or_so() -> None:
    begun = time.monotonic()
    process = start()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert time.monotonic() - begun < 180  # half a minute here; others may be at work on this machine
    for method in Method:
        for seen in (
            "rr gave RS2 RS1 RS2 RS1 RS2 RS1",
            "6 requests in the real servers' logs, from 172.16.0.10",
        ):
            assert f"  ok  {method.value.upper():<7} {seen}\n" in output
    assert output.count(" 0 failed, 0 to rs2 while it was out") == len(Method)
    assert "  ok  FULLNAT 6 requests in the real servers' logs, from local addresses\n" in output
    assert "NOT" not in output
    assert "\x1b" not in output  # piped: no colours
    assert left_of(process.pid) == []


@pytest.mark.parametrize("moment", ["xlvs up", "curl", "without pause", "-w 0"])
@pytest.mark.parametrize("chosen", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up(moment: str, chosen: signal.Signals) -> None:
    process = start("--method", "dr")
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            os.killpg(process.pid, chosen)
            break
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert left_of(process.pid) == []


def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real servers with one and the same page: the answers cannot alternate."""
    write_site = webserver.write_site
    monkeypatch.setattr(webserver, "write_site", lambda folder, _: write_site(folder, "<h1>RS1</h1>"))
    lines: list[str] = []
    demo = Demo(Screen(lines.append), labs.fresh_name())
    demo.run([Method.NAT])
    assert not demo.held
    assert "  NOT NAT     rr gave RS1 RS1 RS1 RS1 RS1 RS1" in lines
    assert demo.name not in build.names()


def test_a_command_that_fails_is_a_finding_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "option", property(lambda self: "-g" if self is Method.DR else "--wrong"))
    demo = Demo(Screen(lambda _: None), labs.fresh_name())
    demo.run([Method.NAT, Method.DR])
    assert [finding.held for finding in demo.findings if finding.subject == "NAT"] == [False]
    assert len([finding for finding in demo.findings if finding.subject == "DR"]) > 1
    assert demo.name not in build.names()
