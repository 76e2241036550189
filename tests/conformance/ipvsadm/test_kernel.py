"""``xlvs ipvsadm --engine kernel`` in the guest: the real program's answers, on the kernel's own IPVS."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conformance.ipvsadm.table import HERE, load
from tests.guest import run_in_guest

pytestmark = [pytest.mark.guest, pytest.mark.root]
REPOSITORY = Path(__file__).resolve().parents[3]

# In the guest, in one process: Python starts slowly there.
TABLE = """
import sys
sys.path.insert(0, {repository!r})
from tests.conformance.ipvsadm.runner import comparable, run_section
from tests.conformance.ipvsadm.table import load, load_answers
from xlvs.cli.engine import open_data_plane

sections = load()
answers = load_answers(sections)
plane = open_data_plane("kernel")
compared = 0
for section in sections:
    for step, answer in run_section(section, lambda: plane):
        ours, real = comparable(answer), comparable(answers[step.line])
        if ours != real:
            print(f"table.txt:{{step.line}}: {{step.text}}\\nours: {{ours}}\\nreal: {{real}}")
        compared += 1
print("compared", compared)
"""
# Traffic of samples.sh is still in the table when this runs: connections, counters, templates.
TRAFFIC = """
import io, subprocess, sys
sys.path.insert(0, {repository!r})
from xlvs.cli.engine import open_data_plane
from xlvs.errors import IpvsError
from xlvs.ipvsadm.program import Program

plane = open_data_plane("kernel")
def ours(*arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    status = Program(lambda: plane, lambda: "", stdout, stderr).run(arguments)
    return stdout.getvalue(), stderr.getvalue(), status
def real(*arguments):
    done = subprocess.run(["/usr/sbin/ipvsadm", *arguments], capture_output=True, text=True)
    return done.stdout, done.stderr, done.returncode
def same(*arguments):
    for attempt in range(40):  # a second may pass between the two
        before, mine, after = real(*arguments), ours(*arguments), real(*arguments)
        if mine in (before, after):
            return mine[0]
    sys.exit(f"{{arguments}}\\nours: {{mine}}\\nreal: {{after}}")

for listing in ("-Ln", "-L", "-Ln --stats", "-Ln --stats --exact", "-Ln --rate", "-Ln --thresholds",
                "-Ln --persistent-conn", "-Ln --tun-info", "-Ln --nosort", "-Sn", "-L --timeout",
                "-L --daemon"):
    same(*listing.split())
for listing in ("-Lnc", "-Lc", "-Lnc --persistent-conn", "-Lnc --sort"):
    text = same(*listing.split())
    assert "ESTABLISHED" in text and "abc@example" in text or "persistent" not in listing, text
assert "       1        " in same("-Ln", "--stats", "-t", "10.0.0.1:80")

daemon = ("backup", "--mcast-interface", "lo", "--mcast-group", "ff02::7", "--mcast-ttl", "9")
assert ours("--start-daemon", *daemon) == ("", "", 0)
assert "mcast=lo, syncid=0, maxlen=65487, group=ff02::7, port=8848, ttl=9" in same("-L", "--daemon")
assert ours("--start-daemon", *daemon) == real("--start-daemon", *daemon)
assert ours("--stop-daemon", "backup") == ("", "", 0)
assert ours("--stop-daemon", "backup") == real("--stop-daemon", "backup")
assert same("-L", "--daemon") == ""

# Names longer than the kernel's fields never reach it.
same("-A", "-t", "10.0.0.1:80", "-p", "--pe", "averyveryverylongengine")
same("-A", "-t", "10.0.0.77:80", "-p", "--pe", "averyveryverylongengine")

# All or nothing, undone by hand because the kernel knows no transactions.
before = same("-Ln", "--nosort"), same("-Sn")
try:
    with plane.transaction() as transaction:
        for entry in plane.services():
            for each in entry.destinations:
                transaction.delete_destination(entry.service.key, each.destination.key)
        transaction.flush()
        transaction.flush()
        transaction.delete_service(entry.service.key)
except IpvsError as error:
    print("refused", error.errno)
assert (same("-Ln", "--nosort"), same("-Sn"))[1] == before[1]
assert same("-Z") == ""
print("as the real one")
"""


def _run(script: str, tmp_path: Path, prologue: str = "modprobe ip_vs") -> str:
    (tmp_path / "script.py").write_text(script.format(repository=str(REPOSITORY)))
    python = shlex.quote(str(REPOSITORY / ".venv/bin/python"))
    done = run_in_guest(f"{prologue}\n{python} /mnt/share/script.py", share=tmp_path, timeout=800)
    assert done.status == 0, f"{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_answer_of_the_table(tmp_path: Path) -> None:
    # Not loaded: the engine loads the module by itself.
    steps = sum(len(section.steps) for section in load())
    assert _run(TABLE, tmp_path, "true") == f"compared {steps}\n"


def test_listings_of_real_traffic(tmp_path: Path) -> None:
    samples = (HERE / "samples.sh").read_text()
    traffic = samples.partition("# Seconds pass")[0]
    assert "busybox nc -ll" in traffic
    out = _run(TRAFFIC, tmp_path, f"modprobe ip_vs; cd /tmp\n{traffic}")
    assert out == "refused 3\nas the real one\n"


def test_a_kernel_without_ipvs_is_named(tmp_path: Path) -> None:
    script = REPOSITORY / ".venv/bin/xlvs"
    done = run_in_guest(f"rm -f /sbin/modprobe /usr/sbin/modprobe; XLVS_ENGINE=kernel {script} ipvsadm -Ln")
    assert done.status == 1
    assert "has no IPVS: `modprobe ip_vs`" in done.stderr


def test_an_unknown_engine_is_refused() -> None:
    script = str(REPOSITORY / ".venv/bin/xlvs")
    done = subprocess.run([script, "ipvsadm", "--engine", "ipfw", "-Ln"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "xlvs: no engine 'ipfw': there are xdp and kernel\n")
