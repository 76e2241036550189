"""Commands that are refused, in the real program's words and with its status."""

from __future__ import annotations

import pytest

from tests.unit.ipvsadm_console import Console


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("-A -f 0 -s rr", 2, "invalid fwmark value `0' specified"),
        ("-A -t 10.0.0.2:80 -s rr -b sh-port", 2, "incompatible scheduler flag `sh-port'"),
        ("-A -t 10.0.0.2:80 -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
        ("-A -t 10.0.0.2:80 -s nosuch -p", 255, "Scheduler or persistence engine not found"),
        ("-E -t 10.0.0.2:80 -s lc", 255, "No such service"),
        ("-a -t 10.0.0.2:80 -r 10.1.0.1 -x 5", 255, "Service not defined"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.2 -y 5", 255, "Numerical result out of range"),
        ("-e -t 10.0.0.1:80 -r 10.1.0.9 -x 5", 255, "No such destination"),
        ("-D -f 1", 255, "No such service"),
        ("-L -f 1", 1, "No such service"),
        ("--stop-daemon master", 255, "No daemon is running"),
    ],
)
def test_the_real_programs_complaint_comes_first(command: str, status: int, words: str) -> None:
    console = Console()
    assert console.run("-A -t 10.0.0.1:80 -s rr") == 0
    assert console.run(command) == status
    assert console.err == f"{words}\n"
