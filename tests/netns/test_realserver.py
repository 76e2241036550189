"""``xlvs realserver``: silence on the wire, nothing lost by repeating it, nothing left by undoing it."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator

import pytest

from tests.netns import labs
from xlvs.lab import build
from xlvs.lab.topology import VIP4, VIP6, Method
from xlvs.realserver import decap

pytestmark = pytest.mark.root

SYSCTLS = [
    f"net.ipv4.conf.{scope}.{name}"
    for scope in ("all", "eth0", "lo")
    for name in ("arp_ignore", "arp_announce", "rp_filter")
]


def snapshot(made: build.Lab, node: str = "rs1") -> tuple[str, str, str]:
    """What a preparation could have changed: sysctls, addresses, and links with their programs."""
    addresses = made.run(node, ["ip", "-o", "address"])
    links = re.sub(r"prog/xdp id \d+", "prog/xdp", made.run(node, ["ip", "link"]))
    return made.run(node, ["sysctl", *SYSCTLS]), addresses, links


def prepare(made: build.Lab, *arguments: str, node: str = "rs1") -> str:
    return labs.xlvs(made, node, "realserver", "prepare", *arguments)


@pytest.fixture
def machines() -> Iterator[build.Lab]:
    """A NAT lab's machines: real servers that nobody prepared."""
    with labs.machines(Method.NAT, 1, ipv6=True) as made:
        yield made


class TestUndo:
    @pytest.mark.parametrize("method", ["dr", "tun"])
    def test_undo_gives_everything_back(self, machines: build.Lab, method: str) -> None:
        machines.run(
            "rs1", ["sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=2", "net.ipv4.conf.eth0.rp_filter=1"]
        )
        machines.run("rs1", ["ip", "address", "add", "192.0.2.7/32", "dev", "lo"])
        before = snapshot(machines)
        vips = ("--vip", VIP4, VIP6, "192.0.2.7")
        assert len(prepare(machines, "--method", method, *vips).splitlines()) > 4
        prepared = snapshot(machines)
        assert prepared != before
        assert prepare(machines, "--method", method, *vips) == ""
        assert snapshot(machines) == prepared
        labs.xlvs(machines, "rs1", "realserver", "undo")
        assert snapshot(machines) == before  # 192.0.2.7, which was there before, included
        assert (
            labs.xlvs(machines, "rs1", "realserver", "undo")
            == "this machine is not prepared: nothing to undo\n"
        )

    def test_what_others_changed_since_is_left_alone(self, machines: build.Lab) -> None:
        prepare(machines, "--method", "dr", "--vip", VIP4)
        machines.run("rs1", ["sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=8"])
        machines.run("rs1", ["ip", "address", "del", f"{VIP4}/32", "dev", "lo"])
        labs.xlvs(machines, "rs1", "realserver", "undo")
        assert machines.run("rs1", ["sysctl", "-n", "net.ipv4.conf.all.arp_ignore"]) == "8\n"

    def test_a_preparation_that_fails_takes_itself_back(self, machines: build.Lab) -> None:
        attach = f"bpftool prog load {decap.OBJECT} /sys/fs/bpf/foreign type xdp"
        attach += " && bpftool net attach xdp pinned /sys/fs/bpf/foreign dev eth0"
        machines.run("rs1", ["bash", "-c", attach])
        before = snapshot(machines)
        failed = labs.attempt(machines, "rs1", "realserver", "prepare", "--method", "tun", "--vip", VIP4)
        assert (failed.returncode, failed.stderr) == (1, "xlvs: another XDP program is on eth0 already\n")
        assert snapshot(machines) == before
        assert json.loads(labs.attempt(machines, "rs1", "realserver", "status", "--json").stdout) == {
            "prepared": False
        }

    def test_a_second_preparation_that_fails_leaves_the_first(self, machines: build.Lab) -> None:
        prepare(machines, "--method", "dr", "--vip", VIP4)
        prepared = snapshot(machines)
        machines.run("rs1", ["sysctl", "-q", "-w", "net.ipv6.conf.lo.disable_ipv6=1"])
        failed = labs.attempt(
            machines, "rs1", "realserver", "prepare", "--method", "dr", "--vip", "192.0.2.7", VIP6
        )
        assert failed.returncode == 1
        assert "ip address add 2001:db8:a::161/128 dev lo nodad' failed" in failed.stderr
        machines.run("rs1", ["sysctl", "-q", "-w", "net.ipv6.conf.lo.disable_ipv6=0"])
        assert snapshot(machines) == prepared
        assert json.loads(labs.xlvs(machines, "rs1", "realserver", "status", "--json"))["vips"] == [VIP4]

    def test_vips_and_methods_add_up(self, machines: build.Lab) -> None:
        before = snapshot(machines)
        prepare(machines, "--method", "dr", "--vip", VIP4)
        prepare(machines, "--method", "tun", "--vip", VIP6)
        prepare(machines, "--method", "tun", "--vip", "192.0.2.7")
        status = json.loads(labs.xlvs(machines, "rs1", "realserver", "status", "--json"))
        assert (status["methods"], status["vips"]) == (["dr", "tun"], [VIP4, VIP6, "192.0.2.7"])
        assert status["complete"]
        labs.xlvs(machines, "rs1", "realserver", "undo")
        assert snapshot(machines) == before


