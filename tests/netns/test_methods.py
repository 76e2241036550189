"""NAT, DR, TUN and FULLNAT over IPv4 and IPv6, with real servers and real clients: nothing lost on the way.

Every lab's offloads are at their defaults: whatever the senders leave to hardware that is
not there, the director has to put right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import labs
from xlvs.lab import build, namespaces, webserver
from xlvs.lab.topology import SWITCH, Method, host_port

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
CURL = ["curl", "-sS", "--fail"]
families = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="class", params=list(Method))
def made(request: pytest.FixtureRequest) -> Iterator[build.Lab]:
    with labs.lab(request.param, ipv6=True) as built:
        yield built


def logged(made: build.Lab, least: int = 0) -> list[Counter[str]]:
    """How often each real server was asked, by client address; waits for so many in all."""
    deadline = time.monotonic() + 20
    while True:
        time.sleep(0.2)  # nginx writes its log a moment after the client has its answer
        seen = [Counter(webserver.clients_seen(made.site(n + 1))) for n in range(made.real_servers)]
        if sum(each.total() for each in seen) >= least or time.monotonic() > deadline:
            return seen


def port_bytes(made: build.Lab, port: str, direction: str) -> int:
    """Bytes that the wire to a machine carried: ``tx`` towards it, ``rx`` from it."""
    stats = json.loads(made.run(SWITCH, ["ip", "-json", "-s", "link", "show", "dev", port]))[0]["stats64"]
    return int(stats[direction]["bytes"])


def upload(made: build.Lab, url: str, folder: Path) -> None:
    """PUT some megabytes, and find them whole on one of the real servers."""
    content = os.urandom(8 * MEBIBYTE)
    (folder / "body").write_bytes(content)
    curl = [
        "curl",
        "-sS",
        "--max-time",
        "60",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-T",
        str(folder / "body"),
    ]
    assert made.run("client", [*curl, url]) == "201"
    name = url.rpartition("/")[2]
    arrived = [Path(made.site(number), "html/upload", name) for number in (1, 2)]
    assert [path.read_bytes() == content for path in arrived if path.exists()] == [True]


class TestTraffic:
    @families
    def test_a_thousand_requests_without_an_error(self, made: build.Lab, ipv6: bool) -> None:
        before = logged(made)
        url = f"{made.topology.url(ipv6)}/?n=[1-1000]"
        curl = [*CURL, "--fail-early", "--max-time", "20", "-H", "Connection: close", "-o", "/dev/null"]
        printed = made.run("client", [*curl, "-w", "%{http_code} %{num_connects}\n", url])
        assert Counter(printed.splitlines()) == {"200 1": 1000}
        client = made.topology.client.addresses[ipv6]
        after = logged(made, sum(each.total() for each in before) + 1000)
        # rr: half each, and every one from the client itself.
        assert [now - then for now, then in zip(after, before, strict=True)] == [Counter({client: 500})] * 2

    @families
    def test_many_clients_at_once(self, made: build.Lab, ipv6: bool) -> None:
        url = f"{made.topology.url(ipv6)}/"
        for header in ("Connection: close", "Connection: keep-alive"):
            printed = made.run(
                "client", ["wrk", "-t2", "-c40", "-d2s", "--timeout", "20s", "-H", header, url]
            )
            requests = re.search(r"(\d+) requests in", printed)
            assert requests
            assert int(requests[1]) > 200, printed
            assert "Socket errors" not in printed
            assert "Non-2xx" not in printed

    @families
    def test_downloads_arrive_whole_and_by_the_right_way(
        self, made: build.Lab, ipv6: bool, tmp_path: Path
    ) -> None:
        content = os.urandom(100 * MEBIBYTE)
        for number in (1, 2):
            Path(made.site(number), "html/big").write_bytes(content)
        wanted = hashlib.sha256(content).hexdigest()
        ports = [f"director-{port.name}" for port in made.topology.director.interfaces]
        before = sum(port_bytes(made, port, "tx") for port in ports)
        for _ in (1, 2):  # from one real server each
            url = f"{made.topology.url(ipv6)}/big"
            made.run(
                "client", ["curl", "-sS", "--fail", "--max-time", "120", "-o", str(tmp_path / "big"), url]
            )
            assert hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest() == wanted
        towards_director = sum(port_bytes(made, port, "tx") for port in ports) - before
        if made.method.translates:
            assert towards_director > 200 * MEBIBYTE
        else:
            assert towards_director < 20 * MEBIBYTE  # acknowledgements

    @families
    def test_uploads_arrive_whole(self, made: build.Lab, ipv6: bool, tmp_path: Path) -> None:
        """Packets as big as the client can make them: in TUN it must learn to make them smaller."""
        for name in ("first", "second"):  # to one real server each
            upload(made, f"{made.topology.url(ipv6)}/upload/{name}{ipv6:d}", tmp_path)

    @families
    def test_the_director_sees_replies_where_it_translates(self, made: build.Lab, ipv6: bool) -> None:
        """Counted on the wires to the director, where nothing of it can hide."""
        sniffers = []
        for port in made.topology.director.interfaces:
            wire = f"director-{port.name}"
            # "out" of the switch is what the director receives.
            sniffer = made.start(
                SWITCH, ["tcpdump", "-lnni", wire, "--immediate-mode", "--direction=out", "tcp port 80"]
            )
            assert sniffer.stderr is not None
            while "listening" not in sniffer.stderr.readline():
                pass
            sniffers.append(sniffer)
        labs.answers(made, 20, ipv6=ipv6)
        time.sleep(1)
        seen = ""
        for sniffer in sniffers:
            sniffer.terminate()
            seen += sniffer.communicate()[0]
        requests = len(re.findall(r"\.80: Flags", seen))
        replies = len(re.findall(r"\.80 > ", seen))
        assert requests >= 20 * 4  # SYN, ACK, request, FIN
        assert (replies >= 20 * 3) if made.method.translates else (replies == 0)

    @families
    def test_almost_everything_is_forwarded_by_xdp(self, made: build.Lab, ipv6: bool) -> None:
        for number in (1, 2):
            Path(made.site(number), "html/some").write_bytes(bytes(20 * MEBIBYTE))
        before = outcomes(made)
        labs.answers(made, 50, ipv6=ipv6)
        made.run("client", [*CURL, "--max-time", "60", "-o", "/dev/null", f"{made.topology.url(ipv6)}/some"])
        added = outcomes(made) - before
        # Packets that are not of these flows (ARP, neighbour discovery) count against us.
        assert added["forwarded"] >= 50 * 4
        by_kernel = added.total() - added["forwarded"]
        assert added["forwarded"] / added.total() >= 0.99, f"{by_kernel} packets by the kernel: {added}"


def outcomes(made: build.Lab) -> Counter[str]:
    """The director's packets by what became of them; those handed over count where they ended."""
    packets = json.loads(labs.xlvs(made, "director", "status", "--json"))["packets"]
    return Counter(
        {name: outcome["count"] for name, outcome in packets.items() if not name.startswith("handed_")}
    )


