"""Every keyword that may stand outside blocks, and every last look: where the rooms' tables meet."""

from __future__ import annotations

from collections.abc import Callable

from xlvs.keepalived import global_defs
from xlvs.keepalived.schema import Parser, Table

TOP: Table = {**global_defs.TOP}
FINISH: tuple[Callable[[Parser], dict[str, object]], ...] = (global_defs.finish,)
