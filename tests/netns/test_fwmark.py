"""``xlvs fwmark``: the classifier's rules in the pinned maps, kept, killed and taken over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.root
NAMESPACE = "xlvs-fwmark"
# SIGKILL before the N-th write of a change; the note is there already.
KILLED = """if True:
    import os, sys
    from xlvs.dataplane.tables import Tables
    left, real = int(sys.argv[1]), Tables._apply
    def step(self, change):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        real(self, change)
    Tables._apply = step
    from xlvs.cli.main import main
    sys.exit(main(["xlvs", "fwmark", *sys.argv[2:]]))"""


def inside(*words: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["ip", "netns", "exec", NAMESPACE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=check, input=text)


def xlvs(*words: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
    return inside(sys.executable, "-m", "xlvs.cli.main", *words, check=check, text=text)


def listed() -> list[tuple[int, str, int]]:
    rules = json.loads(xlvs("fwmark", "list", "--json").stdout)["rules"]
    assert [rule["number"] for rule in rules] == list(range(1, len(rules) + 1))
    return [(rule["mark"], rule["to"], rule["first_port"]) for rule in rules]


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(
            ["ip", "-n", NAMESPACE, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], check=True
        )
        yield
    finally:
        xlvs("down", check=False)
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def test_rules_keep_their_order_and_outlive_the_plane() -> None:
    xlvs("fwmark", "add", "1", "--to", "10.1.252.161", "--protocol", "tcp", "--port", "80")
    xlvs("fwmark", "add", "0x10", "--to", "2001:db8::/64")
    xlvs("fwmark", "add", "3", "--at", "1")
    rules = [(3, "0.0.0.0/0", 0), (1, "10.1.252.161/32", 80), (16, "2001:db8::/64", 0)]
    assert listed() == rules
    xlvs("up", "eth0", "--no-helper")
    xlvs("down", "--keep-rules")
    assert listed() == rules
    xlvs("fwmark", "del", "3")
    xlvs("fwmark", "del", "--number", "1")
    assert listed() == rules[2:]
    assert "no such rule" in xlvs("fwmark", "del", "3", check=False).stderr
    for words in (
        ("add", "1", "--port", "80"),
        ("add", "1", "--to", "10.1.0.1/16"),
        ("add", "4294967296"),
        ("add", "1", "--protocol", "tcp", "--port", "81:80"),
        ("add", "1", "--to", "10.0.0.1", "-6"),
        ("add", "1", "--at", "3"),
        ("del", "--number", "2"),
        ("del",),
    ):
        refused = xlvs("fwmark", *words, check=False)
        assert (refused.returncode, refused.stderr[:6]) == (1, "xlvs: "), words
    xlvs("fwmark", "flush")
    assert listed() == []


def test_a_change_that_is_killed_is_finished_by_the_next_command() -> None:
    xlvs("fwmark", "add", "1", "--to", "10.0.0.0/8")
    xlvs("fwmark", "add", "2", "--to", "10.1.0.0/16")
    steps = 0
    for step in range(50):
        done = inside(
            sys.executable, "-c", KILLED, str(step), "add", str(100 + step), "--to", "10.1.0.1", check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode in (-9, 137), done.stderr
        steps += 1
        assert [mark for mark, _, _ in listed()] == [1, 2, *range(100, 100 + steps)]
    assert steps > 4
    xlvs("fwmark", "flush")
    assert listed() == []


def test_rules_of_iptables_are_taken_over() -> None:
    for words in (
        (
            "-d",
            "10.2.3.4",
            "-p",
            "tcp",
            "-m",
            "multiport",
            "--dports",
            "80,443",
            "-j",
            "MARK",
            "--set-mark",
            "5",
        ),
        ("-s", "10.9.9.9", "-j", "MARK", "--set-mark", "6"),
    ):
        inside("iptables", "-t", "mangle", "-A", "PREROUTING", *words)
    inside(
        "ip6tables", "-t", "mangle", "-A", "PREROUTING", "-d", "2001:db8::1", "-j", "MARK", "--set-mark", "7"
    )
    xlvs("fwmark", "add", "1", "--to", "10.0.0.1")
    done = xlvs("fwmark", "import", check=False)
    assert done.returncode == 3  # one was left out
    assert "1 MARK rules taken over as 2; 1 left out" in done.stdout
    assert "-s 10.9.9.9/32" in done.stderr
    assert xlvs("fwmark", "import", "-6").returncode == 0
    rules = [(5, "10.2.3.4/32", 80), (5, "10.2.3.4/32", 443), (7, "2001:db8::1/128", 0)]
    assert listed() == [(1, "10.0.0.1/32", 0), *rules]
    saved = inside("iptables-save", "-t", "mangle").stdout
    assert xlvs("fwmark", "import", "--replace", "-f", "-", check=False, text=saved).returncode == 3
    assert sorted(listed()) == sorted(rules)
