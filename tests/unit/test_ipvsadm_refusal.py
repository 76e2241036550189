"""What the data plane does not carry yet is refused in words of ours, after the kernel's checks."""

from __future__ import annotations

import pytest

from tests.unit.ipvsadm_console import Console


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("-A --sctp-service 10.0.0.2:80 -s rr", "SCTP services (--sctp-service)"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.2 -i --tun-type gre", "GRE tunnels (--tun-type)"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.2 -i --tun-type gue --tun-port 6080", "GUE tunnels (--tun-type)"),
    ],
)
def test_refused_in_one_line_and_nothing_changed(command: str, words: str) -> None:
    console = Console()
    assert console.run("-A -t 10.0.0.1:80 -s rr") == 0
    assert console.run("-a -t 10.0.0.1:80 -r 10.1.0.1 -m") == 0
    before = console.plane.services()
    assert console.run(command) == 1
    assert console.err.startswith(f"xlvs: this data plane does not carry {words}")
    assert console.err.count("\n") == 1
    assert console.out == ""
    assert console.plane.services() == before


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


def test_in_a_restore_the_rest_goes_in() -> None:
    console = Console()
    text = "-A -t 10.0.0.1:80 -s rr\n-A --sctp-service 10.0.0.2:80\n-A -t 10.0.0.3:80 -s rr\n"
    assert console.run("-R", stdin=text) == 0
    assert "does not carry SCTP services" in console.err
    assert len(console.plane.services()) == 2
