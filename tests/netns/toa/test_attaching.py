"""Attaching, attaching again, detaching: what is there afterwards, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.netns.toa.site import ANY, BELIEVED, CLIENT, LOCAL, SERVER, Site, kill_all
from tests.netns.toa.wire import Stream, tcp_option
from xlvs.dataplane import pins
from xlvs.realserver import toa

pytestmark = pytest.mark.root
PORT = 80


def asked(site: Site, lport: int) -> object:
    stream = Stream(site.wire, (LOCAL[4], lport), (SERVER[4], PORT), tcp_option(CLIENT[4], 1234))
    return json.loads(stream.ask(b"hello"))["accept"]


def attached(cgroup: str) -> list[str]:
    """Names of the programs on a cgroup."""
    done = subprocess.run(["bpftool", "-j", "cgroup", "show", cgroup], capture_output=True, text=True)
    return sorted(each["name"] for each in json.loads(done.stdout.strip() or "[]"))


def pinned(site: Site) -> set[int]:
    """What is pinned for the site's cgroups, and what nobody knows the cgroup of."""
    return {each.identity for each in toa.status() if each.cgroup.startswith(site.cgroup) or not each.cgroup}


@contextmanager
def child(site: Site, name: str = "child") -> Iterator[str]:
    path = f"{site.cgroup}/{name}"
    os.mkdir(path)
    try:
        yield path
    finally:
        os.rmdir(path)


def lost(cgroup: str) -> set[str]:
    return {name for each in toa.status() if each.cgroup == cgroup for name in each.lost}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_attach_outlives_its_process_and_detach_leaves_nothing(real_server: Site) -> None:
    before = pinned(real_server)
    assert real_server.status() == {}
    real_server.attach()
    assert attached(real_server.cgroup) == sorted(toa.HOOKS)
    found = real_server.status()
    assert (found["from"], found["kinds"], found["complete"], found["lost"]) == (
        list(BELIEVED),
        [200, 254],
        True,
        [],
    )
    assert found["counters"] == dict.fromkeys(toa.COUNTERS, 0)
    real_server.toa(
        "attach", "--from", "10.9.0.1", "192.0.2.0/24", "--kind", "9", "--cgroup", found["cgroup"]
    )
    again = real_server.status()
    assert (again["from"], again["kinds"]) == (["10.9.0.1/32", "192.0.2.0/24"], [9])
    assert attached(real_server.cgroup) == sorted(toa.HOOKS)
    real_server.detach()
    assert attached(real_server.cgroup) == []
    assert pinned(real_server) == before
    assert "nothing to detach" in real_server.toa("detach", "--cgroup", real_server.cgroup)


def test_a_cgroup_and_one_inside_it_do_not_disturb_each_other(real_server: Site) -> None:
    """A container's own cgroup; programs of the outer one are run after those of the inner one."""
    with child(real_server) as inner:
        outer = real_server.cgroup
        real_server.attach()
        real_server.cgroup = inner
        real_server.serve("tcp", ANY[4], PORT)
        assert asked(real_server, 5000) == [CLIENT[4], 1234]
        real_server.attach()
        assert asked(real_server, 5001) == [CLIENT[4], 1234]
        real_server.cgroup = outer
        real_server.detach()
        assert asked(real_server, 5002) == [CLIENT[4], 1234]
        real_server.cgroup = inner
        real_server.detach()
        assert asked(real_server, 5003) == [LOCAL[4], 5003]
        real_server.cgroup = outer
        kill_all(inner)


def test_a_program_that_suffers_no_other(real_server: Site) -> None:
    """Attached by somebody who wants the hook for himself: refused, and nothing is half there."""
    with child(real_server) as other, child(real_server, "ours") as ours:
        real_server.toa("attach", "--from", "10.0.0.0/8", "--cgroup", other)
        identity = next(each.identity for each in toa.status() if each.cgroup == other)
        folder = f"{pins.bpffs_folder()}/toa-{identity:016x}"
        program = program_of(f"{folder}/link-toa_stream")
        bpftool = ["bpftool", "cgroup", "attach", real_server.cgroup, "sock_ops", "id", program]
        subprocess.run(bpftool, check=True)
        before = pinned(real_server)
        words = ("attach", "--from", "10.0.0.0/8", "--cgroup")
        assert "for itself alone" in real_server.toa(*words, ours, expect=1)
        assert "for itself alone" in real_server.toa(*words, real_server.cgroup, expect=1)
        assert pinned(real_server) == before
        assert attached(ours) == []
        assert attached(real_server.cgroup) == ["toa_stream"]
        subprocess.run(["bpftool", "cgroup", "detach", *bpftool[3:]], check=True)
        real_server.toa("detach", "--cgroup", other)


def test_a_cgroup_that_was_removed(real_server: Site) -> None:
    before = pinned(real_server)
    with child(real_server) as path:
        real_server.toa("attach", "--from", "10.0.0.0/8", "--cgroup", path)
    # The kernel lets go of it when no packet can need it any more.
    eventually(lambda: lost(path) == set(toa.HOOKS))
    assert f"detached from {path}" in real_server.toa("detach", "--cgroup", path)
    assert pinned(real_server) == before
    # Made again it is another; what was pinned for the first goes when the next is attached.
    with child(real_server) as path:
        real_server.toa("attach", "--from", "10.0.0.0/8", "--cgroup", path)
    eventually(lambda: bool(lost(path)))
    with child(real_server) as path:
        real_server.toa("attach", "--from", "10.0.0.0/8", "--cgroup", path)
        assert len(pinned(real_server) - before) == 1
        assert attached(path) == sorted(toa.HOOKS)
    assert f"detached from {path}" in real_server.toa("detach", "--cgroup", path)
    assert pinned(real_server) == before
    assert "is no cgroup" in real_server.toa("detach", "--cgroup", path, expect=1)


def test_attach_typed_inside_a_namespace_stays(real_server: Site) -> None:
    """``ip netns exec`` hides /sys/fs/cgroup and mounts of its own end with it."""
    words = ["-m", "xlvs.cli.main", "toa", "attach", "--from", *BELIEVED, "--cgroup", real_server.cgroup]
    command = ["ip", "netns", "exec", real_server.namespace, sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    real_server.serve("tcp", ANY[4], PORT)
    assert asked(real_server, 5000) == [CLIENT[4], 1234]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "10.0.0.1/8"], "has host bits set"),
        (["--from", "nonsense"], "'nonsense' is no prefix"),
        (["--from", "::ffff:10.0.0.0/104"], "write it as IPv4"),
        (["--from", "10.0.0.0/8", "--cgroup", "/tmp"], "/tmp is no cgroup of version 2"),
        (["--from", "10.0.0.0/8", "--cgroup", "/nowhere"], "/nowhere is no cgroup of version 2"),
    ],
)
def test_refusals(words: list[str], told: str) -> None:
    command = [sys.executable, "-m", "xlvs.cli.main", "toa", "attach", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("xlvs: ")
    assert told in done.stderr


def program_of(link: str) -> str:
    """The id of the program behind a pinned link."""
    done = subprocess.run(["bpftool", "-j", "link", "show", "pinned", link], capture_output=True, check=True)
    return str(json.loads(done.stdout)["prog_id"])
