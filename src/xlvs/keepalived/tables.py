"""Every keyword that may stand outside blocks, and every last look: where the rooms' tables meet."""

from __future__ import annotations

from collections.abc import Callable

from xlvs.keepalived import (
    bfd,
    global_defs,
    services,
    statics,
    tracking,
    virtual_server,
    vrrp_check,
    vrrp_instance,
)
from xlvs.keepalived.schema import Parser, Table

TOP: Table = {
    **global_defs.TOP,
    **statics.TOP,
    **tracking.TOP,
    **bfd.TOP,
    **vrrp_instance.TOP,
    **virtual_server.TOP,
}
# In this order: what comes later may look at what comes before.
FINISH: tuple[Callable[[Parser], dict[str, object]], ...] = (
    services.finish,  # gives the globals what the SSL block says
    global_defs.finish,
    tracking.finish,
    bfd.finish,
    vrrp_check.finish,
    statics.finish,
)
