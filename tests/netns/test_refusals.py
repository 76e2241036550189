"""Where xlvs cannot run it says so: one clear sentence, exit status 1, nothing changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.netns import topology
from tests.netns.topology import Site, assert_unbroken
from xlvs.dataplane import layout
from xlvs.lab import build

pytestmark = pytest.mark.root

COMMANDS = [["up", "eth0"], ["down"], ["status"], ["ipvsadm", "-Ln"], ["ipvsadm", "-A", "-t", "10.66.0.1:80"]]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with topology.site() as made:
        made.up()
        yield made


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done
    assert done.stderr.startswith("xlvs: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_root(site: Site, command: list[str]) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    before = site.director("ipvsadm", "-Sn")
    assert_refused(site.run([*nobody, *build.xlvs(*command)]), "root")
    assert site.director("ipvsadm", "-Sn") == before


POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def test_as_root_without_capabilities(site: Site) -> None:
    """A container's root."""
    before = site.status()["generation"]
    assert_refused(site.run([*POWERLESS, *build.xlvs("up", "eth0")]), "capabilities", "BPF, NET_ADMIN")
    assert site.status()["generation"] == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_where_nothing_may_be_mounted(command: list[str]) -> None:
    """The first command ever, by a container's root."""
    machine = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--kill-child"]
    script = 'mount -t tmpfs none /run && exec "$@"'
    words = [*machine, "sh", "-c", script, "sh", *POWERLESS, *build.xlvs(*command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert_refused(done, "BPF file system", "SYS_ADMIN")


FAULT = """if True:
    import sys
    from xlvs.dataplane import libbpf, tables
    def refuse(*arguments):
        raise libbpf.BpfError("the kernel refused it", int(sys.argv[1]), "0: (85) call\\n1: exit")
    libbpf.BpfObject.load = refuse
    tables.platform.release = lambda: sys.argv[2]
    from xlvs.cli.main import main
    sys.exit(main(["xlvs", "up", "eth0"]))"""


@pytest.mark.parametrize(
    ("errno", "release", "words"),
    [
        (22, "5.10.0-28-amd64", ("5.10.0-28-amd64", "too old", "6.1")),
        (38, "6.6.0", ("no BPF", "6.1")),
        (1, "6.1.0", ("capabilities",)),
        (12, "6.1.0", ("memory", "--connections")),
    ],
)
def test_a_kernel_that_will_not(site: Site, errno: int, release: str, words: tuple[str, ...]) -> None:
    before = site.status()
    assert_refused(site.python(FAULT, str(errno), release), *words)
    after = site.status()
    assert (after["generation"], after["interfaces"]) == (before["generation"], before["interfaces"])


def test_a_read_only_proc_sys() -> None:
    """What suffers is said, a line each; nothing is refused."""
    with topology.site() as site:
        code = """if True:
            import subprocess, sys
            subprocess.run(["mount", "-o", "bind,ro", "/proc/sys", "/proc/sys"], check=True)
            from xlvs.cli.main import main
            sys.exit(main(["xlvs", "up", "eth0", "eth1", "--no-helper"]))"""
        done = site.run(["unshare", "--mount", sys.executable, "-c", code])
        assert done.returncode == 0, done.stderr
        said = done.stderr.splitlines()
        assert all("Read-only file system" in line for line in said)
        assert [line.split("/")[-1].split()[0] for line in said] == [
            "accept_local",
            "forwarding",
            "forwarding",
        ]
        assert site.status()["up"]


NUMBER = """if True:
    import sys
    from xlvs.dataplane import layout
    from xlvs.dataplane.tables import Tables
    Tables().row("settings", layout.Settings, 0).abi = int(sys.argv[1])"""


def test_tables_of_another_layout() -> None:
    """Made by another version: nothing is touched, and connections go on."""
    with topology.site() as site:
        site.service()
        site.up("--no-helper")
        with site.talking("--udp", "0", "--tcp", "4") as seen:
            assert site.python(NUMBER, str(layout.ABI + 1)).returncode == 0
            for command in (["up", *site.interfaces], ["ipvsadm", "-Ln"], ["ipvsadm", "-C"], ["down"]):
                assert_refused(site.attempt(*command), f"layout {layout.ABI + 1}", f"speaks {layout.ABI}")
        assert_unbroken(seen)
        assert site.python(NUMBER, str(layout.ABI)).returncode == 0
        assert site.status()["up"]
        assert len(site.status()["interfaces"]) == len(site.interfaces)
