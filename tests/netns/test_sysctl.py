"""``xlvs sysctl`` against the pinned settings, and the helper's part in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.alone import Alone
from xlvs.dataplane.sysctls import OWN

pytestmark = pytest.mark.root
DIRECTOR = Alone("xlvs-sysctl")
xlvs = DIRECTOR.xlvs


def value(name: str) -> str:
    return xlvs("sysctl", "-n", name).stdout.strip()


@pytest.fixture
def namespace() -> Iterator[None]:
    with DIRECTOR.made():
        yield


@pytest.mark.usefixtures("namespace")
def test_values_are_kept_all_or_none() -> None:
    assert value("conn_reuse_mode") == "1"  # the default, without any tables
    said = xlvs("sysctl", "net.ipv4.vs.conn_reuse_mode=0", "sync_threshold=2 9", "expire_nodest_conn=1")
    assert said.stdout.splitlines()[0] == "net.ipv4.vs.conn_reuse_mode = 0"
    assert "sync_threshold" in said.stderr  # stored only, and why
    assert (value("conn_reuse_mode"), value("sync_threshold")) == ("0", "2\t9")
    refused = xlvs("sysctl", "sloppy_tcp=1", "drop_packet=4", check=False)
    assert refused.returncode == 1
    assert "net.ipv4.vs.drop_packet does not take '4'; nothing was changed" in refused.stderr
    assert value("sloppy_tcp") == "0"
    refused = xlvs("sysctl", "sloppy_tcp=1", "toa_kind=255", check=False)
    assert (
        "net.ipv4.vs.toa_kind does not take '255' (it takes 1 to 254); nothing was changed" in refused.stderr
    )
    refused = xlvs("sysctl", "local_port_low=6000", "sloppy_tcp=1", "local_port_high=5999", check=False)
    assert "local_port_low would be 6000, above local_port_high, which is 5999; nothing" in refused.stderr
    assert value("sloppy_tcp") == "0"
    xlvs("sysctl", "local_port_low=61000", "local_port_high=62000")
    xlvs("sysctl", "local_port_low=1024", "local_port_high=1024")
    assert (value("local_port_low"), value("local_port_high")) == ("1024", "1024")
    unknown = xlvs("sysctl", "sloppy_tcp=1", "debug_level=4", check=False)
    assert (unknown.returncode, value("sloppy_tcp")) == (1, "0")
    shown = json.loads(xlvs("sysctl", "--json").stdout)
    assert set(OWN) <= set(shown)
    assert len(set(shown) - set(OWN)) == 29  # the kernel's
    assert shown["expire_nodest_conn"] == {"value": 1, "note": None, "own": False}
    assert [name for name, each in shown.items() if each["own"]] == sorted(OWN)  # behind the kernel's
    assert list(shown)[-len(OWN) :] == sorted(OWN)
    assert "netfilter" in shown["conntrack"]["note"]
    assert xlvs("sysctl", "-w", "sloppy_tcp", check=False).returncode == 1


@pytest.mark.usefixtures("namespace")
def test_a_file_of_sysctls(tmp_path: Path) -> None:
    conf = tmp_path / "lvs.conf"
    conf.write_text(
        "# of an LVS director\nnet.ipv4.ip_forward = 1\nnet.ipv4.vs.sloppy_tcp=1\n"
        ";net.ipv4.vs.drop_entry = 3\n-net.ipv4.vs.debug_level = 0\nnet/ipv4/vs/sync_threshold = 4 60\n"
    )
    said = xlvs("sysctl", "-p", str(conf)).stdout.splitlines()
    assert said[0] == "net.ipv4.vs.sloppy_tcp = 1"
    assert (value("sloppy_tcp"), value("sync_threshold"), value("drop_entry")) == ("1", "4\t60", "0")
    # What it prints it reads.
    shown = xlvs("sysctl").stdout
    xlvs("sysctl", "sloppy_tcp=0", "sync_threshold=0 0")
    conf.write_text(shown)
    xlvs("sysctl", "-p", str(conf))
    assert xlvs("sysctl").stdout == shown
    conf.write_text("net.ipv4.vs.sloppy_tcp=0\nnet.ipv4.vs.nosuch = 0\n")
    assert xlvs("sysctl", "-p", str(conf), check=False).returncode == 1
    assert value("sloppy_tcp") == "1"
    assert "cannot read" in xlvs("sysctl", "-p", "/nosuch", check=False).stderr


# Packets for the first service, as if they had come; prints the estimator's average then.
COUNT = """if True:
    import sys, time
    from xlvs.dataplane import layout
    from xlvs.dataplane.tables import Tables
    tables = Tables()
    tables.row("counters", layout.CounterRow, layout.ROW_SERVICE).values[1] += int(sys.argv[1])
    time.sleep(float(sys.argv[2]))
    print(tables.rate_row(layout.ROW_SERVICE).average[1])"""


def counted(packets: int, seconds: float) -> int:
    return int(DIRECTOR.python(COUNT, str(packets), str(seconds)))


@pytest.mark.usefixtures("namespace")
def test_rates_stand_still_without_estimation() -> None:
    xlvs("up", "eth0", "--no-helper")
    xlvs("ipvsadm", "-A", "-t", "10.0.0.1:80")
    assert counted(1_000_000, 3) > 0
    xlvs("sysctl", "run_estimation=0")
    still = counted(0, 1)
    assert counted(1_000_000, 5) == still
    xlvs("sysctl", "run_estimation=1")
    assert counted(0, 3) != still


@pytest.mark.usefixtures("namespace")
def test_the_memory_decides_where_it_is_asked_to() -> None:
    xlvs("up", "eth0")
    xlvs("sysctl", "drop_entry=2", "drop_packet=1", "secure_tcp=3")
    assert (value("drop_entry"), value("drop_packet"), value("secure_tcp")) == ("1", "1", "3")
    xlvs("sysctl", "amemthresh=2147483647")  # no machine has so many pages
    assert (value("drop_entry"), value("drop_packet")) == ("2", "2")
    # Behind the engine's back: the helper looks again each second.
    DIRECTOR.python("from xlvs.dataplane.tables import Tables; Tables().settings.sysctl.amemthresh = 1")
    deadline = time.monotonic() + 40
    while value("drop_packet") != "1" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (value("drop_entry"), value("drop_packet"), value("secure_tcp")) == ("1", "1", "3")
