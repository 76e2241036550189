"""`up`, `down` and what lies between: generations under traffic, interfaces, sizes, leftovers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from tests.netns import topology
from tests.netns.topology import PORT, REPOSITORY, Site, assert_unbroken
from xlvs.lab import build, namespaces

pytestmark = pytest.mark.root

FOREIGN = os.path.join(REPOSITORY, "src/xlvs/dataplane/objects/decap.bpf.o")


@pytest.fixture
def site() -> Iterator[Site]:
    with topology.site() as made:
        yield made


def run_files(site: Site) -> list[str]:
    """What stands in /run/xlvs for the director's namespace, pins included."""
    code = "from xlvs.dataplane import pins; print(f'{pins.netns_cookie():016x}')"
    cookie = site.python(code).stdout.strip()
    names = [f"{folder}/{name}" for folder in ("/run/xlvs", "/run/xlvs/bpf") for name in os.listdir(folder)]
    return sorted(name for name in names if cookie in name)


def traces(site: Site) -> dict[str, str]:
    """What `up` changes in a namespace."""
    commands = {
        "qdiscs": ["tc", "qdisc", "show"],
        "filters": ["tc", "filter", "show", "dev", "eth0", "ingress"],
        "xdp": ["bpftool", "net"],
        "accept_local": ["sysctl", "-n", "net.ipv4.conf.lo.accept_local"],
    }
    return {name: site.run(command).stdout for name, command in commands.items()}


