"""The benchmarks work: every director forwards, every packet arrives, nothing is left behind.

How fast they are is for `make bench` on a quiet machine; here it is only looked at that
figures come out of real traffic.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import cost
from xlvs.cli import bench as command
from xlvs.errors import XlvsError

pytestmark = [pytest.mark.root, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/sys/module/nf_conntrack/parameters/hashsize",
)


def settings() -> dict[str, str]:
    return {path: Path(path).read_text() for path in SETTINGS if Path(path).exists()}


def test_every_director_is_measured_and_nothing_is_left() -> None:
    before = settings()
    run = subprocess.run(
        [sys.executable, "-m", "xlvs.cli.main", "bench", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    rates = {rate["name"]: rate for rate in found["rates"]}
    ours = ["xlvs DR", "xlvs NAT", "xlvs TUN", "xlvs FULLNAT"]
    assert list(rates) == ["bare XDP redirect", *ours, "nftables DNAT"]
    assert all(rate["known"] > 10_000 and rate["fresh"] > 1_000 for rate in rates.values()), rates
    assert set(found["ratios"]) == {"xlvs FULLNAT / xlvs NAT"} | {
        f"{name} / {other}" for name in ours for other in ("bare XDP redirect", "nftables DNAT")
    }
    assert set(found["nanoseconds"]) == {weighing.name for weighing in cost.WEIGHINGS}
    assert all(0 < cost < 100_000 for cost in found["nanoseconds"].values()), found["nanoseconds"]
    assert settings() == before
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    # Another bench may be at work on this machine: its process lives.
    owners = re.findall(r"xlvsbench(\d+)", namespaces)
    assert not [owner for owner in owners if not Path("/proc", owner).exists()]


def test_health_checks_are_measured() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "checks", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0, run.stderr
    found = {each["name"]: each for each in json.loads(run.stdout)}
    assert list(found) == ["TCP_CHECK", "HTTP_GET"]
    assert all(each["busy"] > 0 and each["servers"] == 100 and each["most"] > 0 for each in found.values())


@pytest.mark.guest
def test_the_kernels_own_ipvs_is_measured_beside() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--guest", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0, run.stderr
    rates = {rate["name"]: rate["known"] for rate in json.loads(run.stdout)["rates"]}
    # That much slower than XDP even in emulation: what was measured went through IPVS.
    assert rates["kernel IPVS DR"] < rates["bare XDP redirect"] / 3
    assert rates["xlvs DR"] > rates["kernel IPVS DR"]


def test_without_a_checkout_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "_CHECKOUT", tmp_path)
    with pytest.raises(XlvsError, match="clone the project and type 'make bench' there"):
        command.main([])
