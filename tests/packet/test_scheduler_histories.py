"""Every scheduler chooses as its model does, through random histories of a service.

``XLVS_EXAMPLES`` says how many histories each scheduler lives through (default 25).
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import Director
from tests.packet.frames import TCP, UDP
from tests.packet.histories import WEIGHTS, History, live
from tests.packet.models import MODELS

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("XLVS_EXAMPLES", "25"))
STEPS = 25
FLAGGED = ("sh", "mh")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.lists(st.sampled_from(WEIGHTS), max_size=9),
    family=st.sampled_from([2, 10]),
    protocol=st.sampled_from([TCP, UDP]),
    flags=st.sets(st.sampled_from(["fallback", "port"])),
    seed=st.integers(0, 2**32),
)
def test_the_programs_choose_as_the_model(
    director: Director, name: str, weights: list[int], family: int, protocol: int, flags: set[str], seed: int
) -> None:
    bits = frozenset(flags if name in FLAGGED else ())
    history = History(director, name, weights, family=family, flags=bits, protocol=protocol)
    live(history, random.Random(seed), STEPS)