def ended(pid: int) -> bool:
    """Whether a process has ended; whoever inherits it may be slow to bury it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def managed(site: Site) -> list[str]:
    """Addresses of neighbours that the kernel keeps resolved."""
    return sorted(
        line.split()[0]
        for line in site.run(["ip", "neigh", "show"]).stdout.splitlines()
        if " managed " in f"{line} "
    )


class TestGenerations:
    def test_up_again_and_again_under_traffic(self, site: Site) -> None:
        """New programs for old, between two packets: nothing lost, nothing misdelivered."""
        site.up()
        site.service("t")
        site.service("u")
        with site.talking() as seen:
            for generation in range(2, 7):
                site.up()
                assert site.status()["generation"] == generation
        assert_unbroken(seen)
        site.assert_sound()

    def test_old_generations_leave_nothing(self, site: Site) -> None:
        def programs() -> set[int]:
            shown = json.loads(site.run(["bpftool", "-j", "net"]).stdout)[0]
            return {each["id"] for kind in ("xdp", "tc") for each in shown[kind]}

        site.up()
        before = programs()
        site.up()
        after = programs()
        assert not before & after

        def living() -> set[int]:
            return {each["id"] for each in json.loads(site.run(["bpftool", "-j", "prog", "show"]).stdout)}

        deadline = time.monotonic() + 30  # programs end after a grace period
        while before & living() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not before & living()


class TestDown:
    def test_leaves_nothing_behind(self, site: Site) -> None:
        before = traces(site)
        site.up()
        site.service("t")
        with site.talking("--udp", "0", "--tcp", "4") as seen:
            time.sleep(0.3)
        assert_unbroken(seen)
        site.director(
            "ipvsadm", "-d", "-t", f"{site.vip}:{PORT}", "-r", f"{site.made.topology.rip(1)}:{PORT}"
        )
        deadline = time.monotonic() + 30  # the helper looks for changed rules twice a second
        while managed(site) != ["10.1.0.1", site.made.topology.rip(2)] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert managed(site) == ["10.1.0.1", site.made.topology.rip(2)]
        helper = site.status()["helper"]
        assert traces(site) != before
        site.director("down")
        assert traces(site) == before
        assert managed(site) == []
        assert run_files(site) == []
        assert ended(helper)

    def test_gives_the_sysctl_back_as_it_was(self, site: Site) -> None:
        site.run(["sysctl", "-w", "net.ipv4.conf.lo.accept_local=1"])
        before = traces(site)
        site.up()
        site.up()
        site.director("down")
        assert traces(site) == before

    def test_leaves_the_operators_own_things_alone(self, site: Site) -> None:
        rip = site.made.topology.rip(2)
        mac = json.loads(site.run(["ip", "-j", "link", "show", "eth1"]).stdout)[0]["address"]
        site.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
        site.run(["ip", "neigh", "replace", rip, "lladdr", mac, "nud", "permanent", "dev", "eth1"])
        site.up()
        site.service("t")
        time.sleep(1)  # the helper has looked
        assert "PERMANENT" in site.run(["ip", "neigh", "show", rip]).stdout
        site.director("down")
        assert "PERMANENT" in site.run(["ip", "neigh", "show", rip]).stdout
        assert "clsact" in site.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout
        assert "clsact" not in site.run(["tc", "qdisc", "show", "dev", "eth1"]).stdout

    def test_keeps_rules_for_the_next_up(self, site: Site) -> None:
        site.up()
        site.service("t")
        with site.talking("--udp", "0", "--tcp", "4"):
            pass
        site.director("down", "--keep-rules")
        listing = site.director("ipvsadm", "-Ln")
        assert listing.count("Masq") == 2
        assert re.findall(r"Masq +1 +(\d+) +(\d+)", listing) == [("0", "0")] * 2
        assert "helper" not in site.attempt("status").stdout
        site.up()
        with site.talking("--udp", "0", "--tcp", "4") as seen:
            pass
        assert_unbroken(seen)

    def test_where_nothing_is_up(self, site: Site) -> None:
        done = site.attempt("down")
        assert (done.returncode, done.stdout) == (0, "the data plane was not up\n")
        assert run_files(site) == []


class TestRulesBeforeUp:
    def test_are_kept_listed_and_forwarded(self, site: Site) -> None:
        site.service("t")
        site.service("u")
        listing = site.director("ipvsadm", "-Ln")
        assert listing.count("Masq") == 4
        assert site.attempt("status").returncode == 3
        site.up()
        assert site.director("ipvsadm", "-Ln") == listing
        with site.talking("--tcp", "4", "--udp", "4") as seen:
            pass
        assert_unbroken(seen)
        assert {each.server for each in seen} == {"rs1", "rs2"}


class TestInterfaces:
    def test_up_with_others_replaces_the_set(self, site: Site) -> None:
        site.up()
        site.service("t")
        site.director("up", "eth1")
        assert [each["name"] for each in site.status()["interfaces"]] == ["eth1"]
        assert "xdp" not in site.run(["ip", "link", "show", "eth0"]).stdout
        assert "clsact" not in site.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout
        site.up()
        with site.talking("--udp", "0", "--tcp", "2") as seen:
            pass
        assert_unbroken(seen)

    def test_a_missing_interface(self, site: Site) -> None:
        done = site.attempt("up", "eth0", "nosuch0")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "xlvs: no interface 'nosuch0' in this network namespace\n"
        assert site.attempt("status").returncode == 3
        site.up()
        before = site.status()
        assert site.attempt("up", "eth0", "nosuch0").returncode == 1
        assert (site.status()["generation"], site.status()["interfaces"]) == (
            before["generation"],
            before["interfaces"],
        )

    def test_a_foreign_program_on_the_third(self, site: Site) -> None:
        """Refused in words, and the old generation goes on as if nothing had been."""
        site.run(["ip", "link", "add", "eth2", "type", "veth", "peer", "name", "eth3"])
        site.run(["ip", "link", "set", "eth2", "up"])
        foreign = site.run(["ip", "link", "set", "dev", "eth2", "xdpgeneric", "obj", FOREIGN, "sec", "xdp"])
        assert foreign.returncode == 0, foreign.stderr
        refusal = "xlvs: eth2 has another XDP program: remove that one first\n"
        before = traces(site)
        assert site.attempt("up", *site.interfaces, "eth2").stderr == refusal
        assert traces(site) == before
        assert site.attempt("status").returncode == 3
        site.director("up", "eth0", "eth1")
        site.service("t")
        site.service("u")
        before = traces(site)
        with site.talking() as seen:
            for _ in range(2):
                done = site.attempt("up", "eth0", "eth1", "eth2")
                assert (done.returncode, done.stderr) == (1, refusal)
                assert site.status()["generation"] == 1
        assert_unbroken(seen)
        after = traces(site)
        # The filters were replaced and put back: programs are the same again.
        assert {name: re.sub(r" tag \w+ jited", "", text) for name, text in after.items()} == before or (
            after["xdp"] == before["xdp"]
        )
        site.assert_sound()

    def test_a_device_that_went_away_and_came_back(self, site: Site) -> None:
        site.run(["ip", "link", "add", "eth2", "type", "veth", "peer", "name", "eth3"])
        site.director("up", *site.interfaces, "eth2")
        site.service("t")
        with site.talking("--udp", "0") as seen:
            site.run(["ip", "link", "del", "eth2"])
            modes = {each["mode"] for each in site.status()["interfaces"]}
            assert modes == {"native", "gone"}
            site.run(["ip", "link", "add", "eth2", "type", "veth", "peer", "name", "eth3"])
            site.director("up", *site.interfaces, "eth2")
            found = site.status()["interfaces"]
            assert [(each["name"], each["mode"]) for each in found] == [
                ("eth0", "native"),
                ("eth1", "native"),
                ("eth2", "native"),
            ]
        assert_unbroken(seen)

    @pytest.mark.parametrize("mode", ["generic", "native"])
    def test_modes(self, site: Site, mode: str) -> None:
        site.up("--mode", mode)
        site.service("t")
        site.service("u")
        assert {each["mode"] for each in site.status()["interfaces"]} == {mode}
        with site.talking() as seen:
            site.up("--mode", mode)
            site.up()
        assert_unbroken(seen)
        assert {each["mode"] for each in site.status()["interfaces"]} == {mode}

    def test_another_mode(self, site: Site) -> None:
        site.service("t")
        for mode in ("native", "generic", "native"):
            site.up("--mode", mode)
            assert {each["mode"] for each in site.status()["interfaces"]} == {mode}
            with site.talking("--udp", "0", "--tcp", "4") as seen:
                pass
            assert_unbroken(seen)

    def test_another_mode_under_traffic(self, site: Site) -> None:
        """Between detaching and attaching, the director's own stack answers nobody with a reset."""
        site.service()
        site.up()
        with site.talking("--udp", "0", "--tcp", "8") as seen:
            for number in range(6):
                site.up("--mode", ("generic", "native")[number % 2])
        assert_unbroken(seen)
        assert site.status()["packets"]["pass_no_connection"]["count"] == 0


