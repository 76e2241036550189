"""Changes of the rules: many hands at once, killed hands, readers in between, and running traffic."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.netns import topology
from tests.netns.killing import killed_before
from tests.netns.topology import PORT, Site, assert_unbroken
from tests.unit.ipvsadm_console import Console
from xlvs.dataplane.port import DataPlane
from xlvs.lab import build, namespaces

pytestmark = pytest.mark.root


@pytest.fixture
def site() -> Iterator[Site]:
    with topology.site(real_servers=3) as made:
        yield made


Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


@pytest.fixture
def start(site: Site) -> Iterator[Start]:
    """Starts commands on the director; none outlives the test."""
    with ExitStack() as stack:

        def begin(command: Sequence[str]) -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            inside = namespaces.inside(site.namespace, command)
            process = subprocess.Popen(inside, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def rules_of(plane: DataPlane) -> list[str]:
    """Services with their destinations in list order, a text each; counters left out."""
    texts = []
    for entry in plane.services():
        key = replace(entry.service.key, protocol=int(entry.service.key.protocol))  # L4 prints otherwise
        service = replace(entry.service, key=key)
        texts.append(f"{service} {[each.destination for each in entry.destinations]}")
    return sorted(texts)


OPEN_OFTEN = """if True:
    import os
    from xlvs.cli.engine import open_data_plane
    counts = []
    for _ in range(50):
        plane = open_data_plane()
        with plane.transaction() as change:
            change.zero()
        plane.services(), list(plane.connections())
        del change, plane
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts) == counts[0], counts"""


def test_opening_often_keeps_no_descriptors(site: Site) -> None:
    run = site.python(OPEN_OFTEN)
    assert run.returncode == 0, run.stderr


# -- a model beside it -------------------------------------------------------------

RULES = """if True:
    from tests.netns.test_rules import rules_of
    from xlvs.cli.engine import open_data_plane
    print("\\n".join(rules_of(open_data_plane())))"""

SERVICES = [f"-t 10.1.252.161:{port}" for port in (8001, 8002)]
SERVICES += ["-u 10.1.252.161:8001", "-t [fd66::1]:80", "-t 10.1.252.161:7000", "-u 10.1.252.161:7000"]
ADDRESSES = {False: ["10.66.0.1", "10.66.0.2", "10.66.0.3"], True: ["[fd66::11]", "[fd66::12]"]}
SCHEDULERS = ["rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "fo", "ovf", "twos"]


def random_command(choice: random.Random) -> list[str]:
    """A command, right or wrong; the services of the conversations keep rs1 and rs2."""
    service = choice.choice(SERVICES)
    kept = service.endswith(f":{PORT}")
    address = choice.choice(ADDRESSES["[" in service])
    server = f"192.168.22.20:{PORT}" if kept else f"{address}:{choice.choice((80, 81))}"
    scheduler = choice.choice(SCHEDULERS)
    commands = [
        (1 if kept else 3, f"-A {service} -s {scheduler}"),
        (2, f"-E {service} -s {scheduler}"),
        (0 if kept else 1, f"-D {service}"),
        (6, f"-a {service} -r {server} -m -w {choice.randrange(4)}"),
        (3, f"-e {service} -r {server} {choice.choice(['-m', '-m', '-g'])} -w {choice.randrange(4)}"),
        (4, f"-d {service} -r {server}"),
        (1, f"-Z {service}"),
    ]
    chosen = choice.choices([line for _, line in commands], [weight for weight, _ in commands])[0]
    return chosen.split()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_commands_under_traffic(site: Site, seed: int) -> None:
    """200 of them: no connection to an untouched server breaks, and the rules are a model's at the end."""
    choice, model = random.Random(seed), Console()
    site.up()
    for protocol in "tu":
        name = f"{site.vip}:{PORT}"
        lines = [f"-A -{protocol} {name} -s wlc"]
        lines += [f"-a -{protocol} {name} -r {site.made.topology.rip(number)}:{PORT} -m" for number in (1, 2)]
        for line in lines:
            site.director("ipvsadm", *line.split())
            assert model.run(line) == 0
    with site.talking("--tcp", "12", "--udp", "12") as seen:
        for _ in range(200):
            words = random_command(choice)
            done = site.attempt("ipvsadm", *words)
            assert (done.returncode, done.stderr) == (model.run_words(words), model.err), words
    assert_unbroken(seen)
    assert {each.server for each in seen} == {"rs1", "rs2"}
    done = site.python(RULES)
    assert done.stdout.splitlines() == rules_of(model.plane), done.stderr
    site.assert_sound()


