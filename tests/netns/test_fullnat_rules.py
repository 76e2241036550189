"""FULLNAT's rules in the maps: pools of local addresses, both families, killed hands, save and restore."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.alone import Alone
from tests.netns.killing import killed_before

pytestmark = pytest.mark.root
DIRECTOR = Alone("xlvs-fullnat-rules")

# What a packet sees: through the index, by port of the service.
SEEN = """if True:
    import json, socket
    from xlvs.dataplane import layout, libbpf
    from xlvs.dataplane.rows import read_service
    from xlvs.dataplane.tables import Tables
    tables, found = Tables(), {}
    for key in libbpf.keys(tables.fd("service_index"), 20):
        row = tables.service_row(tables.find_service(key))
        assert row.flags & layout.SERVICE_USED
        pools = []
        for word, family, size in zip(row.locals, (socket.AF_INET, socket.AF_INET6), (4, 16)):
            first, count = word & 0xffffffff, word >> 32
            rows = tables.local_rows(first, count) if count else []
            assert not any(any(bytes(each.address)[size:]) for each in rows)
            pools.append([socket.inet_ntop(family, bytes(each.address)[:size]) for each in rows])
        members = tables.member_rows(row.members & 0xffffffff, row.members >> 32) if row.members else []
        dests = [tables.dest_row(each.dest) for each in members]
        found[read_service(row).key.port] = {
            "pools": pools, "synproxy": row.synproxy, "client_address": row.client_address,
            "dests": [[each.forward, each.family, each.flags] for each in dests],
        }
    print(json.dumps(found))"""


@pytest.fixture
def director() -> Iterator[Alone]:
    with DIRECTOR.made():
        yield DIRECTOR


def restore(director: Alone, text: str, *options: str) -> None:
    director.xlvs("ipvsadm", "-R", *options, text=text)


def seen(director: Alone) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(director.python(SEEN))
    return found


RULES = """\
-A -t 10.0.0.1:80 -s sh -b sh-port -j auto --client-address proxy
-P -t 10.0.0.1:80 -z 10.1.0.1-10.1.0.28,10.1.1.1,2001:db8:1::1-2001:db8:1::3
-a -t 10.0.0.1:80 -r 10.2.0.1:8080 -b -w 5 -x 100 -y 50
-a -t 10.0.0.1:80 -r [2001:db8::2]:80 -b -w 1
-A -t 10.0.0.1:81 -s rr
-P -t 10.0.0.1:81 -z 10.1.0.1
-a -t 10.0.0.1:81 -r 10.2.0.1:80 -b -w 1
-A -t 10.0.0.1:82 -s rr -j enable
-a -t 10.0.0.1:82 -r 10.2.0.1:80 -m -w 1
"""


def test_rules_arrive_where_packets_look(director: Alone) -> None:
    restore(director, RULES)
    found = seen(director)
    four = [f"10.1.0.{number}" for number in range(1, 29)] + ["10.1.1.1"]
    six = [f"2001:db8:1::{number}" for number in (1, 2, 3)]
    # synproxy and client_address as enum xlvs_synproxy and xlvs_client_address number them.
    assert found["80"] == {
        "pools": [four, six],
        "synproxy": 2,
        "client_address": 2,
        "dests": [[5, 10, 3], [5, 2, 3]],
    }
    assert found["81"] == {
        "pools": [["10.1.0.1"], []],
        "synproxy": 0,
        "client_address": 1,
        "dests": [[5, 2, 3]],
    }
    assert found["82"] == {
        "pools": [[], []],
        "synproxy": 1,
        "client_address": 0,
        "dests": [[0, 2, 3]],
    }
    # The default follows the methods: toa with FULLNAT only.
    director.xlvs("ipvsadm", "-e", "-t", "10.0.0.1:81", "-r", "10.2.0.1:80", "-m")
    director.xlvs("ipvsadm", "-E", "-t", "10.0.0.1:82", "-s", "wrr", "--client-address", "toa")
    found = seen(director)
    assert (found["81"]["client_address"], found["82"]["client_address"]) == (0, 1)
    assert found["82"]["synproxy"] == 1
    director.xlvs("ipvsadm", "-D", "-t", "10.0.0.1:80")
    director.xlvs("ipvsadm", "-A", "-t", "10.0.0.1:80")
    assert seen(director)["80"]["pools"] == [[], []]


def test_fragments_from_real_servers_of_fullnat_are_known(director: Alone) -> None:
    restore(director, RULES)
    code = """if True:
        from xlvs.dataplane import layout, libbpf
        from xlvs.dataplane.tables import Tables
        tables = Tables()
        for key in libbpf.keys(tables.fd("addresses"), 20):
            kind = int.from_bytes(libbpf.lookup(tables.fd("addresses"), key, 4), "little")
            if kind & layout.ADDRESS_REAL and not any(key[16:18]):
                print(key[:16 if key[19] == 10 else 4].hex())"""
    real = {bytes((10, 2, 0, 1)).hex(), "20010db8000000000000000000000002"}
    assert set(director.python(code).split()) == real
    restore(director, "-d -t 10.0.0.1:80 -r [2001:db8::2]:80\n")
    assert set(director.python(code).split()) == {bytes((10, 2, 0, 1)).hex()}


def test_save_and_restore_lose_nothing(director: Alone) -> None:
    restore(director, RULES)
    saved = director.xlvs("ipvsadm", "-S", "-n").stdout
    assert saved == RULES
    director.xlvs("ipvsadm", "-C")
    assert director.xlvs("ipvsadm", "-S", "-n").stdout == ""
    restore(director, saved, "--atomic")
    assert director.xlvs("ipvsadm", "-S", "-n").stdout == RULES


def test_local_addresses_survive_up_and_down(director: Alone) -> None:
    restore(director, RULES)
    director.xlvs("up", "eth0", "--no-helper")
    assert director.xlvs("ipvsadm", "-S", "-n").stdout == RULES
    text = director.xlvs("ipvsadm", "-G", "-t", "10.0.0.1:81").stdout
    assert text.splitlines()[1:] == [
        "10.0.0.1:81          1        ",
        "                              10.1.0.1             0          0         ",
    ]


CONFLICTS = """if True:
    import sys
    from xlvs.dataplane.tables import Tables
    tables = Tables()
    word = next(word for number in range(3) if (word := tables.service_row(number).locals[0]) >> 32 == 1)
    tables.local_rows(word & 0xffffffff, 1)[0].conflicts = 12345678901"""


def test_what_was_counted_for_an_address_moves_along(director: Alone) -> None:
    restore(director, RULES)
    director.python(CONFLICTS)
    director.xlvs("ipvsadm", "-P", "-t", "10.0.0.1:81", "-z", "10.1.0.0,2001:db8:2::7")
    listed = json.loads(director.xlvs("ipvsadm", "-G", "-t", "10.0.0.1:81", "--json").stdout)
    pool = listed["services"][0]["local_addresses"]
    assert [(each["address"], each["conflicts"]) for each in pool] == [
        ("10.1.0.1", 12345678901),
        ("10.1.0.0", 0),
        ("2001:db8:2::7", 0),
    ]


# Behind SEEN, in the same process: a command, which finishes what a killed one left.
SAVED = """
    from xlvs.cli.main import main
    main(["xlvs", "ipvsadm", "-S", "-n"])"""
CHANGE = """\
-Q -t 10.0.0.1:80 -z 10.1.0.1-10.1.0.10,2001:db8:1::2
-P -t 10.0.0.1:80 -z 10.1.9.1
-D -t 10.0.0.1:81
-A -t 10.0.0.1:81 -s wlc
-P -t 10.0.0.1:81 -z 10.1.3.1-10.1.3.3
-A -t 10.0.0.1:83 -s rr
-P -t 10.0.0.1:83 -z 10.1.0.1
-a -t 10.0.0.1:83 -r 10.2.0.1:80 -b
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_between_any_two_steps(director: Alone) -> None:
    """A pool is the old or the new one at every moment, and the next command finishes the change."""

    restore(director, f"-C\n{RULES}")
    old = seen(director)
    restore(director, CHANGE)
    new, listing = seen(director), director.xlvs("ipvsadm", "-S", "-n").stdout
    step, killed = 0, True
    while killed:
        restore(director, f"-C\n{RULES}")
        done = director.run(*killed_before(step, "ipvsadm", "-R"), check=False, text=CHANGE)
        killed = done.returncode in (-9, 137)
        assert killed or done.returncode == 0, done.stderr
        text, _, listed = director.python(f"{SEEN}\n{SAVED}").partition("\n")
        found = json.loads(text)
        for port in {*old, *new, *found}:
            for family in (0, 1):  # a packet looks at one of the two words
                allowed = [each[port]["pools"][family] for each in (old, new) if port in each]
                assert port not in found or found[port]["pools"][family] in allowed, (step, port)
        assert listed == listing, step
        step += 1
    assert step > 20