class TestTableSize:
    def test_is_rounded_up_and_printed(self, site: Site) -> None:
        assert "size=8192" in site.up("--connections", "5000")
        assert "(size=8192)" in site.director("ipvsadm", "-Ln").splitlines()[0]

    @pytest.mark.slow
    def test_ten_million(self, site: Site) -> None:
        """Some four gigabytes, which the machine must have."""
        assert "size=16777216" in site.up("--connections", "10000000")
        site.service("t")
        with site.talking("--udp", "0", "--tcp", "4") as seen:
            assert site.status()["connections"] == {"size": 16777216, "used": 4}
            site.up()
        assert_unbroken(seen)
        assert len(site.director("ipvsadm", "-Lnc").splitlines()) == 2 + 4

    @pytest.mark.parametrize("wrong", ["0", "-5", "1023", "200000000"])
    def test_unreasonable_sizes(self, site: Site, wrong: str) -> None:
        done = site.attempt("up", *site.interfaces, f"--connections={wrong}")
        assert (done.returncode, done.stderr) == (
            1,
            f"xlvs: --connections takes 1024 to 134217728, not {wrong}\n",
        )

    def test_another_size_needs_migrate(self, site: Site) -> None:
        site.up("--connections", "4096")
        done = site.attempt("up", *site.interfaces, "--connections", "8192")
        assert done.returncode == 1
        assert "add --migrate" in done.stderr
        assert done.stderr.count("\n") == 1
        site.up("--connections", "4000")  # the same size
        assert "size=4096" in site.up()
        assert "size=8192" in site.up("--connections", "8192", "--migrate")

    def test_migrates_under_traffic(self, site: Site) -> None:
        """Larger and smaller, with connections coming and going: TCP loses nothing at all."""
        site.up("--connections", "65536")
        site.service("t")
        site.service("u")
        with site.talking() as seen:
            for size in ("262144", "16384", "1024", "65536"):
                with site.talking("--tcp", "5", "--udp", "0") as coming:
                    assert f"size={size}" in site.up("--connections", size, "--migrate")
                assert_unbroken(coming)
        assert_unbroken(seen)
        found = site.audit()
        assert not found["stuck"], found
        assert not found["leaked"], found
        assert not found["missing"], found
        assert not site.status()["helper_trouble"]

    def test_does_not_shrink_below_what_lives(self, site: Site) -> None:
        site.up("--connections", "4096")
        site.service("u")
        with site.talking("--tcp", "0", "--udp", "800", "--pause", "1") as seen:
            done = site.attempt("up", *site.interfaces, "--connections", "1024", "--migrate")
            assert done.returncode == 1
            assert "live connections do not fit a table of 1024" in done.stderr
            assert site.status()["connections"]["size"] == 4096
        assert_unbroken(seen)
        site.assert_sound()


