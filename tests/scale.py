"""How much a test does: all of it on this machine, a part in the guest, which emulates every instruction."""

from __future__ import annotations

import os

IN_GUEST = "IPVS_GUEST" in os.environ


def scaled(whole: int, in_guest: int) -> int:
    """``whole``; in the guest ``in_guest``."""
    return in_guest if IN_GUEST else whole
