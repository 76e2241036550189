"""FTP through NAT with real programs: vsftpd on the real servers, curl and busybox as clients."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.netns import topology
from tests.netns.topology import Site
from xlvs.lab import namespaces
from xlvs.lab.topology import host_port

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
CURL = ["curl", "-sS", "--fail", "--max-time", "120", "--user", "anonymous:x"]
# curl asks for EPSV and EPRT first; --ftp-port - means: the server connects to me.
MODES = {
    "EPSV": [],
    "PASV": ["--disable-epsv"],
    "EPRT": ["--ftp-port", "-"],
    "PORT": ["--ftp-port", "-", "--disable-eprt"],
}
modes = pytest.mark.parametrize("mode", MODES)

VSFTPD = """listen=YES
listen_ipv6=NO
background=NO
anonymous_enable=YES
local_enable=NO
no_anon_password=YES
anon_root={folder}
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
connect_from_port_20=YES
pasv_promiscuous=NO
xferlog_enable=NO
secure_chroot_dir={folder}/empty
seccomp_sandbox=NO
isolate_network=NO
ftpd_banner=this is {name}
"""


@dataclass
class Ftp:
    """A site whose real servers run vsftpd."""

    site: Site
    folders: list[Path]

    def url(self, ipv6: bool, name: str = "") -> str:
        vip = self.site.made.topology.vips[ipv6]
        return f"ftp://{f'[{vip}]' if ipv6 else vip}/pub/{name}"

    def client(self, *command: str) -> str:
        return namespaces.run(namespaces.inside(self.site.made.namespace("client"), command))

    def sound(self) -> None:
        self.site.assert_sound()


def start_server(stack: ExitStack, site: Site, name: str, folder: Path, ipv6: bool) -> None:
    config = folder.with_name(f"{name}{'-6' if ipv6 else ''}.conf")
    text = VSFTPD.format(folder=folder, name=name)
    if ipv6:
        text = text.replace("listen=YES", "listen=NO").replace("listen_ipv6=NO", "listen_ipv6=YES")
        text += f"listen_address6={site.made.topology.rip(int(name[2:]), True)}\n"
    else:
        text += f"listen_address={site.made.topology.rip(int(name[2:]))}\n"
    config.write_text(text)
    server = stack.enter_context(
        subprocess.Popen(namespaces.inside(site.made.namespace(name), ["vsftpd", str(config)]))
    )
    stack.callback(server.send_signal, signal.SIGTERM)


@pytest.fixture(scope="module")
def ftp() -> Iterator[Ftp]:
    """Two real servers behind a director that is up, one FTP service of each family."""
    # Not pytest's folder: the servers' own user must reach it.
    base = Path("/tmp", f"xlvs-ftp-{os.getpid()}")
    with topology.site(ipv6=True) as site, ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        folders = []
        for node in site.made.topology.real_servers:
            folder = base / node.name
            for place in (folder / "pub", folder / "empty"):
                place.mkdir(parents=True)
            (folder / "pub").chmod(0o777)
            folders.append(folder / "pub")
            for ipv6 in (False, True):
                start_server(stack, site, node.name, folder, ipv6)
        site.up()
        for ipv6 in (False, True):
            add_service(site, ipv6)
        time.sleep(0.5)
        yield Ftp(site, folders)


def add_service(site: Site, ipv6: bool) -> None:
    name = host_port(site.made.topology.vips[ipv6], 21)
    rules = [f"-A -t {name} -s rr"]
    rules += [f"-a -t {name} -r {host_port(site.made.topology.rip(n, ipv6), 21)} -m" for n in (1, 2)]
    site.director("ipvsadm", "-R", text="".join(f"{rule}\n" for rule in rules))


@pytest.mark.parametrize(
    ("mode", "ipv6"),
    [*((mode, False) for mode in MODES), ("EPSV", True), ("EPRT", True)],  # the others are IPv4's
)
def test_files_arrive_whole(ftp: Ftp, mode: str, ipv6: bool, tmp_path: Path) -> None:
    content = os.urandom(4 * MEBIBYTE)
    name = f"{mode}-{ipv6}"
    (tmp_path / "up").write_bytes(content)
    for folder in ftp.folders:
        (folder / f"{name}.down").write_bytes(content)
    curl = [*CURL, *MODES[mode]]
    for _ in range(2):  # either server once
        ftp.client(*curl, "-o", str(tmp_path / "down"), ftp.url(ipv6, f"{name}.down"))
        assert (tmp_path / "down").read_bytes() == content
        ftp.client(*curl, "-T", str(tmp_path / "up"), ftp.url(ipv6, f"{name}.up"))
    arrived = [folder / f"{name}.up" for folder in ftp.folders]
    assert all(path.read_bytes() == content for path in arrived if path.exists())
    assert any(path.exists() for path in arrived)
    ftp.sound()


@modes
def test_many_transfers_over_one_control_connection(ftp: Ftp, mode: str) -> None:
    for folder in ftp.folders:
        for number in range(60):
            (folder / f"many-{number}").write_text(f"{number}:" * 1000)
    curl = [*CURL, *MODES[mode], "-v", ftp.url(False, "many-[0-59]")]
    done = subprocess.run(
        namespaces.inside(ftp.site.made.namespace("client"), curl),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "".join(f"{number}:" * 1000 for number in range(60))
    assert done.stderr.count("< 220 ") == 1, "one control connection"
    ftp.sound()


def test_the_listing_names_the_vip_and_a_port_that_waits(ftp: Ftp) -> None:
    talk = """import ftplib, subprocess, sys
