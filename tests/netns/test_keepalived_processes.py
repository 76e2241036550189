"""The processes of `xlvs keepalived` as the kernel sees them: powers, names, priorities; what scripts get."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.netns.alone import Alone
from tests.netns.keepalived import Daemon, daemon, until
from xlvs.daemon.keepalived.capabilities import Capability, needed
from xlvs.keepalived.config import Config, Global
from xlvs.lab import build, namespaces

pytestmark = pytest.mark.root

NODE = "wi-processes"
PROCESSES = {"": "pid", "vrrp": "vrrp_pid", "checkers": "checkers_pid", "bfd": "bfd_pid"}
# Prints what a script may do, and proves it: an address is what operators' scripts add.
SCRIPT = """#!/bin/sh
grep -E '^(Cap|Umask)' /proc/self/status > {out}.new
ip addr add 10.9.77.{last}/32 dev lo 2>> {out}.new && echo added >> {out}.new
mv {out}.new {out}
"""
SETTINGS = """
vrrp_no_swap
checker_no_swap
bfd_no_swap
vrrp_rt_priority 11
bfd_priority -7
bfd_rt_priority 13
bfd_rlimit_rttime 20000000
checker_priority -6
umask IRUSR|IWOTH
process_name main_x
vrrp_process_name vrrp_x
"""


class One:
    """The namespace, as a lab of one node."""

    def typed(self, node: str, command: Sequence[str]) -> list[str]:
        return namespaces.typed_inside(node, command)

    def run(self, node: str, command: Sequence[str]) -> str:
        return namespaces.run(namespaces.inside(node, command))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One where every user may write."""
    made = Path(tempfile.mkdtemp(prefix="wi-processes-"))
    made.chmod(0o777)
    yield made

    def gone() -> bool:
        shutil.rmtree(made, ignore_errors=True)  # scripts may outlive the daemon
        return not made.exists()

    until(gone)


@pytest.fixture
def one(tmp_path: Path, folder: Path) -> Iterator[Daemon]:
    alone = Alone(NODE)
    with alone.made():
        namespaces.batch(
            ["link set lo up", "addr add 10.9.76.1/24 dev eth0", "link set eth0 up", "link set eth1 up"], NODE
        )
        with daemon(One(), NODE, tmp_path) as made:
            yield made


def configuration(settings: str, folder: Path) -> str:
    for last, name in enumerate(("root", "nobody", "checker"), 1):
        script = folder / name
        script.write_text(SCRIPT.format(out=folder / f"{name}.out", last=last))
        script.chmod(0o755)
    return f"""
global_defs {{
script_user root
{settings}
}}
bfd_instance b1 {{
neighbor_ip 127.0.0.1
}}
vrrp_instance V1 {{
interface eth0
virtual_router_id 51
virtual_ipaddress {{
10.9.77.77
}}
notify_backup {folder}/root
notify {folder}/nobody nobody
}}
virtual_server 10.9.77.77 80 {{
protocol TCP
delay_loop 1
retry 0
lb_algo rr
lb_kind NAT
quorum_up {folder}/checker
real_server 127.0.0.1 80 {{
TCP_CHECK {{
}}
}}
}}
"""