FIRST_COMMAND = """
set -e
mount -t tmpfs none /run
ip netns add d
ip netns add c
ip -n d link add eth0 type veth peer name eth0 netns c
ip -n d addr add 10.9.0.1/24 dev eth0
ip -n d addr add 10.9.0.100/32 dev eth0
ip -n d link set lo up
ip -n d link set eth0 up
ip -n c addr add 10.9.0.2/24 dev eth0
ip -n c link set eth0 up
ip netns exec d sysctl -qw net.ipv4.ip_forward=1
ip netns exec d {python} -m http.server 8080 --bind 10.9.0.1 >/dev/null 2>&1 &
until ip netns exec c curl -s -o /dev/null http://10.9.0.1:8080/; do sleep 0.1; done
test ! -e /run/xlvs
{first} {xlvs} up eth0
test -e /run/xlvs/bpf
ip netns exec d {xlvs} ipvsadm -A -t 10.9.0.100:80 -s rr
nsenter --net=/run/netns/d {xlvs} ipvsadm -a -t 10.9.0.100:80 -r 10.9.0.1:8080 -m
ip netns exec d {xlvs} ipvsadm -Ln
for i in 1 2 3; do
    ip netns exec c curl -sS --max-time 20 -o /dev/null -w 'client %{{http_code}}\\n' http://10.9.0.100/
    ip netns exec d curl -sS --max-time 20 -o /dev/null -w 'director %{{http_code}}\\n' http://10.9.0.100/
done
{second} {xlvs} status
{second} {xlvs} up eth0
{first} {xlvs} down
test -z "$(ls /run/xlvs/bpf | grep -v debug)"
"""


@pytest.mark.parametrize("first", ["ip netns exec d", "nsenter --net=/run/netns/d"])
def test_the_first_command_ever(first: str) -> None:
    """No /run/xlvs, no bpffs: a machine of its own, made of a mount and a PID namespace."""
    both = ["ip netns exec d", "nsenter --net=/run/netns/d"]
    second = both[1 - both.index(first)]
    xlvs = f"{sys.executable} -P -m xlvs.cli.main"
    script = textwrap.dedent(FIRST_COMMAND).format(
        python=sys.executable, first=first, second=second, xlvs=xlvs
    )
    machine = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--kill-child"]
    done = subprocess.run(
        [*machine, "bash", "-c", script], capture_output=True, text=True, check=False, timeout=300, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("client 200") == 3, done.stdout
    assert done.stdout.count("director 200") == 3, done.stdout
    assert "10.9.0.1:8080" in done.stdout
    assert "data plane: up" in done.stdout


class TestHelper:
    def test_forwarding_goes_on_without_it(self, site: Site) -> None:
        site.up()
        site.service("t")
        with site.talking("--udp", "0") as seen:
            helper = site.status()["helper"]
            os.kill(helper, 9)
            time.sleep(0.1)
            assert site.status()["helper"] is None
            assert "not running" in site.attempt("status").stdout
            site.director("ipvsadm", "-Ln")
            site.up()
            assert site.status()["helper"] not in (None, helper)
        assert_unbroken(seen)

    def test_outlives_trouble_and_tells_of_it(self, site: Site) -> None:
        site.up("--no-helper")
        code = """if True:
            from xlvs.cli import slowpath
            from xlvs.dataplane.plane import Plane
            refresh, calls = Plane.refresh, []
            def broken(plane):
                calls.append(1)
                if len(calls) == 1:
                    raise OSError("netlink has a bad day")
                refresh(plane)
            Plane.refresh = broken
            slowpath.main([])"""
        inside = namespaces.inside(site.namespace, [sys.executable, "-c", code])
        with subprocess.Popen(inside) as helper:
            deadline = time.monotonic() + 30
            while not site.status()["helper_trouble"] and time.monotonic() < deadline:
                time.sleep(0.1)
            assert "bad day" in site.status()["helper_trouble"]
            assert "bad day" in site.attempt("status").stdout
            assert helper.poll() is None
            site.service("t")  # the next look goes well
            deadline = time.monotonic() + 30
            while site.status()["helper_trouble"] and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not site.status()["helper_trouble"]
            site.director("down")
            assert helper.wait(30) == 0

    def test_there_is_one(self, site: Site) -> None:
        site.up()
        done = site.attempt("slowpath")
        assert (done.returncode, done.stderr) == (1, "xlvs: the helper runs already\n")

    def test_goes_with_an_abandoned_namespace(self) -> None:
        """`ip netns del` with the plane up: within some ten seconds nothing is left."""
        name = f"xlvs-abandoned-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        for line in ("link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up"):
            subprocess.run(["ip", "-n", name, *line.split()], check=True)
        inside = ["ip", "netns", "exec", name]
        code = "from xlvs.dataplane import pins; print(f'{pins.netns_cookie():016x}')"
        python = [*inside, sys.executable, "-c", code]
        cookie = subprocess.run(python, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([*inside, *build.xlvs("up", "eth0")], check=True, capture_output=True)
        assert os.path.isdir(f"/run/xlvs/bpf/{cookie}")
        time.sleep(6)  # while the namespace has its name, nothing happens
        assert os.path.isdir(f"/run/xlvs/bpf/{cookie}")
        subprocess.run(["ip", "netns", "del", name], check=True)
        deadline = time.monotonic() + 60
        left = ["something"]
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            left = [
                each for folder in ("", "/bpf") for each in os.listdir(f"/run/xlvs{folder}") if cookie in each
            ]
        assert not left
