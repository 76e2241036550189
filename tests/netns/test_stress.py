"""What happens to running traffic when the world moves, and two CPUs at once on the same keys."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.netns import topology
from tests.netns.topology import PORT, REPOSITORY, Site, assert_unbroken
from xlvs.lab import build, namespaces
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root


@pytest.fixture
def site() -> Iterator[Site]:
    with topology.site(ipv6=True) as made:
        yield made


SETTINGS = """if True:
    import sys
    from xlvs.dataplane import layout
    from xlvs.dataplane.tables import Tables
    settings = Tables().settings
    for word in sys.argv[1:]:
        name, value = word.split("=")
        if name == "tcp_timeout":
            settings.tcp_timeout[:] = [int(value)] * 16
        else:
            setattr(settings, name, int(value))
    print(settings.hz)"""


def settings(site: Site, **values: int) -> None:
    """Write the data plane's settings behind everybody's back."""
    done = site.python(SETTINGS, *(f"{name}={value}" for name, value in values.items()))
    assert done.returncode == 0, done.stderr


def hammer(site: Site, seconds: float, together: Path) -> int:
    """Both CPUs on the same flows; returns how many packets."""
    topology = site.made.topology
    servers = [topology.rip(number, ipv6) for number in (1, 2) for ipv6 in (False, True)]
    together.write_bytes(bytes(mmap.PAGESIZE))
    with ExitStack() as stack:
        workers = []
        for cpu in (0, 1):
            command = [sys.executable, "-m", "tests.netns.hammer", str(cpu), str(seconds)]
            command += [",".join(topology.vips), ",".join(servers), str(PORT), str(together)]
            worker = subprocess.Popen(
                namespaces.inside(site.namespace, command),
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
            )
            stack.enter_context(worker)
            stack.callback(worker.kill)
            workers.append(worker)
        return sum(int(worker.communicate()[0].split()[1]) for worker in workers)


@pytest.mark.parametrize(
    "seconds",
    [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["short", "minute"],
)
def test_two_cpus_on_the_same_keys(site: Site, seconds: int, tmp_path: Path) -> None:
    """No key leaks, no slot sticks, no counter drifts, whoever wins."""
    site.up("--connections", "16384")
    for ipv6 in (False, True):
        for protocol in "tu":
            site.service(protocol, ipv6=ipv6)
    # Ends come by the timer, every slot looked at in each tick, and by SYNs on closed connections.
    settings(site, scan_chunk=16384, udp_timeout=1, tcp_timeout=1)
    begun = site.status()["packets"]
    packets = hammer(site, seconds, tmp_path / "together")
    settings(site, flags=1)  # as if migrating: time stands still, and the table can be looked at
    found = site.assert_sound()
    assert found["live"] > 100
    counts = {name: each["count"] for name, each in site.status()["packets"].items()}
    assert packets > 500 * seconds
    assert counts["forwarded"] + counts["handed_neighbour"] > packets // 4, counts
    listing = json.loads(site.director("ipvsadm", "-L", "--json"))
    made = sum(each["counters"]["connections"] for each in listing["services"])
    assert made > 20 * found["live"] or seconds < 10, (made, found["live"])
    settings(site, flags=0)
    deadline = time.monotonic() + 30
    while site.audit()["live"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert site.assert_sound()["live"] == 0
    assert begun["drop_table_full"]["count"] == 0 == counts["drop_table_full"]


class TestTheWorldMoves:
    """Neighbours, MAC addresses and routes change under running conversations: TCP loses nothing."""

    def test_neighbours_are_flushed(self, site: Site) -> None:
        site.up()
        site.service("t")
        site.service("u")
        with site.talking() as seen:
            for _ in range(10):
                site.run(["ip", "neigh", "flush", "all"])
                time.sleep(0.1)
        assert_unbroken(seen, lost=sum(each.sent for each in seen) // 100)
        assert all(each.longest_gap < 6 for each in seen), seen

    def test_neighbours_are_flushed_without_the_helper(self, site: Site) -> None:
        """The tc companion resolves them, packet by packet."""
        site.up("--no-helper")
        site.service("t")
        site.service("u")
        with site.talking() as seen:
            for _ in range(10):
                site.run(["ip", "neigh", "flush", "all"])
                time.sleep(0.1)
        assert_unbroken(seen, lost=sum(each.sent for each in seen) // 100)
        counts = site.status()["packets"]
        assert counts["handed_neighbour"]["count"] > 0

    def test_a_real_server_gets_another_mac(self, site: Site) -> None:
        """As a failover or a new card would have it: announced, and followed within a moment."""
        site.up()
        site.service("t")
        site.service("u")
        space = site.made.namespace("rs1")
        with site.talking() as seen:
            for last in ("02:00:00:00:aa:01", "02:00:00:00:aa:02"):
                change = ["ip", "link", "set", "eth0", "address", last]
                namespaces.run(namespaces.inside(space, change))
                namespaces.run(namespaces.inside(space, ["ping", "-c1", "-W1", "192.168.22.1"]))
                time.sleep(1)
        assert_unbroken(seen, lost=sum(each.sent for each in seen) // 20)
        assert all(each.longest_gap < 6 for each in seen), seen
        assert {each.server for each in seen} == {"rs1", "rs2"}

    def test_routes_move(self, site: Site) -> None:
        """The way to the clients leads through another address of the router, and back."""
        site.up()
        site.service("t")
        site.service("u")
        router = site.made.namespace("router")
        namespaces.run(namespaces.inside(router, ["ip", "addr", "add", "10.1.0.99/16", "dev", "eth1"]))
        with site.talking() as seen:
            for gateway in ("10.1.0.99", "10.1.0.1", "10.1.0.99"):
                site.run(["ip", "route", "replace", "default", "via", gateway])
                time.sleep(0.5)
        assert_unbroken(seen)
        assert "10.1.0.99" in site.run(["ip", "neigh", "show"]).stdout

    def test_no_route_for_a_moment(self, site: Site) -> None:
        site.up()
        site.service("t")
        with site.talking("--udp", "0") as seen:
            site.run(["ip", "route", "del", "default"])
            time.sleep(0.3)
            site.run(["ip", "route", "add", "default", "via", "10.1.0.1"])
            time.sleep(1)
        assert_unbroken(seen)
        assert site.status()["packets"]["drop_no_route"]["count"] > 0


class TestCounting:
    def test_stats_are_what_was_sent(self, site: Site) -> None:
        site.up()
        name = site.service("u")
        with site.talking("--tcp", "0", "--udp", "6") as seen:
            time.sleep(0.5)
        assert_unbroken(seen)
        sent = sum(each.sent for each in seen)
        listing = json.loads(site.director("ipvsadm", "-L", "--json"))["services"][0]
        # A record is 64 bytes, a server's name 16, the headers 28.
        assert listing["counters"] == {
            "connections": 6,
            "in_packets": sent,
            "out_packets": sent,
            "in_bytes": sent * (64 + 28),
            "out_bytes": sent * (64 + 16 + 28),
        }
        for what, total in listing["counters"].items():
            assert sum(each["counters"][what] for each in listing["destinations"]) == total
        site.director("ipvsadm", "-Z", "-u", name)
        listing = json.loads(site.director("ipvsadm", "-L", "--json"))["services"][0]
        assert not any(listing["counters"].values())
        assert not any(value for each in listing["destinations"] for value in each["counters"].values())

    @pytest.mark.slow
    def test_rates_are_what_is_sent(self, site: Site) -> None:
        """The estimator moves a quarter of the way every two seconds: after twenty it is there."""
        site.up()
        site.service("u")

        def listed() -> tuple[dict[str, Any], float]:
            found = json.loads(site.director("ipvsadm", "-L", "--json"))["services"][0]
            return found, time.monotonic()

        with site.talking("--tcp", "0", "--udp", "4", "--pause", "0.1") as seen:
            time.sleep(12)
            before, begun = listed()
            time.sleep(12)  # the estimator remembers eight
            listing, ended = listed()
        assert_unbroken(seen)
        sent = (listing["counters"]["in_packets"] - before["counters"]["in_packets"]) / (ended - begun)
        assert listing["rates"]["in_packets"] == pytest.approx(sent, rel=0.15)
        assert listing["rates"]["out_packets"] == pytest.approx(sent, rel=0.15)
        assert listing["rates"]["in_bytes"] == pytest.approx(sent * 92, rel=0.15)


class TestTime:
    def test_connections_end_without_any_process(self, site: Site) -> None:
        site.up("--connections", "4096", "--no-helper")
        site.service("t")
        site.service("u")
        site.director("ipvsadm", "--set", "6", "6", "6")
        with site.talking("--tcp", "4", "--udp", "4") as seen:
            pass
        assert_unbroken(seen)
        ended = time.monotonic()
        assert site.status()["helper"] is None
        assert site.audit()["live"] == 8
        while site.audit()["live"] > 4 and time.monotonic() < ended + 40:
            time.sleep(0.1)
        assert 4 < time.monotonic() - ended < 40
        # TCP's wait in TIME_WAIT, whose two minutes `--set` does not change.
        assert all(70 < expires <= 120 for expires in expiries(site))
        assert site.assert_sound()["live"] == 4

    def test_set_changes_connections_that_run(self, site: Site) -> None:
        """As the kernel does: with their next packet."""
        site.up()
        site.service("u")
        with site.talking("--tcp", "0", "--udp", "4") as seen:
            assert all(280 < expires <= 300 for expires in expiries(site))
            site.director("ipvsadm", "--set", "0", "0", "50")
            deadline = time.monotonic() + 20
            while max(expiries(site)) > 50 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert all(40 < expires <= 50 for expires in expiries(site)), expiries(site)
        assert_unbroken(seen)


def expiries(site: Site) -> list[float]:
    found = json.loads(site.director("ipvsadm", "-Lnc", "--json"))["connections"]
    assert found
    return [each["expires"] for each in found]


@pytest.mark.parametrize("method", [Method.NAT, Method.DR, Method.TUN])
@pytest.mark.parametrize("mode", ["generic", "native"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_trains_of_segments(method: Method, mode: str, ipv6: bool, tmp_path: Path) -> None:
    """Megabytes both ways through veth pairs with every offload on, in both modes."""
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 32768)
    with topology.site(method, ipv6=ipv6) as site:
        site.up("--mode", mode)
        site.director("ipvsadm", "-R", text="\n".join(build.rule_lines(site.made.topology)) + "\n")
        for number in (1, 2):
            Path(site.made.site(number), "html/body").write_bytes(body.read_bytes())
        url = site.made.topology.url(ipv6)
        for number in (1, 2):
            got = tmp_path / f"got{number}"
            curl = ["curl", "-sS", "--fail", "--max-time", "60"]
            site.made.run("client", [*curl, "-o", str(got), f"{url}/body"])
            assert got.read_bytes() == body.read_bytes()
            site.made.run("client", [*curl, "-T", str(body), f"{url}/upload/{mode}{number}"])
        folders = [Path(site.made.site(number), "html/upload") for number in (1, 2)]
        stored = [each for folder in folders if folder.is_dir() for each in folder.iterdir()]
        assert sorted(each.name for each in stored) == [f"{mode}1", f"{mode}2"]
        assert all(each.read_bytes() == body.read_bytes() for each in stored)