def of(pid: int, file: str, key: str) -> str:
    """What a file of /proc/PID says of something."""
    found = re.search(rf"^{key}:?\s+(.*)$", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert found
    return found[1]


def powers(pid: int) -> set[tuple[int, int]]:
    """The permitted and the effective set of every thread."""
    return {
        (int(of(pid, f"task/{task}/status", "CapPrm"), 16), int(of(pid, f"task/{task}/status", "CapEff"), 16))
        for task in os.listdir(f"/proc/{pid}/task")
    }


def test_each_process_keeps_what_it_needs_and_scripts_lose_nothing(one: Daemon, folder: Path) -> None:
    ours = int(of(os.getpid(), "status", "CapBnd"), 16)
    text = configuration("", folder)
    one.configure(text)
    one.start()
    for name, pid_file in PROCESSES.items():
        kept = sum(1 << number for number in needed(name, Config(Global()))) & ours
        assert powers(one.pid(pid_file)) == {(kept, kept)}, name
        bounds = int(of(one.pid(pid_file), "status", "CapBnd"), 16)
        assert bounds == (0 if name == "bfd" else ours), name
        assert Path(f"/proc/{one.pid(pid_file)}/comm").read_text() == "keepalived\n"
        assert of(one.pid(pid_file), "status", "Umask") == "0177"
    assert not needed("vrrp", Config()) & {Capability.SYS_ADMIN, Capability.BPF, Capability.SYS_PTRACE}

    for name in ("root", "nobody", "checker"):
        until((folder / f"{name}.out").exists, lambda: one.text)
    for name in ("root", "checker"):
        said = (folder / f"{name}.out").read_text()
        assert f"CapEff:\t{ours:016x}" in said, name
        assert "\nadded\n" in said, said
        assert "Umask:\t0177\n" in said
    said = (folder / "nobody.out").read_text()
    assert "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000" in said
    assert "added" not in said

    # All of it goes on: another configuration, a child started anew, a master's address, a service.
    one.configure(text.replace("10.9.77.77", "10.9.77.78"))
    one.reload()
    one.signal(signal.SIGKILL, "vrrp_pid")
    until(lambda: "10.9.77.78" in namespaces.run(namespaces.inside(NODE, ["ip", "addr"])), lambda: one.text)
    assert "10.9.77.78" in str(one.ask("servers"))
    assert "10.9.77.77" not in str(one.ask("servers"))
    assert one.stop() == 0


def test_a_process_is_as_global_defs_has_it(one: Daemon, folder: Path) -> None:
    # What the real one's processes show of the same words; its real-time limit has no least.
    one.configure(configuration(SETTINGS, folder))
    one.start()
    pids = {name: one.pid(pid_file) for name, pid_file in PROCESSES.items()}
    names = {name: Path(f"/proc/{pid}/comm").read_text().strip() for name, pid in pids.items()}
    assert names == {"": "main_x", "vrrp": "vrrp_x", "checkers": "main_x", "bfd": "main_x"}
    locked = {name: int(of(pid, "status", "VmLck").split()[0]) for name, pid in pids.items()}
    assert {of(pid, "status", "Umask") for pid in pids.values()} == {"0402"}
    assert locked[""] == 0
    assert min(locked[name] for name in ("vrrp", "checkers", "bfd")) > 10_000
    assert os.getpriority(os.PRIO_PROCESS, pids["checkers"]) == -6
    for name, priority in (("vrrp", 11), ("bfd", 13)):
        policy = os.sched_getscheduler(pids[name])
        assert policy == os.SCHED_RR | os.SCHED_RESET_ON_FORK
        assert os.sched_getparam(pids[name]).sched_priority == priority
    assert os.sched_getscheduler(pids["checkers"]) == os.SCHED_OTHER
    limits = {name: of(pid, "limits", "Max realtime timeout").split() for name, pid in pids.items()}
    assert limits["checkers"][:2] == ["unlimited", "unlimited"]
    assert limits["bfd"][1] == "20000000"
    assert limits["vrrp"][1] == "10000000"


def _is_at(pid: int, namespace: int) -> bool:
    return os.stat(f"/proc/{pid}/ns/net").st_ino == namespace


def test_ipvs_may_be_in_another_namespace_than_the_checks(one: Daemon, folder: Path) -> None:
    # The real one goes to the other namespace for its IPVS socket alone, and ends where there is none.
    other = Alone(f"{NODE}-2")
    with other.made():
        one.configure(f"net_namespace_ipvs {other.name}", configuration("", folder))
        one.start()
        assert "10.9.77.77" in other.xlvs("ipvsadm", "-L", "-n").stdout
        assert "10.9.77.77" not in namespaces.run(namespaces.inside(NODE, build.xlvs("ipvsadm", "-L", "-n")))
        home = os.stat(f"/run/netns/{NODE}").st_ino
        for pid in map(one.pid, PROCESSES.values()):  # a change of rules takes the checkers there and back
            until(partial(_is_at, pid, home), lambda: one.text)
        # The check of the server at home, where nobody listens, has its say over there.
        until(lambda: "127.0.0.1" not in other.xlvs("ipvsadm", "-L", "-n").stdout, lambda: one.text)
        assert one.stop() == 0
        assert "10.9.77.77" not in other.xlvs("ipvsadm", "-L", "-n").stdout


def test_options_have_the_effect_that_they_have_in_keepalived(one: Daemon, folder: Path) -> None:
    one.configure("instance two", configuration("", folder))
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    more = ("-s", NODE, "-u", "026", "-x", "-Mcore.wi-%p")
    command = build.xlvs("keepalived", "-n", "-l", f"--use-file={one.file}", *more)
    places = [
        Path(f"/run/keepalived/{NODE}/{name}_two.pid") for name in ("keepalived", "vrrp", "checkers", "bfd")
    ]
    with one.log.open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: "Running\n" in one.text, lambda: one.text)
        pids = [int(place.read_text()) for place in places]
        assert pids[0] == process.pid
        home = os.stat(f"/run/netns/{NODE}").st_ino
        assert {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in pids} == {home}
        assert {of(pid, "status", "Umask") for pid in pids} == {"0026"}
        assert {of(pid, "limits", "Max core file size").split()[0] for pid in pids} == {"unlimited"}
        assert pattern.read_text() == "core.wi-%p\n"
        assert one.text.count("no SNMP") == 1
        assert {oct(place.stat().st_mode) for place in places} == {oct(0o100644)}
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert not places[0].parent.exists()
    assert pattern.read_text() == before
