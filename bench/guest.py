"""The comparison with the kernel's own IPVS: both in one boot of the guest, on the same road."""

from __future__ import annotations

import json
import sys

from bench.build import compiled
from bench.rate import Rate
from tests.guest import GuestError, run_in_guest
from xlvs.errors import XlvsError

_MODULES = "veth ip_vs ip_vs_rr nf_tables"


def rates_in_guest(quick: bool) -> list[Rate]:
    """Boot the guest and have this program measure there."""
    compiled("traffic")  # there is no need to compile in emulation
    speed = "--quick" if quick else ""
    try:
        command = f"modprobe -a {_MODULES} && {sys.executable} -m bench --in-guest --json {speed}"
        run = run_in_guest(command, timeout=600)
    except GuestError as error:
        raise XlvsError(str(error)) from error
    if run.status:
        raise XlvsError(f"the benchmark failed in the guest: {run.stderr.strip()}")
    return [Rate(**rate) for rate in json.loads(run.stdout)["rates"]]
