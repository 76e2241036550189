"""One real server a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.toa.site import Site, site


@pytest.fixture
def real_server() -> Iterator[Site]:
    with site() as made:
        yield made
