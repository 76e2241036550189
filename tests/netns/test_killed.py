"""`xlvs up` killed between any two of its steps: forwarding goes on, the next command puts things right."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import count

import pytest

from tests.netns import topology
from tests.netns.topology import Site, assert_unbroken

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

# SIGKILL before the N-th thing that `up` changes in the kernel.
KILLED = """if True:
    import os, shutil, sys
    from xlvs.dataplane import attach, libbpf, migrate, plane
    left = int(sys.argv[1])
    def deadly(function):
        def step(*arguments, **options):
            global left
            if left == 0:
                os.kill(os.getpid(), 9)
            left -= 1
            return function(*arguments, **options)
        return step
    for name in ("pin", "attach_xdp", "update_link", "detach_link", "attach_tc", "detach_tc"):
        setattr(libbpf, name, deadly(getattr(libbpf, name)))
    for name in ("begin", "catch_up", "finish"):
        setattr(migrate.Migration, name, deadly(getattr(migrate.Migration, name)))
    for name in ("_arm", "_settle", "_prepare_loopback", "_refresh_hosts"):
        setattr(plane.Plane, name, deadly(getattr(plane.Plane, name)))
    os.rename, shutil.rmtree = deadly(os.rename), deadly(shutil.rmtree)
    from xlvs.cli.main import main
    sys.exit(main(["xlvs", "up", *sys.argv[2:], "--no-helper"]))"""


@pytest.fixture
def site() -> Iterator[Site]:
    with topology.site() as made:
        yield made


def kill_each_step(site: Site, *arguments: str, every: int = 1) -> Iterator[int]:
    """Run `up` once for every step it has, killed there; ends when one comes through.

    A step takes seconds: ``every`` 2 is every other one, which of them is left to chance.
    """
    for step in count(random.randrange(every), every):
        done = site.python(KILLED, str(step), *arguments)
        if done.returncode == 0:
            return
        assert done.returncode in (-9, 137), done.stderr
        yield step


def test_a_running_plane(site: Site) -> None:
    site.up("--no-helper")
    site.service("t")
    site.service("u")
    with site.talking("--tcp", "6", "--udp", "6") as seen:
        steps = 0
        for step in kill_each_step(site, *site.interfaces):
            assert site.status()["up"], step
            assert [each["mode"] for each in site.status()["interfaces"]] == ["native"] * 2, step
            steps += 1
    assert_unbroken(seen)
    assert steps > 25
    site.assert_sound()
    with site.talking("--tcp", "4", "--udp", "4") as seen:
        time.sleep(0.2)
    assert_unbroken(seen)


def test_other_interfaces(site: Site) -> None:
    """Killed on the way from one to two interfaces; the next `up`, of the first alone, sees to it."""
    site.service("t")
    site.director("up", "eth1", "--no-helper")
    before = site.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout
    for step in kill_each_step(site, *site.interfaces, every=2):
        site.director("up", "eth1", "--no-helper")
        assert [each["name"] for each in site.status()["interfaces"]] == ["eth1"], step
        assert "xdp" not in site.run(["ip", "link", "show", "eth0"]).stdout, step
        assert site.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout == before, step
    with site.talking("--udp", "0", "--tcp", "4") as seen:
        pass
    assert_unbroken(seen)


def test_the_first_up(site: Site) -> None:
    """Nothing counts before it is whole; `down` and `up` both clean up what is there."""
    lo = ["sysctl", "-n", "net.ipv4.conf.lo.accept_local"]
    for step in kill_each_step(site, *site.interfaces, every=2):
        site.director("down")
        assert "xdp" not in site.run(["ip", "link", "show"]).stdout, step
        assert "clsact" not in site.run(["tc", "qdisc", "show"]).stdout, step
        assert site.run(lo).stdout == "0\n", step
    assert site.status()["up"]


def test_a_migration(site: Site) -> None:
    """The helper, or the next command that takes the plane's lock, ends what the dead one began."""
    site.up("--no-helper", "--connections", "4096")
    site.service("t")
    site.service("u")
    with site.talking("--tcp", "6", "--udp", "6") as seen:
        for step in kill_each_step(site, *site.interfaces, "--connections", "16384", "--migrate", every=2):
            recover = "from xlvs.cli.engine import open_plane; open_plane().refresh()"
            done = site.python(recover)
            assert done.returncode == 0, (step, done.stderr)
            size = site.status()["connections"]["size"]
            assert size in (4096, 16384), step
            site.up("--no-helper", "--connections", "4096", "--migrate")
            assert site.status()["connections"]["size"] == 4096
    broken = [each for each in seen if each.wrong or each.error]
    assert not broken, broken
    assert_unbroken(seen, lost=sum(each.sent for each in seen) // 50)
    found = site.audit()
    assert not any(found[what] for what in ("stuck", "leaked", "missing")), found