class TestStatus:
    def test_it_tells_what_was_lost_and_prepare_restores_it(self, machines: build.Lab) -> None:
        prepare(machines, "--method", "tun", "--vip", VIP4)
        machines.run("rs1", ["ip", "address", "del", f"{VIP4}/32", "dev", "lo"])
        status = labs.attempt(machines, "rs1", "realserver", "status")
        assert status.returncode == 1
        assert f"  LOST  address {VIP4} on lo\n" in status.stdout
        assert prepare(machines, "--method", "tun", "--vip", VIP4) == f"done: address {VIP4} on lo\n"
        assert labs.attempt(machines, "rs1", "realserver", "status").returncode == 0

    def test_an_interface_made_anew_is_served_again(self, machines: build.Lab) -> None:
        prepare(machines, "--method", "tun", "--vip", VIP4)
        rename = ["link set eth0 down", "link set eth0 name old", "link add eth0 type veth peer name other"]
        rename += ["address flush dev old", "address add 192.168.22.18/24 dev eth0", "link set eth0 up"]
        for line in rename:
            machines.run("rs1", ["ip", *line.split()])
        assert "LOST  decapsulator on eth0" in labs.attempt(machines, "rs1", "realserver", "status").stdout
        prepare(machines, "--method", "tun", "--vip", VIP4, "--interface", "eth0")
        assert "prog/xdp" in machines.run("rs1", ["ip", "link", "show", "eth0"])
        assert "prog/xdp" not in machines.run("rs1", ["ip", "link", "show", "old"])

    def test_jumbo_frames_that_native_mode_refuses_are_served_in_generic_mode(
        self, machines: build.Lab
    ) -> None:
        for node, port in (("switch", "rs1-eth0"), ("rs1", "eth0")):
            machines.run(node, ["ip", "link", "set", port, "mtu", "9000"])
        prepare(machines, "--method", "tun", "--vip", VIP4)
        assert "xdpgeneric" in machines.run("rs1", ["ip", "link", "show", "eth0"])
        assert labs.attempt(machines, "rs1", "realserver", "status").returncode == 0

    def test_not_prepared(self, machines: build.Lab) -> None:
        status = labs.attempt(machines, "rs1", "realserver", "status")
        assert (status.returncode, status.stdout) == (1, "not prepared\n")


