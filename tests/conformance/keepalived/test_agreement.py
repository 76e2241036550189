"""``xlvs keepalived -t`` against the real ``keepalived -t``: recorded whole, and live in part."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.keepalived import cases
from tests.conformance.keepalived.real import namespace, ours, real

RECORDING = Path(__file__).parent / "recording.json"
LIVE = 60  # cases asked anew at each run


def every() -> dict[str, str]:
    return {**dict(cases.keywords()), **cases.TEXTS}


def test_each_recorded_status_is_ours() -> None:
    recorded: dict[str, int] = json.loads(RECORDING.read_text())
    texts = every()
    assert len(recorded) > 3000
    assert set(texts) >= set(recorded), "cases have gone: record anew"
    wrong = {
        name: (status, ours(texts[name]).status)
        for name, status in recorded.items()
        if ours(texts[name]).status != status
    }
    assert not wrong


@pytest.mark.root
def test_recordings_are_what_keepalived_says() -> None:
    recorded: dict[str, int] = json.loads(RECORDING.read_text())
    texts = every()
    names = random.Random().sample(sorted(recorded), LIVE)
    with namespace(), ThreadPoolExecutor(2) as pool:
        answers = dict(zip(names, pool.map(lambda name: real(texts[name]).status, names), strict=True))
    assert answers == {name: recorded[name] for name in names}
