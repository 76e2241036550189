"""The conversation with the kernel's IPVS goes on inside an event loop, too: the checkers have one."""

from __future__ import annotations

import asyncio
from errno import ENOENT

from xlvs.errors import IpvsError
from xlvs.network.ipvs import NetlinkIpvs


def outcome() -> int:
    """0, or the errno of a kernel without IPVS."""
    try:
        NetlinkIpvs().close()
    except IpvsError as error:
        return error.errno
    return 0


def test_it_answers_the_same_inside_an_event_loop() -> None:
    async def inside() -> int:
        return outcome()

    assert asyncio.run(inside()) == outcome()
    assert outcome() in (0, ENOENT)
