"""The packet tests on Debian's 6.1 kernel: what is verified here must also run right there."""

from __future__ import annotations

import re
import sys

import pytest

from tests.guest import run_in_guest


@pytest.mark.root
@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_packet_tests_pass_on_6_1() -> None:
    # Random histories, streams and options run here only: what they are about, the kernel has no part in.
    here = ("histories", "text", "streams", "storm_", "any_segment", "any_options", "any_stamps")
    chosen = " and ".join(f"not {name}" for name in here)
    options = f"-q -p no:cacheprovider --timeout 1800 -m 'not slow and not guest' -k '{chosen}'"
    pytest_there = f"{sys.executable} -m pytest {options}"
    run = run_in_guest(f"uname -r; {pytest_there} tests/packet", timeout=3500)
    assert run.status == 0, run.stdout[-6000:]
    assert run.stdout.startswith("6.1.")
    summary = run.stdout.strip().splitlines()[-1]
    found = re.search(r"(\d+) passed", summary)
    assert found, summary
    assert int(found[1]) > 1000
