"""IPVS's sysctls: their names, and what a new network namespace begins with.

Values are in the kernel's own units (Documentation/networking/ipvs-sysctl.rst).
"""

from __future__ import annotations

# As Debian's 6.1 kernel begins; every other name of layout.SysctlRow begins with 0.
DEFAULTS = {
    "amemthresh": 1024,
    "am_droprate": 10,
    "sync_version": 1,
    "sync_ports": 1,
    "sync_threshold": (3, 50),
    "nat_icmp_send": 0,
    "pmtu_disc": 1,
    "conn_reuse_mode": 1,
    "run_estimation": 1,
    "lblc_expiration": 24 * 60 * 60,
    "lblcr_expiration": 24 * 60 * 60,
}
