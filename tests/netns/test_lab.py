"""``xlvs lab``: built, listed, entered, taken down, and nothing left when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.errors import XlvsError
from xlvs.lab import build, namespaces
from xlvs.lab.topology import Method, drawing, make

pytestmark = pytest.mark.root


def root_namespace() -> str:
    """Addresses, routes and links of the namespace that the tests run in (without counters)."""
    commands = (["ip", "-o", "address"], ["ip", "route"], ["ip", "-6", "route"], ["ip", "-o", "link"])
    return "".join(
        line.split("valid_lft")[0] + "\n"
        for command in commands
        for line in namespaces.run(command).splitlines()
    )


def left_of(name: str) -> list[str]:
    """Namespaces, folders and processes that a lab of this name has left."""
    spaces = [entry for entry in os.listdir(namespaces.FOLDER) if entry.startswith(f"xlvs-{name}-")]
    folders = [entry for entry in build.names() if entry == name]
    masters = subprocess.run(
        ["pgrep", "-f", f"nginx.*{build.LABS}/{name}/"], capture_output=True, text=True, check=False
    )
    return spaces + folders + masters.stdout.split()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(build.xlvs("lab", *arguments), capture_output=True, text=True, check=False)


def pins(name: str) -> list[str]:
    """The folders of pins that a lab's director and real servers have."""
    show = "import sys; from xlvs.dataplane import pins; from xlvs.realserver import decap;"
    show += "print(pins.namespace_folder()); print(decap.folder('eth0'))"
    lab = build.load(name)
    found = "".join(lab.run(node, [sys.executable, "-c", show]) for node in ("director", "rs1"))
    # As seen from here: a process under `ip netns exec` reaches them through /proc/PID/root.
    return ["/run/xlvs" + path.rpartition("/run/xlvs")[2] for path in found.split()]


@pytest.mark.parametrize("method", list(Method))
def test_up_exec_list_down(method: Method) -> None:
    name, before = labs.fresh_name(), root_namespace()
    try:
        up = command("up", "--name", name, "--method", method.value, "--real-servers", "3")
        assert up.returncode == 0, up.stderr
        assert root_namespace() == before
        asked = [
            command("exec", "--name", name, "client", "--", "curl", "-sS", "-m5", "http://10.1.252.161")
            for _ in "123"
        ]
        assert [done.stdout for done in asked] == [f"<h1>RS{number}</h1>\n" for number in (3, 2, 1)]

        described = next(lab for lab in json.loads(command("list", "--json").stdout) if lab["name"] == name)
        assert described["finished"]
        routers = ["client", "router", "director", *(["inside"] if method is Method.FULLNAT else [])]
        assert [node["name"] for node in described["nodes"]] == [*routers, "rs1", "rs2", "rs3"]
        assert f"{name}: {method.value}, 3 real servers, IPv4\n" in command("list").stdout

        again = command("up", "--name", name)
        assert (again.returncode, again.stderr) == (
            1,
            f"xlvs: there is a lab '{name}' already; 'xlvs lab down --name {name}' removes it\n",
        )
        pinned = pins(name)
        assert [os.path.exists(path) for path in pinned] == [True, False, False, method is Method.TUN]
        assert command("exec", "--name", name, "client", "--", "sh", "-c", "exit 7").returncode == 7
        unknown = command("exec", "--name", name, "rs9", "--", "true")
        assert (unknown.returncode, unknown.stderr) == (
            1,
            f"xlvs: lab '{name}' has no node 'rs9': it has {', '.join(routers)}, rs1, rs2, rs3\n",
        )
    finally:
        down = command("down", "--name", name)
    assert (down.returncode, down.stdout) == (0, f"lab '{name}' is gone\n")
    assert left_of(name) == []
    assert [path for path in pinned if os.path.exists(path)] == []
    missing = command("down", "--name", name)
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"xlvs: there is no lab '{name}'")


def test_two_labs_side_by_side_are_two() -> None:
    with labs.lab(Method.NAT, 1) as first, labs.lab(Method.DR, 1) as second:
        Path(first.site(1), "html/index.html").write_text("first\n")
        Path(second.site(1), "html/index.html").write_text("second\n")
        assert labs.answers(first, 1) == ["first"]
        assert labs.answers(second, 1) == ["second"]


def test_no_rules_leaves_the_director_without_a_service() -> None:
    name = labs.fresh_name()
    try:
        assert command("up", "--name", name, "--no-rules").returncode == 0
        listing = command("exec", "--name", name, "director", "--", "xlvs", "ipvsadm", "-Ln").stdout
        assert len(listing.splitlines()) == 3
    finally:
        command("down", "--name", name)