# -- many at once ------------------------------------------------------------------

WRITER = """if True:
    import io, sys
    from xlvs.cli.main import main
    number = sys.argv[1]
    service = f"-t 10.66.{number}.1:80"
    for round in range(6):
        lines = [f"-A {service} -s wrr"]
        lines += [f"-a {service} -r 10.67.{number}.{each}:80 -m" for each in range(1, 9)]
        sys.stdin = io.TextIOWrapper(io.BytesIO("\\n".join([*lines, ""]).encode()))
        assert main(["xlvs", "ipvsadm", "-R"]) == 0
        if round < 5:
            assert main(["xlvs", "ipvsadm", "-D", "-t", f"10.66.{number}.1:80"]) == 0"""

READER = """if True:
    import sys
    from xlvs.cli.engine import open_data_plane
    counts, looks = {}, 0
    print("ready", flush=True)
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        looks += 1
        for entry in open_data_plane().services():
            key = len(entry.destinations)
            counts[key] = counts.get(key, 0) + 1
    print(looks, counts)"""


def test_twenty_writers_and_a_reader(site: Site, start: Start) -> None:
    """Nobody is lost, and nobody ever sees half of what another one does."""
    site.up()
    reader = start([sys.executable, "-c", READER])
    assert reader.stdout
    assert reader.stdout.readline() == "ready\n"
    writers = [start([sys.executable, "-c", WRITER, str(number)]) for number in range(20)]
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    looks, counts = reader.communicate("")[0].split(" ", 1)
    assert int(looks) > 10
    assert counts.startswith("{8: "), counts
    assert "," not in counts, counts
    listing = site.director("ipvsadm", "-Ln")
    assert listing.count("wrr") == 20
    assert listing.count("Masq") == 160


# -- killed half-way ---------------------------------------------------------------

# What packets see, whoever was killed: the index, and what it leads to.
RAW = """if True:
    from xlvs.dataplane import layout, libbpf
    from xlvs.dataplane.rows import read_service, service_wire_key
    from xlvs.dataplane.tables import Tables
    tables = Tables()
    for key in libbpf.keys(tables.fd("service_index"), 20):
        row = tables.service_row(tables.find_service(key))
        service = read_service(row)
        assert service_wire_key(service.key) == key and row.flags & layout.SERVICE_USED
        if service.scheduler == "sh":
            first, count = row.table & 0xffffffff, row.table >> 32
            buckets = memoryview(tables.memory("buckets")).cast("I")[first : first + count]
            dests = [(tables.dest_row(each), 0) for each in buckets]
        else:
            first, count = row.members & 0xffffffff, row.members >> 32
            members = tables.member_rows(first, count) if count else []
            dests = [(tables.dest_row(each.dest), each.weight) for each in members]
        assert all(row.flags & layout.DEST_AVAILABLE for row, _ in dests)
        texts = {(row.address[3], weight, row.forward) for row, weight in dests}
        print(service.key.port, service.scheduler, sorted(texts))"""

BEFORE = """
-A -t 10.1.252.161:81 -s wrr
-a -t 10.1.252.161:81 -r 10.66.0.1:80 -m -w 1
-a -t 10.1.252.161:81 -r 10.66.0.2:80 -m -w 2
-A -t 10.1.252.161:82 -s sh
-a -t 10.1.252.161:82 -r 10.66.0.1:80 -m
-A -t 10.1.252.161:83 -s rr
-a -t 10.1.252.161:83 -r 10.66.0.1:80 -m
-A -t 10.1.252.161:84 -s rr
-a -t 10.1.252.161:84 -r 10.66.0.1:80 -m
"""
CHANGE = """
-d -t 10.1.252.161:81 -r 10.66.0.1:80
-a -t 10.1.252.161:81 -r 10.66.0.3:80 -g -w 3
-E -t 10.1.252.161:82 -s rr
-a -t 10.1.252.161:82 -r 10.66.0.2:80 -m
-E -t 10.1.252.161:83 -s sh
-D -t 10.1.252.161:84
-A -t 10.1.252.161:84 -s wlc
-a -t 10.1.252.161:84 -r 10.66.0.2:80 -m
-a -t 10.1.252.161:84 -r 10.66.0.1:80 -m
-A -t 10.1.252.161:85 -s wlc
-a -t 10.1.252.161:85 -r 10.66.0.4:80 -m
"""