ftp = ftplib.FTP(sys.argv[1])
ftp.login()
print(ftp.makepasv()[1], flush=True)
sys.stdin.readline()
"""
    client = subprocess.Popen(
        namespaces.inside(ftp.site.made.namespace("client"), ["/usr/bin/python3", "-c", talk, ftp.site.vip]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdin
        assert client.stdout
        port = client.stdout.readline().strip()
        address = ftp.site.made.topology.client.addresses[0]
        lines = [line.split() for line in ftp.site.director("ipvsadm", "-Lnc").splitlines()]
        (waiting,) = (line for line in lines if line[3:5] == [f"{address}:0", f"{ftp.site.vip}:{port}"])
        assert waiting[2] == "LISTEN"
        client.stdin.close()


def test_another_client_program(ftp: Ftp, tmp_path: Path) -> None:
    content = os.urandom(MEBIBYTE)
    for folder in ftp.folders:
        (folder / "box").write_bytes(content)
    got = tmp_path / "got"
    ftp.client("busybox", "ftpget", "-u", "anonymous", "-p", "x", ftp.site.vip, str(got), "pub/box")
    assert got.read_bytes() == content


# What is lost: every announcement once, behind the director, so that it passes there again; every fifth of
# the other sentences, and some of the data. Counted, not at random, and none twice in a row: TCP doubles its
# patience with every loss, and of so many transfers by dice one takes a minute.
ONCE = "numgen inc mod 2 == 0 counter drop"
LOST_AT_CLIENT = f"""table inet loss {{
chain announcements {{ {ONCE}; accept; }}
chain input {{ type filter hook input priority 0;
tcp sport 21 @ih,0,32 {{ 0x{b"227 ".hex()}, 0x{b"229 ".hex()} }} goto announcements;
tcp sport 21 tcp flags & psh == psh numgen inc mod 5 == 4 drop;
tcp sport != 21 tcp flags & (syn | rst) == 0 numgen inc mod 40 == 39 drop; }}
chain output {{ type filter hook output priority 0;
tcp dport 21 tcp flags & psh == psh numgen inc mod 5 == 4 drop; }}
}}
"""
LOST_AT_SERVERS = f"""table inet loss {{
chain input {{ type filter hook input priority 0;
tcp dport 21 @ih,0,32 {{ 0x{b"PORT".hex()}, 0x{b"EPRT".hex()} }} {ONCE}; }}
}}
"""


@modes
def test_lost_and_repeated_segments(ftp: Ftp, mode: str, tmp_path: Path) -> None:
    """Announcements are lost, and much else: everything is sent again, rewritten alike."""
    content = os.urandom(MEBIBYTE // 4)
    for folder in ftp.folders:
        (folder / "lossy").write_bytes(content)
    machines = {"client": LOST_AT_CLIENT, "rs1": LOST_AT_SERVERS, "rs2": LOST_AT_SERVERS}

    def nft(node: str, *command: str, rules: str | None = None) -> str:
        return namespaces.run(namespaces.inside(ftp.site.made.namespace(node), ["nft", *command]), rules)

    with ExitStack() as stack:
        for node, rules in machines.items():
            nft(node, "-f", "-", rules=rules)
            stack.callback(nft, node, "delete", "table", "inet", "loss")
        for number in range(3):
            ftp.client(*CURL, *MODES[mode], "-o", str(tmp_path / f"{number}"), ftp.url(False, "lossy"))
            assert (tmp_path / f"{number}").read_bytes() == content
        tables = {node: nft(node, "list", "table", "inet", "loss") for node in machines}
    lost = {
        node: sum(map(int, re.findall(r"counter packets (\d+)", table))) for node, table in tables.items()
    }
    client, servers = lost["client"], lost["rs1"] + lost["rs2"]
    assert (servers if "--ftp-port" in MODES[mode] else client) >= 3, lost
    ftp.sound()


@pytest.mark.parametrize("mode", ["EPRT", "PORT"])
def test_one_port_of_a_client_for_one_server_after_another(ftp: Ftp, mode: str) -> None:
    for folder in ftp.folders:
        (folder / "port").write_text("port\n")
    options = ["--ftp-port", f"{ftp.site.made.topology.client.addresses[0]}:45001", *MODES[mode][2:]]
    for _ in range(4):
        assert ftp.client(*CURL, *options, ftp.url(False, "port")) == "port\n"
    ftp.sound()


def test_without_the_helper(ftp: Ftp) -> None:
    """Nothing of it needs a process."""
    os.kill(ftp.site.status()["helper"], signal.SIGKILL)
    for mode in MODES.values():
        for folder in ftp.folders:
            (folder / "alone").write_text("alone\n")
        assert ftp.client(*CURL, *mode, ftp.url(False, "alone")) == "alone\n"
    ftp.site.up()


def test_a_new_generation_in_the_middle(ftp: Ftp) -> None:
    """`up`, and tables of another size, while a client keeps asking over one control connection."""
    for folder in ftp.folders:
        (folder / "again").write_text("again\n")
    one = f'url = "{ftp.url(False, "again")}"\nuser = "anonymous:x"\ndisable-epsv\n'
    with subprocess.Popen(
        namespaces.inside(ftp.site.made.namespace("client"), ["curl", "-sS", "--max-time", "400", "-K", "-"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin
        assert client.stdout
        client.stdin.write("next\n".join([one] * 150))
        client.stdin.close()
        assert client.stdout.readline() == "again\n"
        ftp.site.up()
        ftp.site.up("--connections", "16384", "--migrate")
        assert client.stdout.read() == "again\n" * 149
    assert client.returncode == 0
    ftp.sound()


def test_what_was_announced_ends_with_the_director(ftp: Ftp) -> None:
    """It is counted, for packets of no connection are compared with it: what is forgotten waits no more."""
    waiting = "from xlvs.dataplane.tables import Tables; print(Tables().settings.expected)"
    ask = "import ftplib, sys; f = ftplib.FTP(sys.argv[1]); f.login(); f.makepasv()"
    ftp.client("/usr/bin/python3", "-c", ask, ftp.site.vip)
    assert int(ftp.site.python(waiting).stdout) > 0
    ftp.site.director("down", "--keep-rules")
    assert int(ftp.site.python(waiting).stdout) == 0
    ftp.site.up()
