"""The dialect of FULLNAT: local addresses, -b, SYNPROXY, how servers learn the client's address."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ipvsadm_console import Console
from xlvs.dataplane.kernel import KernelTransaction
from xlvs.errors import NotCarried
from xlvs.ipvsadm import locals as pool
from xlvs.ipvsadm.options import COMMANDS, DIALECT_OPTIONS, NONE, OPTIONS, Option
from xlvs.ipvsadm.request import Quit
from xlvs.model import AF_INET, AF_INET6, L4, ConnectionEntry, Forward, Service, ServiceKey, SynProxy

TITLE = "VIP:VPORT            TOTAL    SNAT_IP              CONFLICTS  CONNS     \n"
VIP = "-t 10.0.0.1:80"


@pytest.fixture
def console() -> Console:
    made = Console()
    assert made.run(f"-A {VIP} -s rr") == 0
    return made


def succeed(console: Console, command: str, stdin: str = "") -> str:
    """Run a command that has nothing to complain of; what it printed."""
    assert console.run(command, stdin) == 0, (command, console.err)
    assert console.err == "", command
    return console.out


def refused(console: Console, command: str, status: int, words: str) -> None:
    """Run a command that must be refused with these words, and change nothing."""
    before = succeed(console, "-S -n")
    assert (console.run(command), console.err) == (status, f"{words}\n"), command
    assert succeed(console, "-S -n") == before


def packed(*addresses: str) -> list[bytes]:
    return [ip_address(each).packed for each in addresses]


def addresses(console: Console, number: int = 0) -> list[bytes]:
    return console.plane.services()[number].local_addresses


# -- lists, ranges, prefixes --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.0.0.1", packed("10.0.0.1")),
        ("10.0.0.254-10.0.1.1", packed("10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1")),
        ("10.0.0.9,10.0.0.1-10.0.0.2", packed("10.0.0.9", "10.0.0.1", "10.0.0.2")),
        ("10.0.0.0/30", packed("10.0.0.1", "10.0.0.2")),
        ("10.0.0.0/31,10.0.0.5/32", packed("10.0.0.0", "10.0.0.1", "10.0.0.5")),
        ("2001:db8::1-2001:db8::3", packed("2001:db8::1", "2001:db8::2", "2001:db8::3")),
        ("2001:db8::/126", packed("2001:db8::1", "2001:db8::2", "2001:db8::3")),
        ("2001:db8::/127,2001:db8::9/128", packed("2001:db8::", "2001:db8::1", "2001:db8::9")),
        ("10.0.0.1,2001:db8::1", packed("10.0.0.1", "2001:db8::1")),
        ("10.0.0.7-10.0.0.7", packed("10.0.0.7")),
    ],
)
def test_what_is_typed_is_what_is_meant(text: str, wanted: list[bytes]) -> None:
    assert pool.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "10.0.0.1,",
            "10.0.0",
            "10.0.0.1-",
            "-10.0.0.1",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-2001:db8::1",
        ),
        *("10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.1-9", "::g", "fe80::1%lo", "10.0.0.1 ", "www"),
        *("10.0.0.5/24", "2001:db8::/64", "0.0.0.0-255.255.255.255", "10.0.0.0/٣٠", "1.1.1.1\0", "\udcff"),
    ],
)
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Quit) as refusal:
        pool.parse(text)
    assert refusal.value.status == 2
    assert text.split(",")[-1] in refusal.value.stderr


@given(
    st.lists(
        st.one_of(
            st.ip_addresses(v=4).map(lambda each: each.packed),
            st.ip_addresses(v=6).map(lambda each: each.packed),
            st.integers(0x0A000000, 0x0A0000FF).map(lambda each: each.to_bytes(4, "big")),
        ),
        max_size=600,
    )
)
def test_any_list_is_read_back_as_it_was_written(found: list[bytes]) -> None:
    lists = list(pool.written(found))
    assert [address for text in lists for address in pool.parse(text)] == found
    assert all(len(text) < 4096 for text in lists)  # a word of -R


@given(st.ip_addresses(v=4), st.integers(0, 2000))
def test_a_range_has_all_between_its_ends(first: object, more: int) -> None:
    low = int(ip_address(str(first)))
    high = min(low + more, 2**32 - 1)
    text = f"{ip_address(low)}-{ip_address(high)}"
    assert pool.parse(text) == [each.to_bytes(4, "big") for each in range(low, high + 1)]
    assert list(pool.written(pool.parse(text))) == [text if high > low else str(ip_address(low))]


@given(
    st.one_of(
        st.tuples(st.ip_addresses(v=4), st.integers(18, 32)),
        st.tuples(st.ip_addresses(v=6), st.integers(115, 128)),
    )
)
def test_a_prefix_has_the_addresses_of_its_hosts(network: tuple[object, int]) -> None:
    made = ip_network(f"{network[0]}/{network[1]}", strict=False)
    assert pool.parse(str(made)) == [each.packed for each in made.hosts()]


# -- commands -----------------------------------------------------------------------


def test_local_addresses_come_and_go(console: Console) -> None:
    succeed(console, f"-P {VIP} -z 10.1.0.1-10.1.0.3")
    succeed(console, f"--add-laddr -z 2001:db8::1 {VIP}")
    succeed(console, f"-P {VIP} --local-address 10.1.0.9")
    assert addresses(console) == packed("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.9", "2001:db8::1")
    succeed(console, f"-Q {VIP} -z 10.1.0.2,2001:db8::1")
    assert addresses(console) == packed("10.1.0.1", "10.1.0.3", "10.1.0.9")
    succeed(console, f"--del-laddr {VIP} -z 10.1.0.1,10.1.0.3,10.1.0.9")
    assert addresses(console) == []


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (f"-P {VIP} -z 10.1.0.4,10.1.0.2", 255, "Local address already exists: 10.1.0.2"),
        (f"-P {VIP} -z 10.1.0.8,10.1.0.8", 255, "Local address already exists: 10.1.0.8"),
        (f"-P {VIP} -z 10.1.0.4,224.0.0.1", 255, "Local address is not unicast: 224.0.0.1"),
        (f"-P {VIP} -z 127.0.0.1", 255, "Local address is not unicast: 127.0.0.1"),
        (f"-P {VIP} -z ::1", 255, "Local address is not unicast: ::1"),
        (f"-P {VIP} -z fe80::1", 255, "Local address is not unicast: fe80::1"),
        (f"-Q {VIP} -z 10.1.0.1,10.1.0.5", 255, "No such local address: 10.1.0.5"),
        ("-P -t 10.0.0.2:80 -z 10.1.0.9", 255, "Service not defined"),
        ("-Q -t 10.0.0.2:80 -z 10.1.0.1", 255, "Service not defined"),
        ("-G -t 10.0.0.2:80", 1, "No such service"),
        (f"-P {VIP} -z 10.1.0.x", 2, "illegal local address specified: `10.1.0.x'"),
        (f"-P {VIP}", 2, "You need to supply the 'local-address' option for the 'add-laddr' command"),
        ("-P -z 10.1.0.9", 2, "You need to supply the 'service-address' option for the 'add-laddr' command"),
        ("-Q", 2, "You need to supply the 'service-address' option for the 'del-laddr' command"),
        (f"-P {VIP} -z 10.1.0.8 -z 10.1.0.9", 2, "multiple 'local-address' options specified"),
        (f"-P {VIP} -z 10.1.0.8 -w 1", 2, "Illegal 'weight' option with the 'add-laddr' command"),
        (f"-G {VIP} -c", 2, "Illegal 'connection' option with the 'get-laddr' command"),
        (f"-P {VIP} -z 10.1.0.8 more", 2, "unexpected argument more"),
        (f"-P {VIP} -z", 255, "-z: missing argument"),
        (f"-A {VIP} -z 10.1.0.8", 255, "-z: unknown option"),
        (f"-L {VIP} -P", 255, "-P: unknown option"),
        (f"-d {VIP} -r 10.2.0.1 -b", 255, "-b: missing argument"),
        (f"-A {VIP} --fullnat", 255, "--fullnat: unknown option"),
        (f"-a {VIP} -r 10.2.0.1 -j enable", 255, "-j: unknown option"),
        (f"-a {VIP} -r 10.2.0.1 -b -m", 2, "multiple 'forwarding-method' options specified"),
        (f"-a {VIP} -r 10.2.0.1 -b sh-port", 2, "unexpected argument sh-port"),
        (f"-a {VIP} -r 10.2.0.1 -b --tun-type gre", 2, "Tunnel options conflict with forward method"),
        (
            f"-a {VIP} -r 10.2.0.1 --sched-flags flag-1",
            2,
            "Illegal 'sched-flags' option with the 'add-server' command",
        ),
        (
            "-a -t 10.0.0.1:80 -r [2001:db8::2]:80 -m",
            2,
            "Different address family is allowed only for tunneling servers",
        ),
        (f"-E {VIP} -j maybe", 2, "illegal synproxy `maybe' specified: enable, disable or auto"),
        (
            f"-E {VIP} --client-address x",
            2,
            "illegal client-address `x' specified: toa, proxy, none or default",
        ),
        ("-A -u 10.0.0.1:53 -j enable", 2, "SYNPROXY is only for TCP virtual services"),
        (
            "-A -u 10.0.0.1:53 --client-address proxy",
            2,
            "The PROXY protocol is only for TCP virtual services",
        ),
        (
            "-A --sctp-service 10.0.0.1:53 --client-address toa",
            2,
            "A client's address goes by option only in TCP and UDP virtual services",
        ),
        ("-L --local", 2, "The option 'local' needs the 'connection' option in the 'list' command"),
    ],
)
def test_refusals_say_why_and_change_nothing(console: Console, command: str, status: int, words: str) -> None:
    succeed(console, f"-P {VIP} -z 10.1.0.1-10.1.0.3")
    refused(console, command, status, words)


# What else the dialect's commands take; everything that is not there is illegal or unknown.
TAKEN = {
    "add-laddr": {"service-address", "local-address", ""},
    "del-laddr": {"service-address", "local-address", ""},
    "get-laddr": {"service-address", "numeric", "json", ""},
}


@pytest.mark.parametrize("command", TAKEN)
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.long)
def test_each_option_with_each_command_of_the_dialect(console: Console, command: str, option: Option) -> None:
    line = [f"--{command}", "-t", "10.0.0.1:80"]
    line += ["-z", "10.1.0.1"] if command != "get-laddr" else []
    if command == "del-laddr":
        succeed(console, f"-P {VIP} -z 10.1.0.1")
    values = {"service-address": "1", "persistent": "60", "weight": "1", "mcast-group": "224.0.0.9"}
    values |= {"tun-type": "gre", "mcast-interface": "lo", "sched-flags": "flag-1"}
    if option.value != NONE:
        value = values.get(option.column, "10.0.0.1" if option.column in ("netmask", "real-server") else "9")
        line.append(f"--{option.long}={value}")
    else:
        line.append(f"--{option.long}")
    status = console.run_words(line)
    if option.long == "ipv6":
        words = "-6 used before -f\n\n"  # the real program's word, for a service that is no mark
    elif option.column == "service-address":
        words = "multiple 'service-address' options specified\n"
    elif option.column in TAKEN[command]:
        words = ""
    else:
        words = f"Illegal '{option.column}' option with the '{command}' command\n"
    assert (status, console.err) == (2 if words else 0, words)


@pytest.mark.parametrize("first", [option for option in COMMANDS if option.value == NONE])
def test_the_real_programs_other_commands_do_not_know_the_dialect(console: Console, first: Option) -> None:
    known = {option.long for option in DIALECT_OPTIONS.get(first.long, ())}
    for option in (
        "--synproxy",
        "--client-address",
        "--fullnat",
        "--local-address",
        "--local",
        "--get-laddr",
    ):
        if option[2:] in known or first.long in ("help", "version"):
            continue
        assert console.run(f"--{first.long} {option}") == 255
        assert console.err == f"{option}: unknown option\n"


def test_first_word_of_the_dialect_needs_no_help_but_gets_it(console: Console) -> None:
    text = succeed(console, "-h")
    assert text.index("Daemon Options:") < text.index("FULLNAT") < text.index("--local-address")
    assert console.run("-z 10.1.0.1") == 255
    assert console.err.startswith("Try `ipvsadm -h'")


def test_get_laddr_lists_addresses_with_what_uses_them(console: Console) -> None:
    succeed(console, "-A -t [2001:db8::80]:443 -s rr")
    succeed(console, "-A -f 7 -s rr")
    succeed(console, "-A -u 10.0.0.9:53 -s rr")  # has nothing to do with FULLNAT
    succeed(console, f"-P {VIP} -z 10.1.0.1-10.1.0.2")
    succeed(console, "-P -t [2001:db8::80]:443 -z 2001:db8:1::1")
    succeed(console, "-P -f 7 -z 10.1.0.1")
    server, local = packed("10.2.0.1", "10.1.0.2")
    console.plane.connection_entries = [
        ConnectionEntry(
            *(AF_INET, L4.TCP, packed("198.51.100.7")[0], port, packed("10.0.0.1")[0], 80),
            *(AF_INET, server, 80, "ESTABLISHED", 60.0),
            local=local,
            local_port=5000 + port,
        )
        for port in (1024, 1025)
    ]
    assert succeed(console, f"-G {VIP}") == TITLE + (
        "10.0.0.1:80          2        \n"
        "                              10.1.0.1             0          0         \n"
        "                              10.1.0.2             0          2         \n"
    )
    everything = succeed(console, "-G -n")
    assert everything.startswith(TITLE)
    assert [line.split()[:2] for line in everything.splitlines()[1:] if line[0] != " "] == [
        ["10.0.0.1:80", "2"],
        ["[2001:db8::80]:443", "1"],
        ["FWM", "7"],
    ]
    service = json.loads(succeed(console, f"-G {VIP} --json"))["services"][0]
    assert (service["address"], service["port"]) == ("10.0.0.1", 80)
    assert service["local_addresses"] == [
        {"address": "10.1.0.1", "connections": 0, "conflicts": 0},
        {"address": "10.1.0.2", "connections": 2, "conflicts": 0},
    ]
    assert succeed(console, "-L -c -n --local").splitlines()[1:3] == [
        "pro expire state       source             virtual            local              destination",
        "TCP 01:00  ESTABLISHED 198.51.100.7:1024  10.0.0.1:80        10.1.0.2:6024      10.2.0.1:80",
    ]
    assert "local" not in succeed(console, "-L -c -n")
    connection = json.loads(succeed(console, "-L -c --json"))["connections"][0]
    assert (connection["local"], connection["local_port"]) == ("10.1.0.2", 6024)


def test_connections_without_a_local_address_have_a_dash(console: Console) -> None:
    one, other = packed("10.2.0.1", "2001:db8::1")
    console.plane.connection_entries = [
        ConnectionEntry(AF_INET, L4.TCP, one, 1, one, 2, AF_INET, one, 3, "SYN_RECV", 1.0),
        ConnectionEntry(
            *(AF_INET, L4.TCP, one, 1, one, 2, AF_INET6, other, 3, "SYN_RECV", 1.0),
            local=other,
            local_port=4,
        ),
    ]
    lines = succeed(console, "-L -c -n --local").splitlines()
    assert lines[2].split()[5:] == ["-", "10.2.0.1:3"]
    assert lines[3].split()[5:] == ["[2001:db8::1]:4", "[2001:db8::1]:3"]


def test_fullnat_servers_of_both_families(console: Console) -> None:
    succeed(console, f"-P {VIP} -z 10.1.0.1,2001:db8:1::1")
    succeed(console, f"-a {VIP} -r 10.2.0.1:8080 -b -w 3")
    succeed(console, f"-a {VIP} -r [2001:db8::2]:8080 --fullnat")
    assert {one.destination.forward for one in console.plane.services()[0].destinations} == {Forward.FULLNAT}
    listed = succeed(console, "-L -n").splitlines()
    assert "  -> 10.2.0.1:8080                FullNat 3      0          0         " in listed
    succeed(console, f"-e {VIP} -r 10.2.0.1:8080 -wb 7".replace("-wb 7", "-bw 7"))
    assert f"-a {VIP} -r 10.2.0.1:8080 -b -w 7\n" in succeed(console, "-S -n")
    succeed(console, f"-e {VIP} -r 10.2.0.1:8080 -m")
    assert "10.2.0.1:8080                Masq    1" in succeed(console, "-L -n")
    for form in ("--stats", "--rate", "--thresholds", "--persistent-conn", "--tun-info"):
        assert "10.2.0.1:8080" in succeed(console, f"-L -n {form}")
    document = json.loads(succeed(console, f"-L {VIP} --json"))["services"][0]
    assert {one["forward"] for one in document["destinations"]} == {"nat", "fullnat"}
    assert document["local_addresses"] == ["10.1.0.1", "2001:db8:1::1"]


def test_fullnat_without_local_addresses_is_warned_of(console: Console) -> None:
    missing = "TCP  10.0.0.1:80: no local address of {} for its FULLNAT servers yet: add some with -P\n"
    assert console.run(f"-a {VIP} -r 10.2.0.1 -b") == 0
    assert console.err == "xlvs: " + missing.format("IPv4")
    succeed(console, f"-P {VIP} -z 10.1.0.1")
    assert console.run(f"-a {VIP} -r [2001:db8::2]:80 -b") == 0
    assert console.err == "xlvs: " + missing.format("IPv6")
    succeed(console, f"-P {VIP} -z 2001:db8:1::1")
    assert console.run(f"-Q {VIP} -z 10.1.0.1") == 0
    assert console.err == "xlvs: " + missing.format("IPv4")
    # In one restore only what is missing at its end.
    succeed(console, "-R", f"-a {VIP} -r 10.2.0.2 -b\n-P {VIP} -z 10.1.0.1\n")
    assert console.run("-R --atomic", f"-Q {VIP} -z 10.1.0.1\n") == 0
    assert console.err == "xlvs: " + missing.format("IPv4")


# -- a service's own options ----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "flags", "document"),
    [
        ("", "", ("off", "default")),
        ("-j enable", " synproxy", ("always", "default")),
        ("--synproxy auto --client-address toa", " synproxy-auto client-address:toa", ("auto", "toa")),
        ("-j disable --client-address proxy", " client-address:proxy", ("off", "proxy")),
        ("--client-address none", " client-address:none", ("off", "none")),
        ("--client-address default", "", ("off", "default")),
    ],
)
def test_options_are_listed_and_saved(options: str, flags: str, document: tuple[str, str]) -> None:
    console = Console()
    succeed(console, f"-A {VIP} -s wrr -p 90 {options}")
    assert succeed(console, "-L -n").splitlines()[-1] == f"TCP  10.0.0.1:80 wrr persistent 90{flags}"
    found = json.loads(succeed(console, "-L --json"))["services"][0]
    assert (found["synproxy"], found["client_address"]) == document
    saved = succeed(console, "-S -n")
    succeed(console, "-C")
    succeed(console, "-R", saved)
    assert succeed(console, "-S -n") == saved
    assert succeed(console, "-L -n").splitlines()[-1].endswith(f"persistent 90{flags}")


def test_an_edit_without_them_leaves_them(console: Console) -> None:
    succeed(console, f"-E {VIP} -s rr -j auto --client-address proxy -p 60")
    succeed(console, f"-P {VIP} -z 10.1.0.1")
    succeed(console, f"-E {VIP} -s wlc")
    # The real program's own options are gone, as with the real one; ours stay.
    assert succeed(console, "-S -n") == (
        f"-A {VIP} -s wlc -j auto --client-address proxy\n-P {VIP} -z 10.1.0.1\n"
    )
    succeed(console, f"-E {VIP} -s wlc -j disable")
    assert succeed(console, "-S -n").startswith(f"-A {VIP} -s wlc --client-address proxy\n")
    succeed(console, f"-E {VIP} -s wlc --client-address default")
    assert succeed(console, "-S -n").startswith(f"-A {VIP} -s wlc\n")


def test_save_and_restore_lose_nothing() -> None:
    console = Console()
    rules = (
        "-A -t 10.0.0.1:80 -s sh -b sh-port -j auto --client-address toa\n"
        "-P -t 10.0.0.1:80 -z 10.1.0.1-10.1.0.28,10.1.1.1,2001:db8:1::1-2001:db8:1::3\n"
        "-a -t 10.0.0.1:80 -r 10.2.0.1:8080 -b -w 5 -x 100 -y 50\n"
        "-a -t 10.0.0.1:80 -r [2001:db8::2]:80 -b -w 1\n"
        "-A -f 9 -6 -s rr\n"
        "-P -f 9 -6 -z 2001:db8:2::1\n"
        "-a -f 9 -6 -r [2001:db8::3]:0 -b -w 1\n"
    )
    succeed(console, "-R", rules)
    assert succeed(console, "-S -n") == rules
    succeed(console, "-D -f 9 -6")
    succeed(console, "-C")
    assert succeed(console, "-S -n") == ""
    assert succeed(console, "-G") == TITLE
    succeed(console, "-R --atomic", rules)
    assert succeed(console, "-S -n") == rules


def test_thousands_of_addresses_in_one_command(console: Console) -> None:
    every_other = ",".join(f"10.9.{number // 128}.{number % 128 * 2}" for number in range(3000))
    succeed(console, f"-P {VIP} -z {every_other}")
    succeed(console, f"-P {VIP} -z 10.64.0.1-10.64.15.254")
    assert len(addresses(console)) == 3000 + 4094
    saved = succeed(console, "-S -n")
    assert max(map(len, saved.split())) < 4096
    before = addresses(console)
    succeed(console, "-C")
    succeed(console, "-R", saved)
    assert addresses(console) == before


def test_a_service_added_again_has_none_of_the_old_addresses(console: Console) -> None:
    succeed(console, f"-P {VIP} -z 10.1.0.1")
    succeed(console, f"-D {VIP}")
    succeed(console, f"-A {VIP} -s rr")
    assert addresses(console) == []


def test_atomic_restores_undo_local_addresses(console: Console) -> None:
    succeed(console, f"-P {VIP} -z 10.1.0.1")
    lines = f"-P {VIP} -z 10.1.0.2\n-P {VIP} -z 10.1.0.3,10.1.0.1\n"
    assert console.run("-R --atomic", lines) == 255
    assert console.err == "line 2: Local address already exists: 10.1.0.1; nothing was changed\n"
    assert addresses(console) == packed("10.1.0.1")


# -- the other engine -----------------------------------------------------------------


def test_the_kernels_ipvs_refuses_clearly() -> None:
    class Untouched:
        """A kernel that is not asked."""

        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    change = KernelTransaction(Untouched())  # type: ignore[arg-type]  # answers nothing
    key = ServiceKey(AF_INET, L4.TCP, bytes((10, 0, 0, 1)), 80)
    with pytest.raises(NotCarried, match=r"no FULLNAT.*--engine xdp"):
        change.add_local_addresses(key, packed("10.1.0.1"))
    with pytest.raises(NotCarried, match=r"no SYNPROXY.*--engine xdp"):
        change.add_service(Service(key, synproxy=SynProxy.AUTO))
