"""What a child of `xlvs keepalived` is: one of vrrp, checkers and bfd, in a process of its own.

The parent forks it, gives it the configuration, tells it of its siblings' events and puts
operators' questions to it; ``process.py`` runs the loop around it. A child's class is named in
:data:`CHILDREN`, is called with a :class:`Context`, and is imported only in its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, cast

from xlvs.dataplane.port import DataPlane
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config

# What one child tells the others, such as {"event": "bfd", "name": "b1", "up": True}: JSON-able.
Event = Mapping[str, object]

CHILDREN = {
    "vrrp": "xlvs.daemon.vrrp.child:VrrpChild",
    "checkers": "xlvs.daemon.keepalived.checkers:CheckersChild",
    "bfd": "xlvs.daemon.keepalived.bfd:BfdChild",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says and a child must know.

    ``keep_services`` (-I) and ``keep_addresses`` (-V) leave on a stop what was set up;
    ``detail`` is -D; ``engine`` is ``xdp`` or ``kernel``.
    ``children`` and ``everything`` are those of :func:`wanted_children`.
    """

    engine: str = "xdp"
    keep_services: bool = False
    keep_addresses: bool = False
    detail: bool = False
    log_addresses: bool = False  # -a
    children: frozenset[str] = frozenset(CHILDREN)
    everything: bool = False  # --all


def _nobody(event: Event) -> None:
    del event


def _no_path(name: str, instance: str | None) -> str:
    del instance
    raise XlvsError(f"no place for what {name} leaves")


def _no_data_plane() -> DataPlane:
    raise XlvsError("no data plane")


@dataclass(frozen=True, slots=True)
class Context:
    """What a child is made with.

    ``emit`` tells the siblings (their ``post``) and may be called any time. ``open_data_plane``
    opens that of the engine chosen. ``state_path`` gives the path of a file, by the child's name,
    that outlives a killed daemon.
    """

    options: Options = field(default_factory=Options)
    emit: Callable[[Event], None] = _nobody
    open_data_plane: Callable[[], DataPlane] = _no_data_plane
    state_path: Callable[[str, str | None], str] = _no_path


class Child(Protocol):
    """One subsystem on an asyncio loop that is its own; methods are called one after the other.

    ``ask`` answers a request, a mapping whose ``command`` says what: every child knows ``status``
    (a summary), ``data`` and ``stats`` (``{"text": ...}``, what the dumps of SIGUSR1 and SIGUSR2
    say), and its own: vrrp ``instances`` and ``force``, checkers ``servers``, ``drain``,
    ``disable`` and ``enable``, bfd ``sessions``. An :class:`xlvs.errors.XlvsError` is what the
    operator is told. A child that raises anything out of ``start`` or ``reload`` ends, and the
    parent starts another. Where the parent itself died, a child that has a method ``abandoned`` is
    asked that instead of ``stop``. One that has ``recall`` is given, before ``start``, what was told last of
    everything: its own word, too, where it is started in the place of one that died.
    """

    async def start(self, config: Config) -> None:
        """Begin to work; returns as soon as it does."""

    async def reload(self, config: Config) -> None:
        """Go on with another configuration; what did not change is not disturbed."""

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer an operator, JSON-able both ways."""

    async def stop(self) -> None:
        """Clean up and end."""

    def post(self, event: Event) -> None:
        """Hear what a sibling told."""


def needed(config: Config) -> tuple[str, ...]:
    """The children that a configuration has work for, in the order in which they are started."""
    wanted = {
        "vrrp": bool(
            config.instances or config.static_addresses or config.static_routes or config.static_rules
        ),
        "checkers": bool(config.virtual_servers),
        "bfd": bool(config.bfds),
    }
    return tuple(name for name in ("bfd", "checkers", "vrrp") if wanted[name])


def wanted_children(config: Config, allowed: Collection[str], *, everything: bool) -> tuple[str, ...]:
    """The children that run: of those that the command line allows the needed ones, or ``everything``."""
    return tuple(name for name in (CHILDREN if everything else needed(config)) if name in allowed)


def make(name: str, context: Context) -> Child:
    """Import a child's module and make it; raises :class:`XlvsError` for one that does not exist."""
    try:
        module, _, attribute = CHILDREN[name].partition(":")
    except KeyError:
        raise XlvsError(f"no such child: {name}") from None
    factory = cast("Callable[[Context], Child]", getattr(import_module(module), attribute))
    return factory(context)
