"""net_namespace_ipvs: the data plane of another network namespace than the daemon's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from xlvs.dataplane import thread
from xlvs.dataplane.port import DataPlane, Transaction
from xlvs.errors import XlvsError

_FOLDER = "/run/netns"  # ip-netns(8)
_DEFAULT = "/proc/1/ns/net"  # what net_namespace_ipvs without a name means


def opener(namespace: str | None, open_here: Callable[[], DataPlane]) -> Callable[[], DataPlane]:
    """What opens the data plane of that namespace; None: of the one that the process is in.

    What it opens goes there for each call, and comes back: answers are whole, no iterators.
    It raises :class:`XlvsError` where there is no such namespace.
    """
    if namespace is None:
        return open_here

    def open_there() -> DataPlane:
        path = f"{_FOLDER}/{namespace}" if namespace else _DEFAULT
        with _inside(path):
            return cast("DataPlane", _There(open_here(), path))

    return open_there


class _There:
    def __init__(self, plane: DataPlane, path: str) -> None:
        self._plane = plane
        self._path = path

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._plane, name)

        def call(*arguments: object) -> object:
            with _inside(self._path):
                return method(*arguments)

        return call

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with _inside(self._path), self._plane.transaction() as transaction:
            yield transaction


@contextmanager
def _inside(path: str) -> Iterator[None]:
    """This thread is in that network namespace for a block."""
    with ExitStack() as stack:
        try:
            stack.enter_context(thread.in_network(path))
        except OSError as error:
            raise XlvsError(f"net_namespace_ipvs: {path}: {error.strerror}") from None
        yield
