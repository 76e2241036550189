"""The one place that picks the engine behind the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlvs.errors import XlvsError

if TYPE_CHECKING:
    from xlvs.dataplane.plane import Plane
    from xlvs.dataplane.port import DataPlane

ENGINES = ("xdp", "kernel")
_VARIABLE = "XLVS_ENGINE"


def open_data_plane(engine: str = "") -> DataPlane:
    """Open the data plane of the current network namespace.

    ``engine`` is one of :data:`ENGINES`; without one the environment's XLVS_ENGINE
    decides, else it is xdp. Raises :class:`xlvs.errors.XlvsError` where it cannot run here.
    """
    # Imported here: commands that need no engine (help, version) must not pay for it.
    name = engine_name(engine)
    if name == "xdp":
        from xlvs.dataplane.xdp import XdpDataPlane
        from xlvs.network.neighbours import NetlinkHost

        return XdpDataPlane(NetlinkHost())
    if name == "kernel":
        from xlvs.dataplane.kernel import KernelDataPlane
        from xlvs.network.ipvs import NetlinkIpvs, load_module

        return KernelDataPlane(NetlinkIpvs, load_module)
    raise XlvsError(f"no engine '{name}': there are {' and '.join(ENGINES)}")


def engine_name(engine: str) -> str:
    """The engine that a command line's ``engine`` ("": none given) stands for."""
    return engine or os.environ.get(_VARIABLE) or ENGINES[0]


def take_engine(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Cut ``--engine NAME`` or ``--engine=NAME`` off the front; "" where it is not there."""
    if arguments and arguments[0] == "--engine":
        if len(arguments) < 2:
            raise XlvsError(f"--engine needs a name: {' or '.join(ENGINES)}")
        return arguments[1], list(arguments[2:])
    if arguments and arguments[0].startswith("--engine="):
        return arguments[0].partition("=")[2], list(arguments[1:])
    return "", list(arguments)


def open_plane() -> Plane:
    """The programs of the current network namespace: `up`, `down`, `status`."""
    from xlvs.dataplane.plane import Plane
    from xlvs.network.neighbours import NetlinkHost

    return Plane(NetlinkHost())