@pytest.mark.parametrize("chosen", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["wired", "real servers:", "xlvs up"])
def test_an_interrupted_lab_leaves_nothing(chosen: signal.Signals, moment: str) -> None:
    name, before = labs.fresh_name(), root_namespace()
    process = subprocess.Popen(
        build.xlvs("lab", "up", "--name", name, "--method", "dr"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            # To the whole group, as a terminal does it.
            os.killpg(process.pid, chosen)
            break
    process.communicate()
    assert process.returncode == 130
    assert left_of(name) == []
    assert root_namespace() == before


def test_a_lab_killed_half_way_is_listed_as_such_and_can_be_taken_down() -> None:
    name = labs.fresh_name()
    process = subprocess.Popen(build.xlvs("lab", "up", "--name", name), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    try:
        assert f"{name}: nat, 2 real servers, IPv4; half built" in command("list").stdout
    finally:
        assert command("down", "--name", name).returncode == 0
    assert left_of(name) == []


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "../x", "1st", "a" * 40])
def test_names_that_would_not_do(name: str) -> None:
    refused = command("up", "--name", name)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"xlvs: '{name}' is no name for a lab")


@pytest.mark.parametrize("number", [0, -1, 4097])
def test_numbers_of_local_addresses_that_would_not_do(number: int) -> None:
    refused = command("up", "--method", "fullnat", "--local-addresses", str(number))
    assert (refused.returncode, refused.stderr) == (
        1,
        f"xlvs: a lab has 1 to 4096 local addresses, not {number}\n",
    )


@pytest.mark.parametrize("option", [["--no-toa"], ["--local-addresses", "3"]])
def test_options_of_fullnat_go_with_fullnat(option: list[str]) -> None:
    refused = command("up", "--method", "nat", *option)
    assert refused.returncode == 1
    assert "go with --method fullnat only" in refused.stderr


@pytest.mark.parametrize("number", [0, -1, 201])
def test_numbers_that_would_not_do(number: int) -> None:
    with pytest.raises(XlvsError, match="1 to 200 real servers"):
        make(Method.NAT, number)


def test_a_lab_is_up_quickly() -> None:
    start = time.monotonic()
    with labs.lab(Method.NAT):
        assert time.monotonic() - start < 30  # two seconds here; much more on a busy machine


@pytest.fixture(scope="class", params=list(Method))
def wired(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.machines(request.param, ipv6=True) as made:
        yield made


class TestMachines:
    """The machines as an operator would set them up, before there is a director."""

    def test_gateways(self, wired: build.Lab) -> None:
        topology = wired.topology
        for family, ipv6 in (("-4", False), ("-6", True)):
            for node in topology.real_servers:
                shown = wired.run(node.name, ["ip", family, "-json", "route", "show", "default"])
                gateway = json.loads(shown)[0]["gateway"]
                owner = {Method.NAT: "director", Method.FULLNAT: "inside"}.get(wired.method, "router")
                assert gateway in next(entry for entry in topology.nodes if entry.name == owner).addresses, (
                    ipv6
                )

    def test_each_real_server_has_its_own_page(self, wired: build.Lab) -> None:
        for number in (1, 2):
            page = wired.run("director", ["curl", "-sS", f"http://{wired.topology.rip(number)}/"])
            assert page == f"<h1>RS{number}</h1>\n"

    def test_the_switch_has_no_address(self, wired: build.Lab) -> None:
        addresses = json.loads(wired.run("switch", ["ip", "-json", "address"]))
        assert [link["addr_info"] for link in addresses if link["addr_info"]] == []

    def test_every_offload_is_at_its_default(self, wired: build.Lab) -> None:
        """Receive offload at the wires' ends is all that the lab turns, and that it turns on."""
        fresh = {
            "tx-checksumming": "on",
            "tcp-segmentation-offload": "on",
            "generic-segmentation-offload": "on",
        }
        for node in ("client", "rs1"):
            shown = wired.run(node, ["ethtool", "-k", "eth0"])
            states = dict(line.strip().split(": ", 1) for line in shown.splitlines()[1:])
            assert {name: states[name] for name in fresh} == fresh, node

    def test_the_drawing_names_every_machine(self, wired: build.Lab) -> None:
        drawn = drawing(wired.topology)
        for text in (
            "client 172.16.0.10",
            "router",
            "VIP 10.1.252.161",
            f"rs1 {wired.topology.rip(1)}",
            "rs2",
        ):
            assert text in drawn