@pytest.fixture(scope="module")
def tunnels() -> Iterator[build.Lab]:
    with labs.lab(Method.TUN, ipv6=True, rules=False) as built:
        yield built


class TestMixedFamilies:
    """TUN with another family outside than inside."""

    @pytest.mark.parametrize(("inner6", "outer6"), [(False, True), (True, False)], ids=["4in6", "6in4"])
    def test_answers_and_uploads(
        self, tunnels: build.Lab, inner6: bool, outer6: bool, tmp_path: Path
    ) -> None:
        topology = tunnels.topology
        service = topology.service(inner6)
        labs.xlvs(tunnels, "director", "ipvsadm", "-A", "-t", service, "-s", "rr")
        for number in (1, 2):
            rip = host_port(topology.rip(number, outer6))
            labs.xlvs(tunnels, "director", "ipvsadm", "-a", "-t", service, "-r", rip, "-i")
        assert labs.answers(tunnels, 4, ipv6=inner6) == [f"<h1>RS{number}</h1>" for number in (2, 1, 2, 1)]
        for name in ("first", "second"):
            upload(tunnels, f"{topology.url(inner6)}/upload/{name}{inner6:d}{outer6:d}", tmp_path)


@families
def test_the_director_is_a_client_of_its_own_vip(ipv6: bool) -> None:
    """By NAT only, as with IPVS: with DR and TUN a real server has the VIP, and would answer itself."""
    with labs.lab(Method.NAT, ipv6=True) as built:
        for node in ("director", "client", "director"):
            answers = labs.answers(built, 2, ipv6=ipv6, node=node)
            assert answers == ["<h1>RS2</h1>", "<h1>RS1</h1>"]


class TestOnTheDirectorItself:
    @pytest.fixture
    def local(self, made: build.Lab) -> str:
        """nginx on the director itself, port 8080."""
        folder = f"{made.folder}/director"
        if not os.path.exists(folder):
            webserver.write_site(folder, "<h1>DIRECTOR</h1>", port=8080)
            namespaces.run(namespaces.inside(made.namespace("director"), webserver.start_command(folder)))
        return folder

    @families
    def test_a_masq_destination_on_the_director_with_another_port(
        self, made: build.Lab, local: str, ipv6: bool
    ) -> None:
        director = made.topology.director
        own = director.addresses[1 if ipv6 else 0]
        service = host_port(made.topology.vips[ipv6], 8000)
        labs.xlvs(made, "director", "ipvsadm", "-A", "-t", service, "-s", "rr")
        labs.xlvs(made, "director", "ipvsadm", "-a", "-t", service, "-r", host_port(own, 8080), "-m")
        for node in ("client", "director"):
            for _ in range(3):
                page = made.run(node, ["curl", "-sS", "--max-time", "20", f"http://{service}/"])
                assert page == "<h1>DIRECTOR</h1>\n", node
        client = made.topology.client.addresses[ipv6]
        deadline = time.monotonic() + 20  # nginx writes its log a moment after the client has its answer
        while webserver.clients_seen(local).count(client) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert webserver.clients_seen(local).count(client) == 3
