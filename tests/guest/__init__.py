"""The guest: Debian's stock 6.1 kernel, with real IPVS, in QEMU on this machine's own files.

``run_in_guest("modprobe ip_vs && ipvsadm -Ln")`` boots it, runs the command line with
bash as root in the present folder, and powers it off: some seconds, in software emulation.
The file system is this machine's, read-only under a RAM overlay:
every tool and the virtual environment work there and nothing done there stays. /tmp,
/run and /mnt are fresh.
"""

from __future__ import annotations

from tests.guest.kernel import GuestError
from tests.guest.machine import CompletedGuest, run_in_guest

__all__ = ["CompletedGuest", "GuestError", "run_in_guest"]
