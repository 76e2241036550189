"""One data plane for all packet tests, emptied before each: the verifier takes its time."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

from tests.packet.director import Director
from xlvs.dataplane import thread

_CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="session")
def _loaded() -> Iterator[Director]:
    director = Director()
    yield director
    director.close()


@pytest.fixture
def director(_loaded: Director) -> Director:
    """A director without rules and connections."""
    _loaded.reset()
    return _loaded


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace of the test's own, entered by this thread and gone after it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        thread.enter_network(home)
        os.close(home)