def seen_by_packets(site: Site) -> dict[str, str]:
    done = site.python(RAW)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_between_any_two_steps(site: Site, start: Start) -> None:
    """Every service is old or new, never anything else; the next command finds the whole change done."""
    site.up("--no-helper")
    site.service("t")
    conversations = [f"-A -t {site.vip}:{PORT} -s rr"]
    for number in (1, 2, 3):
        conversations.append(f"-a -t {site.vip}:{PORT} -r {site.made.topology.rip(number)}:{PORT} -m")

    def restore(text: str) -> None:
        site.director("ipvsadm", "-C")
        site.director("ipvsadm", "-R", text="\n".join(conversations) + text)

    restore(BEFORE)
    old = seen_by_packets(site)
    site.director("ipvsadm", "-R", text=CHANGE)
    new, listing = seen_by_packets(site), site.director("ipvsadm", "-Sn")
    assert old != new
    step, killed = 0, True
    with site.talking("--udp", "0", "--tcp", "4") as seen:
        while killed:
            restore(BEFORE)
            process = start(killed_before(step, "ipvsadm", "-R"))
            errors = process.communicate(CHANGE)[1]
            killed = process.returncode == -9
            assert killed or process.returncode == 0, errors
            found = seen_by_packets(site)
            for port in {*old, *new, *found}:
                assert found.get(port) in (old.get(port), new.get(port)), (step, port)
            assert site.director("ipvsadm", "-Sn") == listing, step
            assert seen_by_packets(site) == new
            step += 1
    assert step > 30
    # restore() deletes the conversations' service too; its connections found it again each time.
    assert not [each for each in seen if each.wrong], seen
    site.assert_sound()


def test_a_killed_reader_or_waiter_leaves_the_lock(site: Site, start: Start) -> None:
    site.up("--no-helper")
    code = """if True:
        import time
        from xlvs.dataplane.tables import Tables
        with Tables().locked(exclusive=True):
            print("ready", flush=True)
            time.sleep(60)"""
    holder = start([sys.executable, "-c", code])
    assert holder.stdout
    assert holder.stdout.readline() == "ready\n"
    waiter = start(build.xlvs("ipvsadm", "-A", "-t", "10.66.0.1:80"))
    other = start(build.xlvs("ipvsadm", "-A", "-t", "10.66.0.2:80"))
    time.sleep(0.3)
    waiter.kill()
    waiter.communicate()
    holder.kill()
    holder.communicate()
    assert other.communicate(timeout=60)[1] == ""
    assert "10.66.0.2:80" in site.director("ipvsadm", "-Ln")


def spent() -> float:
    """Seconds of processor time of all commands so far: others may be at work on this machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_eleven_thousand_rules_at_once(site: Site) -> None:
    """A batch of seconds, and every one of them is there."""
    site.up()
    lines = []
    for service in range(1000):
        vip = f"10.70.{service >> 8}.{service & 255}:80"
        lines.append(f"-A -t {vip} -s wrr")
        lines += [
            f"-a -t {vip} -r 10.71.{service & 255}.{each + 1}:80 -m -w {each + 1}" for each in range(10)
        ]
    begun = spent()
    site.director("ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
    assert spent() - begun < 10
    assert len(site.director("ipvsadm", "-Sn").splitlines()) == 11000
    begun = spent()
    site.director("ipvsadm", "-C")
    assert spent() - begun < 5
    assert site.director("ipvsadm", "-Sn") == ""
