"""``ipvsadm -L -c`` from the pinned table: every kind of row, and a million of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.alone import Alone
from xlvs.lab import build, namespaces

pytestmark = [pytest.mark.root, pytest.mark.slow]
DIRECTOR = Alone("xlvs-connections")
SLOTS = 1 << 20
# Fills the table behind the data plane's back, from what `rows` below says of each slot.
FILL = """if True:
    import json, sys
    import numpy
    from ipaddress import ip_address
    from xlvs.dataplane import layout, libbpf
    from xlvs.dataplane.tables import Tables
    tables = Tables()
    conns = numpy.frombuffer(tables.memory("conns"), dtype=numpy.dtype(layout.ConnRow))
    tables.dest_row(0).family, tables.dest_row(1).family = 2, 10
    def wire(text):
        return list(ip_address(text).packed.ljust(16, bytes(1)))
    for slot, row in enumerate(json.load(sys.stdin)):
        made = layout.ConnRow(
            family=row["family"], protocol=row["protocol"], dest=row["dest"], flags=row["flags"],
            cport=row["cport"] >> 8 | (row["cport"] & 255) << 8, vport=0x5000, dport=0x901f,
            seen=tables.settings.now, timeout=row["seconds"] * tables.settings.hz,
            state=row["state"], in_packets=row["slot"], phase=row["phase"],
        )
        for name in ("caddr", "vaddr", "daddr"):
            getattr(made, name)[:] = wire(row[name])
        conns[row["slot"]] = numpy.frombuffer(bytes(made), dtype=conns.dtype)[0]
        if "data" in row:
            text = row["data"].encode()
            libbpf.update(tables.fd("engine_data"), row["slot"].to_bytes(4, "little"),
                          bytes([len(text)]) + text.ljust(255, bytes(1)))
    if len(sys.argv) > 1:
        count = int(sys.argv[1])
        number = numpy.arange(count)
        rows = numpy.zeros(count, dtype=conns.dtype)
        rows["family"], rows["protocol"], rows["state"] = 2, 6, 1 + number % 5
        for byte, shift in enumerate((24, 16, 8, 0)):
            rows["caddr"][:, byte] = (0x0a000000 + number) >> shift & 255
        rows["vaddr"][:, :4], rows["daddr"][:, :4] = (10, 1, 252, 161), (192, 168, 22, 18)
        rows["cport"], rows["vport"], rows["dport"] = number % 65536, 0x5000, 0x901f
        rows["seen"], rows["timeout"] = tables.settings.now, 900 * tables.settings.hz - number % 1000
        conns[:count] = rows
        conns["phase"][:count] = 2"""
# Runs a command; its status, seconds of processor time, and most KiB in memory. A small process of its own:
# what execve replaces counts as the new program's memory (exec_mmap in the kernel's fs/exec.c), so a child
# of pytest would be as large as pytest.
METER = """if True:
    import json, os, sys
    process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = usage.ru_utime + usage.ru_stime
    json.dump([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss], sys.stderr)"""

TCP, UDP, SCTP, LIVE = 6, 17, 132, 2
TEMPLATE, ENGINE, ONE_PACKET, ENDED = 0x40, 0x80, 0x1000, 0xFFFFFFFF


def row(slot: int, protocol: int, state: int, **fields: object) -> dict[str, object]:
    return {
        "slot": slot,
        "protocol": protocol,
        "state": state,
        "family": 2,
        "dest": 0,
        "flags": 0,
        "cport": 40000,
        "caddr": "198.18.0.1",
        "vaddr": "10.80.0.1",
        "daddr": "10.19.0.11",
        "seconds": 100 + slot % 1000,
        "phase": LIVE,
        **fields,
    }


ROWS = [
    row(0, TCP, 1),
    row(5, TCP, 5 | 1 << 8 | 0x10000, cport=1),
    row(6, UDP, 0),
    row(7, SCTP, 8),
    row(8, SCTP, 13),
    row(9, TCP, 1, flags=TEMPLATE, cport=0, caddr="198.18.0.0"),
    row(10, 0, 0, flags=TEMPLATE, cport=0, vaddr="0.0.0.7"),
    row(11, UDP, 0, flags=TEMPLATE | ENGINE, cport=0, data="1@example"),
    row(12, TCP, 1, phase=3),
    row(13, TCP, ENDED),
    row(14, UDP, 0, flags=ONE_PACKET),
    row(15, TCP, 1, phase=1),
    row(16, 50, 0),
    row(17, TCP, 1, dest=0xFFFFFFFF, flags=4),
    row(20000, TCP, 2, family=10, caddr="fd80::1", vaddr="fd80::2", daddr="10.19.0.12"),
    row(40000, TCP, 3, family=10, dest=1, caddr="fd80::1", vaddr="fd80::2", daddr="fd19::1"),
]
LISTED = """\
IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
TCP 01:40  ESTABLISHED 198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
TCP 01:45  TIME_WAIT   198.18.0.1:1       10.80.0.1:80       10.19.0.11:8080
UDP 01:46  UDP         198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
SCTP 01:47  ESTABLISHED 198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
SCTP 01:48  CLOSED      198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
TCP 01:49  ASSURED     198.18.0.0:0       10.80.0.1:80       10.19.0.11:8080
IP  01:50  NONE        198.18.0.1:0       0.0.0.7:80         10.19.0.11:8080
UDP 01:51  NONE        198.18.0.1:0       10.80.0.1:80       10.19.0.11:8080  sip                1@example
ESP 01:56  ERR!        198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
TCP 01:57  ESTABLISHED 198.18.0.1:40000   10.80.0.1:80       10.19.0.11:8080
TCP 01:40  SYN_SENT    [fd80::1]:40000    [fd80::2]:80       10.19.0.12:8080
TCP 01:40  SYN_RECV    [fd80::1]:40000    [fd80::2]:80       [fd19::1]:8080
"""


def xlvs(*words: str) -> str:
    return DIRECTOR.xlvs(*words).stdout


@pytest.fixture
def namespace() -> Iterator[None]:
    with DIRECTOR.made():
        xlvs("up", "eth0", "--no-helper", "--connections", str(SLOTS))
        yield


@pytest.mark.usefixtures("namespace")
def test_every_kind_of_row() -> None:
    DIRECTOR.python(FILL, text=json.dumps(ROWS))
    # A second may pass meanwhile: expiry aside, all is as it was put there.
    text = xlvs("ipvsadm", "-L", "-n", "-c", "--persistent-conn")
    assert [_timeless(line) for line in text.splitlines()] == [
        _timeless(line) for line in LISTED.splitlines()
    ]
    plain = xlvs("ipvsadm", "-Lnc").splitlines()
    assert plain[1].endswith("destination")
    assert plain[9].endswith("10.19.0.11:8080")
    found = json.loads(xlvs("ipvsadm", "-L", "-c", "--json"))["connections"]
    assert [each["in_packets"] for each in found] == [0, 5, 6, 7, 8, 9, 10, 11, 16, 17, 20000, 40000]
    assert [each["template"] for each in found] == [number in (9, 10, 11) for number in _live()]
    assert found[7]["persistence_engine"] == "sip"
    assert found[7]["persistence_data"] == "1@example"
    assert (found[10]["client"], found[10]["destination"]) == ("fd80::1", "10.19.0.12")


def _live() -> list[object]:
    return [0, 5, 6, 7, 8, 9, 10, 11, 16, 17, 20000, 40000]


def _timeless(line: str) -> str:
    return re.sub(r"^(\w+ +)\d\d:\d\d", r"\1--:--", line)


@pytest.mark.usefixtures("namespace")
def test_a_million_connections_take_seconds_and_no_memory(tmp_path: Path) -> None:
    DIRECTOR.python(FILL, str(SLOTS), text="[]")
    with open(tmp_path / "list", "wb") as file:
        command = namespaces.typed_inside(DIRECTOR.name, build.xlvs("ipvsadm", "-Lnc"))
        command = [sys.executable, "-c", METER, *command]
        metered = subprocess.run(command, check=True, text=True, stdout=file, stderr=subprocess.PIPE)
    status, seconds, kibibytes = json.loads(metered.stderr)
    assert status == 0
    assert (tmp_path / "list").read_bytes().count(b"\n") == SLOTS + 2
    # Processor time: others may be at work on this machine. 1.9 s on the developers'.
    assert seconds < 5
    # The table itself, which is shared memory, and not much besides.
    assert kibibytes < SLOTS * 192 / 1024 + 100 * 1024
