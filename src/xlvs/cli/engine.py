"""The one place that picks the engine behind the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlvs.dataplane.plane import Plane
    from xlvs.dataplane.port import DataPlane


def open_data_plane() -> DataPlane:
    """Open the data plane of the current network namespace.

    Raises :class:`xlvs.errors.XlvsError` where it cannot run here.
    """
    # Imported here: commands that need no engine (help, version) must not pay for it.
    from xlvs.dataplane.xdp import XdpDataPlane
    from xlvs.network.neighbours import NetlinkHost

    return XdpDataPlane(NetlinkHost())


def open_plane() -> Plane:
    """The programs of the current network namespace: `up`, `down`, `status`."""
    from xlvs.dataplane.plane import Plane
    from xlvs.network.neighbours import NetlinkHost

    return Plane(NetlinkHost())