# Both engines in one process: the same commands, the same answers.
BOTH = """if True:
    import sys
    from tests.unit.ipvsadm_console import Console
    from xlvs.cli.engine import open_data_plane
    from xlvs.dataplane.memory import MemoryDataPlane
    xdp = Console(open_data_plane())
    memory = Console(MemoryDataPlane(size=xdp.plane.info().size))
    for line in sys.stdin.read().splitlines():
        if line == "new":
            memory.run("-C"), xdp.run("-C")
            continue
        answers = [(each.run(line), each.out, each.err) for each in (memory, xdp)]
        listings = [(each.run("-S -n"), each.out) for each in (memory, xdp)]
        assert answers[0] == answers[1] and listings[0] == listings[1], (line, answers, listings)
    print("agreed")"""
SERVICES = ("-t 10.0.0.1:80", "-u 10.0.0.1:53", "-t [2001:db8::80]:80", "-f 7", "-f 8 -6")
POOLS = (
    *("10.1.0.1", "10.1.0.2", "10.1.0.1-10.1.0.9", "10.1.0.5-10.1.0.12", "10.1.0.9,10.1.0.3", "10.1.2.0/28"),
    *("2001:db8:1::1", "2001:db8:1::/125", "2001:db8:1::3,10.1.0.30", "10.1.0.40-10.1.0.60", "127.0.0.1"),
)
SERVERS = ("10.2.0.1:8080", "10.2.0.2:80", "[2001:db8::2]:80", "[2001:db8::3]:81")