class TestDryRun:
    @pytest.mark.parametrize("method", ["dr", "tun"])
    def test_the_plain_commands_do_the_same(self, machines: build.Lab, method: str) -> None:
        machines.run("rs1", ["sysctl", "-q", "-w", "net.ipv4.conf.eth0.rp_filter=1"])
        before = snapshot(machines)
        printed = prepare(machines, "--method", method, "--vip", VIP4, VIP6, "--dry-run")
        assert snapshot(machines) == before
        prepare(machines, "--method", method, "--vip", VIP4, VIP6)
        wanted = snapshot(machines)
        labs.xlvs(machines, "rs1", "realserver", "undo")
        # In one shell: the bpffs that bpftool mounts is gone with `ip netns exec`, the attachment is not.
        machines.run("rs1", ["bash", "-e", "-c", printed])
        assert snapshot(machines) == wanted

    def test_kernel_tunnel(self, machines: build.Lab) -> None:
        printed = prepare(machines, "--method", "tun", "--vip", VIP4, VIP6, "--kernel-tunnel", "--dry-run")
        commands = [shlex.split(line) for line in printed.splitlines()]
        for expected in (
            "ip link set tunl0 up",
            f"ip address add {VIP4}/32 dev tunl0",
            "ip link set sit0 up",
            "ip link add xlvs-ip6tnl0 type ip6tnl mode any local 2001:db8:22::18 remote :: allow-localremote",
        ):
            assert expected.split() in commands
        assert "bpftool" not in printed


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--vip", "10.1.252.161/32"), "'10.1.252.161/32' is no IP address"),
            (("--vip", "example"), "'example' is no IP address"),
            (("--vip", "224.0.0.1"), "224.0.0.1 cannot be a VIP"),
            (("--vip", "127.0.0.1"), "127.0.0.1 cannot be a VIP"),
            (("--vip", "::"), ":: cannot be a VIP"),
            (("--vip", "192.168.22.18"), "192.168.22.18 is on eth0, which answers for it on the wire"),
            (("--vip", VIP4, "--interface", "eth7"), "there is no interface eth7 here"),
            (("--vip", VIP4, "--kernel-tunnel"), "--kernel-tunnel goes with --method tun only"),
        ],
    )
    def test_one_clear_sentence(self, machines: build.Lab, arguments: tuple[str, ...], message: str) -> None:
        before = snapshot(machines)
        refused = labs.attempt(machines, "rs1", "realserver", "prepare", "--method", "dr", *arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"xlvs: {message}")
        assert len(refused.stderr.splitlines()) == 1
        assert snapshot(machines) == before

    def test_no_default_route(self, machines: build.Lab) -> None:
        for family in ("-4", "-6"):
            machines.run("rs1", ["ip", family, "route", "del", "default"])
        refused = labs.attempt(machines, "rs1", "realserver", "prepare", "--method", "dr", "--vip", VIP4)
        assert "name it with --interface" in refused.stderr


class TestSilence:
    """A DR real server neither answers for the VIP nor tells anybody that it has it."""

    @pytest.fixture
    def dr(self) -> Iterator[build.Lab]:
        with labs.machines(Method.DR, 1, ipv6=True) as made:
            yield made

    def heard(self, made: build.Lab) -> str:
        """What rs1 says on the wire when it serves the VIP with no neighbour known."""
        mac = json.loads(made.run("rs1", ["ip", "-json", "link", "show", "eth0"]))[0]["address"]
        for vip in (VIP4, VIP6):  # stands in for a director that forwards by DR
            made.run(
                "router", ["ip", "neigh", "replace", vip, "lladdr", mac, "dev", "eth1", "nud", "permanent"]
            )
        for family in ("-4", "-6"):
            made.run("rs1", ["ip", family, "neigh", "flush", "all"])
        sniffer = made.start(
            "rs1", ["tcpdump", "-lnni", "eth0", "--immediate-mode", "--direction=out", "arp or icmp6"]
        )
        try:
            assert sniffer.stderr is not None
            while "listening" not in sniffer.stderr.readline():
                pass
            assert labs.answers(made, 1) == labs.answers(made, 1, ipv6=True) == ["<h1>RS1</h1>"]
            for vip in (VIP4, VIP6):
                made.run("router", ["ip", "neigh", "del", vip, "dev", "eth1"])
                made.run("client", ["ping", "-c", "1", "-W", "2", vip])
            time.sleep(1)
        finally:
            sniffer.terminate()
        return sniffer.communicate()[0]

    def test_a_prepared_server_is_silent(self, dr: build.Lab) -> None:
        said = self.heard(dr)
        assert VIP4 not in said
        assert VIP6 not in said
        assert "Request who-has 10.1.0.1 tell 10.1.22.18" in said
        assert "neighbor solicitation, who has 2001:db8:a::1" in said

    def test_without_the_sysctls_it_would_not_be(self, dr: build.Lab) -> None:
        off = [
            f"net.ipv4.conf.{scope}.{name}=0"
            for scope in ("all", "eth0")
            for name in ("arp_ignore", "arp_announce")
        ]
        dr.run("rs1", ["sysctl", "-q", "-w", *off])
        said = self.heard(dr)
        assert f"Request who-has 10.1.0.1 tell {VIP4}" in said
        assert f"Reply {VIP4} is-at" in said