def random_command(choice: random.Random) -> str:
    service, server = choice.choice(SERVICES), choice.choice(SERVERS)
    options = choice.choice(
        ("", " -j auto", " -j disable", " -j enable", " --client-address toa", " --client-address none")
    )
    commands = [
        (3, f"-A {service} -s {choice.choice(('rr', 'wlc', 'mh'))}{options}"),
        (2, f"-E {service} -s {choice.choice(('rr', 'wlc', 'sh'))}{options}"),
        (1, f"-D {service}"),
        (6, f"-P {service} -z {choice.choice(POOLS)}"),
        (4, f"-Q {service} -z {choice.choice(POOLS)}"),
        (4, f"-a {service} -r {server} {choice.choice(('-b', '-b', '-m', '-i'))} -w {choice.randrange(3)}"),
        (3, f"-e {service} -r {server} {choice.choice(('-b', '-m'))} -w {choice.randrange(3)}"),
        (2, f"-d {service} -r {server}"),
        (1, f"-G {service}"),
        (1, "-L -n --persistent-conn"),
    ]
    return choice.choices([line for _, line in commands], [weight for weight, _ in commands])[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_engines_agree(director: Alone, seed: int) -> None:
    choice = random.Random(seed)
    lines = [random_command(choice) if number % 80 else "new" for number in range(400)]
    assert director.python(BOTH, text="\n".join(lines)) == "agreed\n"


def test_ten_thousand_rules_with_pools(director: Alone) -> None:
    lines = []
    for service in range(2500):
        vip = f"10.70.{service >> 8}.{service & 255}:80"
        lines += [f"-A -t {vip} -s rr -j auto", f"-P -t {vip} -z 10.90.0.1-10.90.0.28"]
        lines += [f"-a -t {vip} -r 10.71.{service & 255}.{each}:80 -b -w 1" for each in (1, 2)]
    text = "".join(f"{line}\n" for line in lines)
    restore(director, text)
    assert director.xlvs("ipvsadm", "-S", "-n", "--nosort", check=False).returncode == 2
    saved = director.xlvs("ipvsadm", "-S", "-n").stdout
    assert sorted(saved.splitlines()) == sorted(lines)
    assert director.xlvs("ipvsadm", "-G", "-n").stdout.count("\n") == 1 + 2500 * 29


def test_thousands_of_addresses_and_an_end(director: Alone) -> None:
    """A pool of 65,534 addresses can be changed; what does not fit is refused, and changes nothing."""
    director.xlvs("ipvsadm", "-A", "-t", "10.0.0.1:80")
    director.xlvs("ipvsadm", "-P", "-t", "10.0.0.1:80", "-z", "10.64.0.0/16")
    director.xlvs("ipvsadm", "-Q", "-t", "10.0.0.1:80", "-z", "10.64.0.9")
    saved = director.xlvs("ipvsadm", "-S", "-n").stdout
    assert saved.splitlines()[1] == "-P -t 10.0.0.1:80 -z 10.64.0.1-10.64.0.8,10.64.0.10-10.64.255.254"
    refused = director.xlvs("ipvsadm", "-P", "-t", "10.0.0.1:80", "-z", "10.65.0.0/17", check=False)
    assert (refused.returncode, refused.stderr) == (1, "xlvs: no room for 98299 more local addresses\n")
    assert director.xlvs("ipvsadm", "-S", "-n").stdout == saved


def test_status_names_addresses_that_are_not_the_hosts(director: Alone) -> None:
    director.run("ip", "link", "set", "eth0", "up")
    director.run("ip", "address", "add", "10.1.0.1/32", "dev", "eth0")
    restore(director, RULES)
    restore(director, "-A -u 10.0.0.1:53\n-a -u 10.0.0.1:53 -r 10.2.0.1 -b\n")
    done = director.xlvs("status", "--json", check=False)
    found = json.loads(done.stdout)["local_addresses"]
    assert found["used"] == 32
    assert found["not_of_this_host"][:2] == ["10.1.0.2", "10.1.0.3"]
    assert len(found["not_of_this_host"]) == 31
    assert found["missing"] == [
        "UDP  10.0.0.1:53: no local address of IPv4 for its FULLNAT servers yet: add some with -P"
    ]
    director.xlvs("up", "eth0", "--no-helper")
    text = director.xlvs("status").stdout
    assert (
        "locals:     32, 31 of them no address of this host: answers must be routed here (10.1.0.2, " in text
    )
    assert "missing:    UDP  10.0.0.1:53: no local address of IPv4" in text
